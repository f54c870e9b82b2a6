//! The surroundings of every measurement: the scripted upstream, and servers started on a core of theirs.

use crate::generator::{End, Generator, Outcome};
use crate::message::{A, Expected};
use crate::options::Options;
use crate::peers::{Peer, Place, Service};
use crate::process::Process;
use crate::questions::{InTurn, Question, Questions};
use anyhow::{Context, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The servers' core; the generator and the upstream have the other.
pub const SERVER_CORE: usize = 0;
pub const GENERATOR_CORE: usize = 1;
/// Everything listens on addresses of 127.53.0.0/16 with this port; nothing else is likely to.
const PORT: u16 = 5300;
const UPSTREAM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 53, 0, 1), PORT);
/// The file with the upstream's certificate.
const CERTIFICATE: &str = "upstream.pem";
/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// How often a server that starts is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(5);
/// A server that has said SERVFAIL may say so again from its cache for some seconds (RFC 2308 section 7.1).
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Queries on their way while names are asked for once, to fill a cache.
const FILLING: usize = 64;

/// The scripted upstream, and the folder that everything is written to.
pub struct Lab<'a> {
    pub options: &'a Options,
    folder: PathBuf,
    _upstream: Process,
}

/// What a server is started for.
pub struct Setup<'a> {
    /// Names the folder of its configuration and log.
    pub name: &'a str,
    pub service: Service,
    /// Worker threads, of ours and the reference; the others have one.
    pub workers: usize,
    pub cores: &'a [usize],
}

impl<'a> Setup<'a> {
    /// One worker on the servers' core.
    pub fn new(name: &'a str, service: Service) -> Self {
        Self { name, service, workers: 1, cores: &[SERVER_CORE] }
    }
}

/// A running server and somebody who asks it.
pub struct Server {
    pub peer: Peer,
    pub address: SocketAddrV4,
    pub process: Process,
    pub generator: Generator,
}

impl<'a> Lab<'a> {
    pub fn start(options: &'a Options) -> Result<Self> {
        let folder = &options.folder;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Some servers change their working directory.
        let folder = folder.canonicalize()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["upstream", &UPSTREAM.to_string()]).arg(folder.join(CERTIFICATE));
        let mut upstream = Process::start(command, &[GENERATOR_CORE], &folder.join("upstream.log"))?;
        let ready = Generator::new(UPSTREAM)?.wait_for(&Question::new("ready.bench.example", A), START, ASK_INTERVAL);
        upstream.check().and(ready).context("the scripted upstream does not answer")?;
        Ok(Self { options, folder, _upstream: upstream })
    }

    /// A server that answers; `None` if this one cannot be what is wanted.
    pub fn server(&self, peer: Peer, setup: &Setup<'_>) -> Result<Option<Server>> {
        let Some(mut server) = self.start_server(peer, setup)? else { return Ok(None) };
        let mut question = Question::new("ready.bench.example", A);
        if peer == Peer::Floor {
            question.expected = Expected::Anything;
        }
        let ready = server.generator.wait_for(&question, START, ASK_INTERVAL);
        server.process.check().and(ready).with_context(|| format!("{} for {}", peer.name(), setup.name))?;
        Ok(Some(server))
    }

    /// As [`Lab::server`], without waiting until it answers.
    pub fn start_server(&self, peer: Peer, setup: &Setup<'_>) -> Result<Option<Server>> {
        let folder = self.folder.join(setup.name).join(peer.name());
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let address = SocketAddrV4::new(Ipv4Addr::new(127, 53, 1, 1 + peer as u8), PORT);
        let node_cache = self.options.node_cache();
        let place = Place {
            address,
            upstream: UPSTREAM,
            certificate: &self.folder.join(CERTIFICATE),
            folder: &folder,
            ours: &self.options.binary,
            node_cache: node_cache.as_deref(),
            workers: setup.workers,
        };
        let Some(command) = peer.command(setup.service, &place)? else { return Ok(None) };
        let generator = Generator::new(address)?;
        let process = Process::start(command, setup.cores, &folder.join("log"))?;
        Ok(Some(Server { peer, address, process, generator }))
    }
}

impl Server {
    /// The same questions, with nothing expected where the floor is asked.
    pub fn questions(&self, questions: Box<dyn Questions>) -> Box<dyn Questions> {
        if self.peer == Peer::Floor { Box::new(Unchecked(questions)) } else { questions }
    }

    /// Asks each question once; all of them again, for a while, as long as an answer is wrong or lost.
    pub fn ask_each(&mut self, questions: Vec<Question>) -> Result<()> {
        let count = questions.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let mut in_turn = self.questions(Box::new(InTurn::new(questions)));
        let deadline = Instant::now() + START;
        loop {
            let outcome = self.generator.closed_loop(&mut *in_turn, FILLING, End::Count(count))?;
            if outcome.wrong == 0 && outcome.lost == 0 {
                return Ok(());
            }
            if (outcome.wrong > 0 && self.peer == Peer::Ours) || Instant::now() > deadline {
                return self
                    .check_answers(&outcome)
                    .and_then(|()| outcome.check_loss())
                    .context("asking every name once");
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// Asks so many questions, as fast as they are answered.
    pub fn ask(&mut self, questions: Box<dyn Questions>, count: u64) -> Result<()> {
        let mut questions = self.questions(questions);
        let outcome = self.generator.closed_loop(&mut *questions, FILLING, End::Count(count))?;
        self.check_answers(&outcome)
    }

    /// Fails if there was no answer or too many wrong ones. Of ours, one is too many. The others are measured, not
    /// tested: where the machine holds the upstream up, one of them may say SERVFAIL now and then.
    pub fn check_answers(&self, outcome: &Outcome) -> Result<()> {
        outcome.check_answers(if self.peer == Peer::Ours { 0 } else { outcome.answered / 100 })
    }

    /// CPU time of all its processes while `work` is done.
    pub fn cpu_time_of<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Duration)> {
        self.process.check()?;
        let before = self.process.cpu_time()?;
        let done = work(self)?;
        Ok((done, self.process.cpu_time()?.saturating_sub(before)))
    }
}

/// The same questions with nothing expected of their answers.
struct Unchecked(Box<dyn Questions>);

impl Questions for Unchecked {
    fn next(&mut self, out: &mut Question) {
        self.0.next(out);
        out.expected = Expected::Anything;
    }
}
