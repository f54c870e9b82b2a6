//! Rounds: every server in turn under the same load, again and again, so that what disturbs the machine for a while disturbs all.

use crate::generator::{End, Generator, Outcome};
use crate::message::A;
use crate::options::Options;
use crate::peers::{Peer, Place};
use crate::process::{Memory, Process};
use crate::questions::{Question, Questions};
use crate::workloads::{Unchecked, Workload, warm_up};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The servers' core; the generator and the upstream have the other.
const SERVER_CORE: usize = 0;
pub const GENERATOR_CORE: usize = 1;
/// Everything listens on addresses of 127.53.0.0/16 with this port; nothing else is likely to.
const PORT: u16 = 5300;
const UPSTREAM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 53, 0, 1), PORT);
/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// Under load before anything is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// How a server was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// A closed loop with so many queries outstanding.
    Outstanding(usize),
    /// So many queries a second.
    Rate(u32),
}

/// What one round of one server gave.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// CPU time of all its processes, in microseconds a query.
    pub cpu_us: f64,
    pub queries_per_second: f64,
    /// Latency in microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub lost: u64,
}

/// All rounds of one server under one load.
#[derive(Debug, Serialize)]
pub struct Series {
    pub peer: &'static str,
    pub load: Load,
    pub samples: Vec<Sample>,
}

/// What a workload gave.
#[derive(Debug, Serialize)]
pub struct WorkloadResult {
    pub workload: &'static str,
    pub about: &'static str,
    pub series: Vec<Series>,
    /// At the end of all rounds.
    pub memory: Vec<(&'static str, Memory)>,
}

/// A server under measurement.
struct Subject {
    peer: Peer,
    process: Process,
    generator: Generator,
}

/// The scripted upstream and the folder that everything is written to.
pub struct Bench<'a> {
    options: &'a Options,
    folder: PathBuf,
    _upstream: Process,
}

impl<'a> Bench<'a> {
    pub fn start(options: &'a Options) -> Result<Self> {
        let folder = &options.folder;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Some servers change their working directory.
        let folder = folder.canonicalize()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["upstream", &UPSTREAM.to_string()]);
        let mut upstream = Process::start(command, GENERATOR_CORE, &folder.join("upstream.log"))?;
        let question = Question::new("ready.bench.example", A);
        let ready = Generator::new(UPSTREAM.into())?.wait_for(&question, START);
        upstream.check().and(ready).context("the scripted upstream does not answer")?;
        Ok(Self { options, folder, _upstream: upstream })
    }

    /// Starts every chosen server that can do the workload.
    fn subjects(&self, workload: &Workload) -> Result<Vec<Subject>> {
        let mut subjects = Vec::new();
        for peer in self.options.peers() {
            if peer == Peer::Floor && !workload.has_floor {
                continue;
            }
            let subject =
                self.subject(peer, workload).with_context(|| format!("{} under the workload {}", peer.name(), workload.name))?;
            subjects.extend(subject);
        }
        Ok(subjects)
    }

    fn subject(&self, peer: Peer, workload: &Workload) -> Result<Option<Subject>> {
        let folder: PathBuf = self.folder.join(workload.name).join(peer.name());
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let address = SocketAddrV4::new(Ipv4Addr::new(127, 53, 1, 1 + peer as u8), PORT);
        let node_cache = self.options.node_cache();
        let place =
            Place { address, upstream: UPSTREAM, folder: &folder, ours: &self.options.binary, node_cache: node_cache.as_deref() };
        let Some(command) = peer.command(workload.service, &place)? else { return Ok(None) };
        let mut process = Process::start(command, SERVER_CORE, &log(&folder))?;
        let mut generator = Generator::new(address.into())?;
        let mut question = Question::new("ready.bench.example", A);
        if peer == Peer::Floor {
            question.expected = crate::message::Expected::Anything;
        }
        let ready = generator.wait_for(&question, START);
        process.check().and(ready)?;
        let mut subject = Subject { peer, process, generator };
        if let Some((questions, count)) = warm_up(workload) {
            let mut questions = subject.questions(Box::new(questions));
            subject
                .generator
                .closed_loop(&mut *questions, 16, End::Count(count))?
                .check_answers()
                .context("asking every name once")?;
        }
        Ok(Some(subject))
    }

    /// Measures one workload.
    pub fn run(&self, workload: &Workload) -> Result<WorkloadResult> {
        let mut subjects = self.subjects(workload)?;
        let mut series = Vec::new();
        let mut run = 0;
        for outstanding in workload.outstanding {
            let load = Load::Outstanding(*outstanding);
            series.extend(self.rounds(workload, &mut subjects, load, &mut run)?);
        }
        if workload.at_fixed_rate {
            let load = Load::Rate(self.options.rate.unwrap_or_else(|| half_of_the_slowest(&series)));
            series.extend(self.rounds(workload, &mut subjects, load, &mut run)?);
        }
        let memory =
            subjects.iter().map(|subject| Ok((subject.peer.name(), subject.process.memory()?))).collect::<Result<_>>()?;
        Ok(WorkloadResult { workload: workload.name, about: workload.about, series, memory })
    }

    fn rounds(&self, workload: &Workload, subjects: &mut [Subject], load: Load, run: &mut u32) -> Result<Vec<Series>> {
        let mut all: Vec<Series> =
            subjects.iter().map(|subject| Series { peer: subject.peer.name(), load, samples: Vec::new() }).collect();
        for round in 0..=self.options.rounds() {
            for (subject, series) in subjects.iter_mut().zip(&mut all) {
                *run += 1;
                let mut questions = subject.questions((workload.questions)(*run));
                // The first one only settles: pages are touched, frequencies rise, connections open.
                let duration = if round == 0 { SETTLE.min(self.options.duration()) } else { self.options.duration() };
                let sample = subject
                    .measure(&mut *questions, load, duration, !self.options.check)
                    .with_context(|| format!("{} under the workload {}, {load:?}", subject.peer.name(), workload.name))?;
                if round > 0 {
                    series.samples.push(sample);
                }
            }
        }
        Ok(all)
    }
}

