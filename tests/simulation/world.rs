//! The whole: a clock, what happens next, and everybody to whom it happens. A seed says all of it.

use crate::agent::{Agent, Message};
use crate::client::{Answerer, Query, RETRY, Stream};
use crate::faults::{Fault, Kind, MENDING, Scene};
use crate::kernel::{Arrival, DNS, Kernel, Packet, Place};
use crate::server::Parcel;
use fastrand::Rng;
use nodelocaldns::node::{Fallback, Interception, NodeSpec, OptionalMatches, Rule, TransportProtocol};
use nodelocaldns::watchdog::state::{Exit, ProbeTarget, Timing};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Of the watchdog's probes.
pub const PROBE_MARK: u32 = 0x10_0000;

const MS: Duration = Duration::from_millis(1);

/// After the last fault: the longest delay of a restart, the proving, and a second for the node's next attempt.
const SETTLING: Duration = Duration::from_secs(10);

/// Fifty proofs, 20 ms from one to the next, after a probe that was slow or lost; and the node's next attempt after a
/// second.
const PROVING: Duration = Duration::from_millis(3500);

/// What makes a world differ from another one of the same seed: as we have built it, or with something wrong in it that
/// must be seen.
#[derive(Clone, Copy)]
pub struct Design {
    pub timing: Timing,
    /// Which of the rules that `desired` names are set.
    pub is_set: fn(&Rule) -> bool,
    /// The node heeds the watchdog's wish to withdraw.
    pub withdraws: bool,
    /// How long a server serves on at most when its watchdog was killed.
    pub orphaned: Duration,
    /// The server holds the rules' owner too, so that they go with whichever process ends last.
    pub holds_rules: bool,
    /// Rules of iptables have the lease where there is a match for it.
    pub has_lease: bool,
}

impl Default for Design {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            is_set: |_| true,
            withdraws: true,
            orphaned: 3 * MS,
            holds_rules: true,
            has_lease: true,
        }
    }
}

/// What happens when its time has come.
#[derive(Clone, Debug)]
pub enum Happening {
    Ask(usize),
    /// A server has found the answer to a question that was not cached.
    Found(u32, Query),
    ServerUp(u32),
    ServerEnded(u32, Exit),
    Tell(u32, Message),
    /// A probe that was sent so many times is to be sent again.
    ProbeAgain {
        agent: u32,
        target: ProbeTarget,
        probe_id: u64,
        sent: u32,
    },
    NodeStep(u32, u32),
    NodeRetry(u32),
    Begins(usize),
    Ends(usize),
    AgentStarts,
}

/// Why a run has failed.
pub type Failure = String;

pub struct World {
    pub now: Instant,
    start: Instant,
    pub rng: Rng,
    pub design: Design,
    pub scene: Scene,
    pub spec: NodeSpec,
    pub kernel: Kernel<Parcel>,
    pub agents: BTreeMap<u32, Agent>,
    /// The last number given to an agent or server.
    last_number: u32,
    streams: Vec<Stream>,
    faults: Vec<Fault>,
    /// When everything was in place for the first time; faults count from then.
    well_since: Option<Instant>,
    queue: BTreeMap<(Instant, u64), Happening>,
    queued: u64,
    trace: Option<Vec<String>>,
    failure: Option<Failure>,
}

impl World {
    pub fn new(seed: u64, design: Design, is_traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scene = Scene::draw(&mut rng);
        let faults = Fault::draw_some(&scene, &mut rng);
        let now = Instant::now();
        let addresses = [scene.addresses.link_local, scene.addresses.cluster_ip];
        let mut streams = Vec::new();
        for address in addresses {
            for protocol in [TransportProtocol::Udp, TransportProtocol::Tcp] {
                streams.extend([Place::Pod, Place::Host].map(|place| Stream::new(place, address, protocol)));
            }
        }
        let matches = scene.backend.matches();
        let matches = OptionalMatches { recent: matches.recent && design.has_lease, ..matches };
        let spec = NodeSpec {
            addresses: addresses.to_vec(),
            port: DNS,
            health_port: 8080,
            interface: Some("nodelocaldns".to_owned()),
            probe_mark: PROBE_MARK,
            // The kernel here has the fallback by its description: it is no part of the rules that come and go.
            fallback: Fallback::default(),
        };
        let mut world = Self {
            now,
            start: now,
            rng,
            design,
            scene,
            spec,
            kernel: Kernel::new(scene.addresses, matches, scene.is_ipvs),
            agents: BTreeMap::new(),
            last_number: 0,
            streams,
            faults,
            well_since: None,
            queue: BTreeMap::new(),
            queued: 0,
            trace: is_traced.then(Vec::new),
            failure: None,
        };
        world.note(|world| format!("{:?}, {:?}", world.scene, world.faults));
        for stream in 0..world.streams.len() {
            let within = Duration::from_micros(world.rng.u64(..50_000));
            world.schedule(within, Happening::Ask(stream));
        }
        world.schedule(20 * MS, Happening::AgentStarts);
        world
    }

    /// Lets time pass until everything is well again after the last fault, or something is not as promised. What
    /// happened, if traced.
    pub fn run(mut self) -> (Result<(), Failure>, Vec<String>) {
        let outcome = loop {
            if let Some(failure) = self.failure.take() {
                break Err(failure);
            }
            if self.is_calm() && self.is_well() {
                break self.count_lost();
            }
            if self.now - self.start > self.deadline() {
                break Err(format!(
                    "not intercepted and answered by the node, long after the last fault: {}",
                    self.unsettled()
                ));
            }
            self.step();
        };
        (outcome, self.trace.unwrap_or_default())
    }