impl Subject {
    fn questions(&self, questions: Box<dyn Questions>) -> Box<dyn Questions> {
        if self.peer == Peer::Floor { Box::new(Unchecked(questions)) } else { questions }
    }

    fn measure(&mut self, questions: &mut dyn Questions, load: Load, duration: Duration, heeds_loss: bool) -> Result<Sample> {
        self.process.check()?;
        let before = self.process.cpu_time()?;
        let outcome = match load {
            Load::Outstanding(outstanding) => self.generator.closed_loop(questions, outstanding, End::After(duration))?,
            Load::Rate(rate) => self.generator.fixed_rate(questions, f64::from(rate), duration)?,
        };
        let cpu = self.process.cpu_time()?.saturating_sub(before);
        outcome.check_answers()?;
        if heeds_loss {
            outcome.check_loss()?;
        }
        Ok(sample(outcome, cpu))
    }
}

fn sample(mut outcome: Outcome, cpu: Duration) -> Sample {
    outcome.latencies.sort_unstable();
    let percentile = |share: f64| {
        let index = (share * outcome.latencies.len() as f64) as usize;
        outcome.latencies.get(index.min(outcome.latencies.len() - 1)).map_or(0.0, |latency| f64::from(*latency) / 1e3)
    };
    Sample {
        cpu_us: cpu.as_secs_f64() * 1e6 / outcome.answered as f64,
        queries_per_second: outcome.answered as f64 / outcome.elapsed.as_secs_f64(),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        p999_us: percentile(0.999),
        lost: outcome.lost,
    }
}

/// A rate that every server can hold: half of what the slowest answers in its best closed loop.
fn half_of_the_slowest(series: &[Series]) -> u32 {
    let best = |peer: &str| {
        let of_peer = series.iter().filter(|series| series.peer == peer);
        of_peer.map(|series| median(&series.samples, |sample| sample.queries_per_second)).fold(0.0, f64::max)
    };
    let slowest = series.iter().map(|series| best(series.peer)).fold(f64::INFINITY, f64::min);
    (slowest / 2.0 / 1000.0).floor().max(1.0) as u32 * 1000
}

/// The median of a figure over samples; 0 without any.
pub fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    match (figures.len(), figures.len() / 2) {
        (0, _) => 0.0,
        (count, middle) if count % 2 == 1 => figures[middle],
        (_, middle) => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}

/// Where a server's output goes.
fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}