    fn step(&mut self) {
        let wake = self.agents.values().filter_map(|agent| agent.wake().map(|at| (at, agent.id))).min();
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        match wake {
            Some((at, agent)) if next.is_none_or(|next| at < next) => {
                self.now = self.now.max(at);
                self.tell(agent, Message::Tick);
            }
            _ => {
                let Some(((at, _), happening)) = self.queue.pop_first() else {
                    return self.fail("nothing will ever happen again".to_owned());
                };
                self.now = self.now.max(at);
                self.happen(happening);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ask(stream) => self.ask(stream),
            Happening::Found(server, query) => self.find(server, &query),
            Happening::ServerUp(server) => self.server_up(server),
            Happening::ServerEnded(server, exit) => self.server_ended(server, exit),
            Happening::Tell(agent, message) => self.tell(agent, message),
            Happening::ProbeAgain { agent, target, probe_id, sent } => self.probe_again(agent, target, probe_id, sent),
            Happening::NodeStep(agent, job) => self.node_step(agent, job),
            Happening::NodeRetry(agent) => self.node_retry(agent),
            Happening::Begins(index) => {
                self.note(|world| format!("fault: {:?}", world.faults[index].kind));
                self.begin(self.faults[index].kind);
            }
            Happening::Ends(index) => {
                self.note(|world| format!("no longer: {:?}", world.faults[index].kind));
                self.relieve(self.faults[index].kind);
            }
            Happening::AgentStarts => self.start_agent(false),
        }
    }

    fn ask(&mut self, index: usize) {
        let Stream { place, address, protocol, silent_since, .. } = self.streams[index];
        // A question that is asked again may be another one.
        let is_cached = silent_since.is_some() || self.rng.u8(..7) > 0;
        let source = self.kernel.source(place, address, self.streams[index].port());
        let query = self.streams[index].ask(index, source, is_cached, self.now);
        self.judge_silence(index);
        let packet = Packet { protocol, source, destination: query.asked, mark: 0 };
        match self.kernel.send_query(packet, place, Parcel::Query(query), self.now) {
            Arrival::Socket(agent) => self.read(agent),
            Arrival::KubeDns(seen) if seen == query.asked => self.answer(&query, Answerer::KubeDns),
            arrival @ (Arrival::KubeDns(_) | Arrival::Nobody) => {
                self.note(|world| format!("{} is lost: {arrival:?}", world.streams[index].name()));
            }
        }
        let is_silent = self.streams[index].silent_since.is_some();
        // Nothing new comes of asking often while a server is awaited that hangs at its start.
        let is_waiting = self.is_calm() && !self.agents.values().all(|agent| self.is_settled(agent));
        let pause = if is_silent { RETRY } else { MS * self.rng.u32(30..100) * if is_waiting { 5 } else { 1 } };
        self.schedule(pause, Happening::Ask(index));
        self.judge_proof();
        self.judge_mending();
        if self.well_since.is_none() && self.is_well() {
            self.begin_faults();
        }
    }

    /// A client gets an answer.
    pub fn answer(&mut self, query: &Query, answerer: Answerer) {
        self.judge_silence(query.stream);
        let stream = &mut self.streams[query.stream];
        let before = stream.last_answer.map(|(_, answerer)| answerer);
        if stream.take_answer(query, answerer, self.now).is_some() && before != Some(answerer) {
            self.note(|world| format!("{} is answered by {answerer:?}", world.streams[query.stream].name()));
        }
    }

    fn judge_silence(&mut self, index: usize) {
        let (Some(well_since), stream) = (self.well_since, &self.streams[index]) else { return };
        let Some(since) = stream.silent_since else { return };
        let silence = self.now - since.max(well_since);
        if silence <= RETRY {
            return;
        }
        let is_alone = self.faults.len() == 1;
        let begun = self.faults.iter().filter(|fault| well_since + fault.after <= self.now);
        let allowed: Duration = begun.map(|fault| fault.allows(&self.scene, stream, is_alone)).sum();
        if silence > allowed + RETRY {
            self.fail(format!("{}: no answer for {silence:?}, where {allowed:?} are allowed", stream.name()));
        }
    }

    /// Whoever answers everywhere is intercepted within its proving time.
    fn judge_proof(&mut self) {
        let (Some(end), 1) = (self.last_end(), self.agents.len()) else { return };
        let Some(agent) = self.agents.values().next().filter(|agent| !self.is_settled(agent)) else { return };
        let Some(since) = agent.serving_since().map(|since| since.max(end)) else { return };
        if self.now > since + PROVING + self.asked_again_within() {
            self.fail(format!(
                "a server answers, and is not intercepted for {:?}: {}",
                self.now - since,
                agent.describe()
            ));
        }
    }

    /// The addresses that can be intercepted.
    fn provable(&self) -> Interception {
        let is_had = |address: &&IpAddr| !self.scene.is_ipvs || **address != self.scene.addresses.cluster_ip;
        self.spec.addresses.iter().filter(is_had).copied().collect()
    }

    /// Whether all that can be is intercepted, and nothing else.
    fn is_settled(&self, agent: &Agent) -> bool {
        agent.is_idle() && *agent.wanted() == self.provable()
    }

    /// How long it may take until every address is asked once more, after a fault that has made questions to one rare:
    /// somebody else has answered there, an agent beside this one perhaps, or nobody.
    fn asked_again_within(&self) -> Duration {
        let makes_rare =
            |fault: &Fault| matches!(fault.kind, Kind::Deaf(..) | Kind::Wrong(..) | Kind::Upgraded | Kind::Terminated);
        if self.faults.iter().any(makes_rare) { self.design.timing.longest_prove_interval } else { Duration::ZERO }
    }

    /// What somebody has taken away is there again in time, if nothing else goes wrong.
    fn judge_mending(&mut self) {
        let (Some(since), [fault]) = (self.well_since, self.faults.as_slice()) else { return };
        let is_change = matches!(fault.kind, Kind::RulesFlushed | Kind::LinkRemoved);
        if is_change && self.now > since + fault.after + MENDING && !self.kernel.has_everything(&self.scene) {
            self.fail(format!("{:?} is not mended after {MENDING:?}", fault.kind));
        }
    }

    fn count_lost(&self) -> Result<(), Failure> {
        // Several together may: a rule that cannot be withdrawn while the server stops.
        if self.faults.len() > 1 || !self.faults.iter().all(|fault| fault.loses_nothing(&self.scene)) {
            return Ok(());
        }
        match self.streams.iter().find(|stream| stream.asked != stream.answered) {
            Some(stream) => Err(format!(
                "{}: {} of {} cached answers are lost, where none may be",
                stream.name(),
                stream.asked - stream.answered,
                stream.asked
            )),
            None => Ok(()),
        }
    }

    fn begin_faults(&mut self) {
        self.well_since = Some(self.now);
        self.note(|_| "all is well".to_owned());
        // As it is after minutes in which nobody but the node has answered.
        self.kernel.forget_connections();
        for stream in &mut self.streams {
            (stream.asked, stream.answered) = (0, 0);
        }
        for (index, fault) in self.faults.clone().into_iter().enumerate() {
            self.schedule(fault.after, Happening::Begins(index));
            self.schedule(fault.after + fault.lasts, Happening::Ends(index));
        }
    }

    /// When the last fault is over.
    fn last_end(&self) -> Option<Instant> {
        let last = self.faults.iter().map(|fault| fault.after + fault.lasts).max().unwrap_or_default();
        self.well_since.map(|since| since + last)
    }

    fn is_calm(&self) -> bool {
        self.last_end().is_some_and(|end| self.now > end)
    }

    fn deadline(&self) -> Duration {
        let is_hanging = self.faults.iter().any(|fault| fault.kind == Kind::StartsHang);
        // One that was started while they hang has that long to come to something.
        let starting = if is_hanging { self.design.timing.start_limit } else { Duration::ZERO };
        self.last_end().map_or(Duration::ZERO, |end| end - self.start) + starting + SETTLING + self.asked_again_within()
    }

    /// Everything is in place: one agent, everything intercepted that can be, and the node has answered everybody there
    /// since the last fault.
    fn is_well(&self) -> bool {
        let since = self.last_end().unwrap_or(self.start);
        let provable = self.provable();
        let is_right = |stream: &Stream| {
            let wanted = if provable.contains(stream.address) { Answerer::Node } else { Answerer::KubeDns };
            stream.last_answer.is_some_and(|(at, by)| at > since && by == wanted)
        };
        self.agents.len() == 1
            && self.agents.values().all(|agent| self.is_settled(agent))
            && self.streams.iter().all(is_right)
    }

    fn unsettled(&self) -> String {
        let agents: Vec<String> = self.agents.values().map(Agent::describe).collect();
        let streams =
            self.streams.iter().map(|stream| format!("{}: {:?}", stream.name(), stream.last_answer.map(|(_, by)| by)));
        format!("{agents:?}, {:?}", streams.collect::<Vec<_>>())
    }

    /// Whether a fault of this kind lasts now.
    pub fn is_going_on(&self, kind: Kind) -> bool {
        self.ends(kind).is_some()
    }

    /// When the present fault of this kind ends.
    pub fn ends(&self, kind: Kind) -> Option<Instant> {
        let since = self.well_since?;
        let present = self.faults.iter().filter(|fault| fault.kind == kind && since + fault.after <= self.now);
        present.map(|fault| since + fault.after + fault.lasts).filter(|end| *end > self.now).max()
    }

    pub fn number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    pub fn schedule(&mut self, after: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), happening);
    }

    /// A time between `from` and `to` milliseconds.
    pub fn draw(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.u64(from * 1000..to * 1000))
    }

    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    pub fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>9.3} ms  {}", (self.now - self.start).as_secs_f64() * 1000.0, line(self));
            self.trace.get_or_insert_default().push(line);
        }
    }

    /// The address and protocol of a target, as the kernel has them.
    pub fn end_of(target: ProbeTarget) -> (SocketAddr, TransportProtocol) {
        let protocol = match target.transport {
            nodelocaldns::chain::Transport::Udp => TransportProtocol::Udp,
            nodelocaldns::chain::Transport::Tcp => TransportProtocol::Tcp,
        };
        (target.address, protocol)
    }
}
