//! The machine against a simulated server with a virtual clock, in scenes of its own; tests/simulation lets chance
//! choose.

use super::{Action, Cause, Event, Exit, Obstacle, ProbeResult, ProbeTarget, StateMachine, Timing};
use crate::chain::Transport;
use crate::node::Interception;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

fn targets() -> Vec<ProbeTarget> {
    let both = [Transport::Udp, Transport::Tcp];
    ["127.0.0.1:53", "[::1]:53"]
        .iter()
        .flat_map(|address| both.map(|transport| ProbeTarget { address: address.parse().unwrap(), transport }))
        .collect()
}

/// The addresses of the targets, in the order of those.
fn addresses() -> [IpAddr; 2] {
    ["127.0.0.1", "::1"].map(|text| text.parse().unwrap())
}

/// How long a sparing probe waits for its answer.
const PATIENCE: Duration = Duration::from_millis(900);

/// When a probe counts as missed.
const LATE: Duration = Duration::from_millis(250);

/// How servers of the world behave from now on.
#[derive(Clone, Debug)]
struct Nature {
    /// From its start until it reports that it serves.
    startup: Duration,
    latency: Duration,
    hangs: bool,
    /// Index of a target that is not answered.
    deaf: Option<usize>,
    /// Index of a target where somebody else answers.
    foreign: Option<usize>,
    /// Who does so is another server of this program.
    is_sibling: bool,
    /// Packets are dropped from full queues.
    is_overrun: bool,
    /// It will not take its configuration.
    fails: bool,
}

const WELL: Nature = Nature {
    startup: Duration::from_millis(20),
    latency: MS,
    hangs: false,
    deaf: None,
    foreign: None,
    is_sibling: false,
    is_overrun: false,
    fails: false,
};

/// What comes to the machine, when its time has come.
#[derive(Clone, Debug)]
enum Coming {
    Report,
    Exit(Exit),
    Settled(Interception),
    TornDown,
}

struct World {
    start: Instant,
    now: Instant,
    machine: StateMachine,
    timing: Timing,
    nature: Nature,
    targets: Vec<ProbeTarget>,
    coming: Vec<(Instant, Coming)>,
    /// With the number of each, since when it is asked, and whether that is one packet only.
    probes: BTreeMap<ProbeTarget, (u64, Instant, bool)>,
    is_serving: bool,
    /// Every target of this address has been answerable by the present server, without a pause, since.
    good_since: BTreeMap<IpAddr, Instant>,
    /// Addresses that are asked more seldom, since the present server did not answer there or somebody else did.
    doubtful: BTreeSet<IpAddr>,
    last_answer: BTreeMap<ProbeTarget, Instant>,
    /// Somebody else has answered a probe.
    foreign_at: Option<Instant>,
    on: Interception,
    log: Vec<(Duration, Action)>,
    is_stopping: bool,
    /// Another process reads the sockets too.
    is_shared: bool,
    /// A successor has taken over and lives.
    is_succeeded: bool,
    exit: Option<u8>,
}

impl World {
    fn new(nature: Nature) -> Self {
        let now = Instant::now();
        let timing = Timing::default();
        let mut world = Self {
            start: now,
            now,
            machine: StateMachine::new(timing, false, now),
            timing,
            nature,
            targets: targets(),
            coming: Vec::new(),
            probes: BTreeMap::new(),
            is_serving: false,
            good_since: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            last_answer: BTreeMap::new(),
            foreign_at: None,
            on: Interception::default(),
            log: Vec::new(),
            is_stopping: false,
            is_shared: false,
            is_succeeded: false,
            exit: None,
        };
        world.tell(Event::Tick);
        world
    }

    fn tell(&mut self, event: Event<'_>) {
        self.is_stopping |= event == Event::Stop;
        match event {
            Event::SocketsShared { is_shared } => self.is_shared = is_shared,
            Event::SuccessorServes => self.is_succeeded |= !self.is_stopping,
            Event::SuccessorGone => self.is_succeeded = false,
            _ => {}
        }
        for action in self.machine.handle(event, self.now) {
            self.log.push((self.now - self.start, action.clone()));
            match action {
                Action::Spawn => {
                    assert!(!self.is_succeeded, "a server beside the successor's");
                    let at = self.now + self.nature.startup;
                    let next = if self.nature.fails { Coming::Exit(Exit::Status(1)) } else { Coming::Report };
                    self.coming.push((at, next));
                }
                Action::Kill => self.end_server(Exit::Signal(9), MS),
                Action::Stop { leave } => {
                    assert_eq!(
                        leave,
                        self.is_shared || self.is_succeeded,
                        "sockets taken from another, or left to nobody"
                    );
                    self.end_server(Exit::Status(0), 5 * MS);
                }
                Action::Probe { target, probe_id, is_single_packet } => {
                    self.probes.insert(target, (probe_id, self.now, is_single_packet));
                }
                Action::CancelProbes => self.probes.clear(),
                Action::Intercept(interception) => {
                    self.on.clone_from(&interception);
                    self.coming.push((self.now + 2 * MS, Coming::Settled(interception)));
                }
                Action::Teardown => self.coming.push((self.now + MS, Coming::TornDown)),
                Action::Exit(status) => self.exit = Some(status),
                Action::AnnounceProven => assert!(!self.on.is_none(), "announced before queries come here"),
                Action::Reload | Action::CountRestart(_) | Action::StopOffering | Action::ReportObstacle { .. } => {}
            }
        }
    }

    fn end_server(&mut self, exit: Exit, after: Duration) {
        self.is_serving = false;
        self.coming.retain(|(_, coming)| !matches!(coming, Coming::Report | Coming::Exit(_)));
        self.coming.push((self.now + after, Coming::Exit(exit)));
    }

    /// A crash of a server there is.
    fn crash(&mut self, exit: Exit) {
        if self.is_serving {
            self.end_server(exit, Duration::ZERO);
        }
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += MS;
        let now = self.now;
        let is_quiet = self.probes.is_empty() && self.coming.iter().all(|(at, _)| *at > now);
        if is_quiet && self.machine.wake_at().is_none_or(|at| at > now) {
            return self.judge();
        }
        let (due, rest) = std::mem::take(&mut self.coming).into_iter().partition(|(at, _)| *at <= now);
        self.coming = rest;
        let due: Vec<(Instant, Coming)> = due;
        for (_, coming) in due {
            match coming {
                Coming::Report => {
                    self.is_serving = true;
                    self.doubtful.clear();
                    let targets = self.targets.clone();
                    self.tell(Event::Serving { targets: &targets, has_streams: false, drain: Duration::from_secs(5) });
                }
                Coming::Exit(exit) => {
                    self.is_serving = false;
                    if self.nature.fails {
                        self.tell(Event::ConfigurationRefused);
                    }
                    self.tell(Event::Exited(exit));
                }
                Coming::Settled(interception) => {
                    self.tell(Event::NodeSettled { interception: &interception, is_done: true })
                }
                Coming::TornDown => self.tell(Event::TornDown),
            }
        }
        for (index, target) in self.targets.clone().into_iter().enumerate() {
            let Some((probe_id, asked, is_single_packet)) = self.probes.get(&target).copied() else { continue };
            let is_foreign = self.nature.foreign == Some(index);
            let is_ours = self.is_serving && !self.nature.hangs && self.nature.deaf != Some(index);
            if now == asked + LATE {
                self.tell(Event::ProbeLate { target, probe_id, is_overrun: self.nature.is_overrun });
            }
            let result = match (is_foreign || is_ours) && now >= asked + self.nature.latency {
                true if is_foreign && self.nature.is_sibling => ProbeResult::OtherGeneration,
                true if is_foreign => ProbeResult::Foreign,
                true => ProbeResult::Answered,
                false if is_single_packet && now >= asked + PATIENCE => ProbeResult::Silent,
                false => continue,
            };
            self.probes.remove(&target);
            match result {
                ProbeResult::Answered => _ = self.last_answer.insert(target, now),
                ProbeResult::Foreign | ProbeResult::OtherGeneration => self.foreign_at = Some(now),
                _ => {}
            }
            self.tell(Event::ProbeEnded { target, probe_id, result });
        }
        if self.machine.wake_at().is_some_and(|at| at <= now) {
            self.tell(Event::Tick);
        }
        assert!(self.machine.wake_at().is_none_or(|at| at > now), "it would spin");
        self.judge();
    }

    /// Whether all addresses are intercepted.
    fn is_on(&self) -> bool {
        Interception::of(&addresses()).is_within(&self.on)
    }

    fn of(&self, address: IpAddr) -> impl Iterator<Item = (usize, &ProbeTarget)> {
        self.targets.iter().enumerate().filter(move |(_, target)| target.address.ip() == address)
    }

    /// The promises.
    fn judge(&mut self) {
        assert_eq!(&self.on, &self.machine.wanted);
        assert!(self.on.is_none() || !self.is_succeeded, "two intercept for one");
        assert!(self.on.is_none() || self.exit.is_none() || self.machine.keep_node);
        let grace = self.timing.restart_grace + 2 * MS;
        let mut newest = None;
        for address in self.on.addresses() {
            for (_, target) in self.of(address) {
                let at = self
                    .last_answer
                    .get(target)
                    .unwrap_or_else(|| panic!("{address} on, though {target:?} never answered"));
                let ago = self.now - *at;
                assert!(
                    ago <= self.timing.silence_of_one + grace,
                    "{address} on, though {target:?} was silent for {ago:?}"
                );
                newest = newest.max(Some(*at));
            }
        }
        // Who answers there is somebody else, perhaps, but not nobody; and a server that hangs may have answered last
        // where it is not intercepted.
        let last_sign = self.last_answer.values().copied().max().max(self.foreign_at);
        let silence = last_sign.map_or(Duration::ZERO, |at| self.now - at);
        let is_silent = newest.is_some() && silence > self.timing.silence_of_all + grace;
        assert!(!is_silent, "on, though all were silent for {silence:?}");
        addresses().into_iter().for_each(|address| self.judge_proof(address));
    }

    /// A server that answers at this address is intercepted there in time, whatever becomes of the other one.
    fn judge_proof(&mut self, address: IpAddr) {
        let Nature { hangs, deaf, foreign, latency, .. } = self.nature;
        let is_well = |index| deaf != Some(index) && foreign != Some(index);
        let is_answering = self.is_serving && !hangs && !self.is_stopping;
        let is_good =
            is_answering && self.of(address).next().is_some() && self.of(address).all(|(index, _)| is_well(index));
        if !is_good {
            self.good_since.remove(&address);
            self.doubtful.insert(address);
            return;
        }
        let since = *self.good_since.entry(address).or_insert(self.now);
        // A probe in flight that nobody will answer, and those of the proving time.
        let proving = (self.timing.prove_interval + latency + 2 * MS) * (self.timing.later_proofs + 1);
        let until_asked =
            if self.doubtful.contains(&address) { self.timing.longest_prove_interval } else { Duration::ZERO };
        let limit = proving + self.timing.watch_tcp_interval + until_asked;
        let is_on = self.on.contains(address);
        assert!(is_on || self.now - since <= limit, "{address} proven, and not intercepted");
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.exit.is_none() {
            self.step();
        }
    }

    fn when(&self, wanted: Action) -> Vec<Duration> {
        self.log.iter().filter(|(_, action)| *action == wanted).map(|(at, _)| *at).collect()
    }

    fn causes(&self) -> Vec<Cause> {
        self.log
            .iter()
            .filter_map(|(_, action)| if let Action::CountRestart(cause) = action { Some(*cause) } else { None })
            .collect()
    }
}

fn on() -> Action {
    Action::Intercept(Interception::of(&addresses()))
}

fn off() -> Action {
    Action::Intercept(Interception::default())
}

/// The interception of one of the addresses alone.
fn only(index: usize) -> Interception {
    Interception::of(&[addresses()[index]])
}

const STOP: Action = Action::Stop { leave: false };
const LEAVE: Action = Action::Stop { leave: true };

fn proven() -> World {
    let mut world = World::new(WELL);
    world.run(Duration::from_millis(500));
    assert!(world.is_on());
    world
}

#[test]
fn a_server_that_hangs_and_answered_last_where_it_is_not_intercepted_is_silent_since_then() {
    let mut world = proven();
    world.nature.deaf = Some(0);
    world.crash(Exit::Status(0));
    world.run(Duration::from_millis(144));
    world.nature.hangs = true;
    world.run(Duration::from_millis(452));
    world.run(Duration::from_millis(100));
    assert!(!world.is_on());
}

#[test]
fn the_node_is_prepared_then_the_server_started_proven_and_intercepted() {
    let world = proven();
    assert_eq!(world.log[0].1, off());
    assert_eq!(world.when(Action::Spawn).len(), 1);
    assert_eq!(world.when(on()).len(), 1);
    let served = world.when(Action::Spawn)[0] + WELL.startup;
    let proving = world.when(on())[0] - served;
    assert!(proving <= Duration::from_millis(80), "{proving:?}");
}

#[test]
fn a_crashed_server_is_replaced_at_once_and_interception_stays() {
    let mut world = proven();
    world.crash(Exit::Signal(9));
    let crashed = world.now - world.start;
    world.run(Duration::from_millis(300));
    assert_eq!(world.causes(), [Cause::Signal]);
    assert!(world.when(Action::Spawn)[1] - crashed <= 2 * MS);
    assert_eq!((world.when(on()).len(), world.when(off()).len()), (1, 1));
    let without = world.machine.without_service(world.now);
    assert!(without < Duration::from_millis(300), "{without:?}");
}

#[test]
fn a_server_that_hangs_is_replaced_within_the_promised_gap() {
    let mut world = proven();
    world.nature.hangs = true;
    let hung = world.now - world.start;
    world.run(Duration::from_millis(401));
    assert_eq!(world.when(Action::Kill).len(), 1);
    world.nature.hangs = false;
    world.run(Duration::from_millis(200));
    assert_eq!(world.causes(), [Cause::Hang]);
    assert!(world.is_on() && world.when(off()).len() == 1);
    let back = *world.last_answer.values().min().unwrap() - world.start;
    assert!(back - hung < Duration::from_millis(700));
}

#[test]
fn a_server_that_does_not_come_back_in_time_costs_the_interception_until_it_has_proved_itself_for_a_while() {
    let mut world = proven();
    world.nature.startup = Duration::from_millis(400);
    world.crash(Exit::Status(101));
    let crashed = world.now - world.start;
    world.run(Duration::from_millis(110));
    let withdrawn = world.when(off())[1] - crashed;
    assert!((70 * MS..=73 * MS).contains(&withdrawn), "{withdrawn:?}");
    world.run(Duration::from_secs(3));
    let served = world.when(Action::Spawn)[1] + world.nature.startup;
    let proving = world.when(on())[1] - served;
    assert!((Duration::from_secs(1)..Duration::from_millis(1300)).contains(&proving), "{proving:?}");
    assert_eq!(world.causes(), [Cause::Exit]);
}

#[test]
fn a_server_that_ends_before_it_served_costs_the_interception_at_once() {
    let mut world = proven();
    world.nature.fails = true;
    let crashed = world.now - world.start;
    world.crash(Exit::Signal(9));
    world.run(world.timing.restart_grace);
    let off = world.when(off());
    // What a server's start takes, and a step or two.
    let latest = crashed + WELL.startup + 5 * MS;
    assert!(off.last().is_some_and(|at| (crashed..latest).contains(at)), "{off:?}, crashed at {crashed:?}");
}

#[test]
fn a_server_whose_successor_would_come_too_late_costs_the_interception_at_once() {
    let mut world = proven();
    // The delays before them: none, 10, 20, 40, 80 ms.
    for _ in 0..4 {
        world.crash(Exit::Signal(9));
        world.run(Duration::from_secs(3));
    }
    let crashed = world.now - world.start;
    world.crash(Exit::Signal(9));
    world.run(world.timing.restart_grace / 2);
    assert!(
        world.when(off()).last().is_some_and(|at| *at >= crashed),
        "{:?}, crashed at {crashed:?}",
        world.when(off())
    );
}

#[test]
fn servers_that_fail_at_every_start_cost_less_than_a_tenth_of_a_second() {
    // iptables-restore takes that long on a node with kube-proxy's thousands of rules.
    let settling = 25 * MS;
    let mut world = proven();
    world.nature.fails = true;
    world.crash(Exit::Signal(9));
    let crashed = world.now - world.start;
    world.run(Duration::from_secs(1));
    let lost = world.when(off())[1] - crashed + settling;
    assert!(lost < 100 * MS, "{lost:?}");
}

#[test]
fn restarts_come_with_growing_delay_which_a_healthy_minute_resets() {
    let mut world = proven();
    let mut delays = Vec::new();
    for _ in 0..12 {
        world.crash(Exit::Signal(11));
        let crashed = world.now - world.start;
        world.run(Duration::from_secs(6));
        delays.push((*world.when(Action::Spawn).last().unwrap() - crashed).as_millis() - 1);
    }
    assert_eq!(delays, [0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
    world.run(Duration::from_secs(61));
    world.crash(Exit::Signal(11));
    let crashed = world.now - world.start;
    world.run(Duration::from_secs(1));
    assert!(*world.when(Action::Spawn).last().unwrap() - crashed <= 2 * MS);
}

#[test]
fn a_server_that_will_not_take_its_first_configuration_ends_the_watchdog_with_its_status() {
    let mut world = World::new(Nature { fails: true, ..WELL });
    world.run(Duration::from_secs(1));
    assert_eq!(world.exit, Some(1));
    assert_eq!(world.when(Action::Spawn).len(), 1);
    assert_eq!(world.when(on()).len(), 0);
}

#[test]
fn a_later_configuration_that_is_refused_is_tried_again_when_told_or_in_time() {
    let mut world = proven();
    world.nature.fails = true;
    world.crash(Exit::Signal(9));
    world.run(Duration::from_secs(20));
    assert_eq!((world.exit, world.is_on()), (None, false));
    assert!(world.causes()[1..].iter().all(|cause| *cause == Cause::Configuration));
    let tried = world.when(Action::Spawn).len();
    assert!((10..16).contains(&tried), "{tried}");
    world.nature.fails = false;
    world.tell(Event::Retry);
    world.run(30 * MS);
    assert_eq!(world.when(Action::Spawn).len(), tried + 1);
    world.run(Duration::from_secs(2));
    assert!(world.is_on());
}

#[test]
fn a_server_that_cannot_be_started_is_tried_again() {
    let mut world = World::new(WELL);
    world.run(10 * MS);
    world.coming.retain(|(_, coming)| !matches!(coming, Coming::Report));
    world.tell(Event::Exited(Exit::NotStarted));
    assert_eq!(world.causes(), [Cause::Start]);
    world.run(Duration::from_secs(1));
    assert!(world.is_on());
}

#[test]
fn a_server_that_never_says_it_serves_is_replaced() {
    let mut world = World::new(Nature { startup: Duration::from_secs(3600), ..WELL });
    world.run(Duration::from_secs(31));
    assert_eq!((world.when(Action::Kill).len(), world.causes()), (1, vec![Cause::Start]));
}

#[test]
fn an_address_that_is_mute_is_withdrawn_alone_and_the_server_is_given_longer() {
    let mut world = proven();
    world.nature.deaf = Some(2);
    let deaf = world.now - world.start;
    world.run(Duration::from_secs(1));
    assert_eq!((world.on.clone(), world.when(Action::Kill).len()), (only(0), 0));
    let withdrawn = world.when(Action::Intercept(only(0))).pop().unwrap() - deaf;
    assert!(withdrawn <= 902 * MS, "{withdrawn:?}");
    let obstacle = Obstacle::Silence;
    assert_eq!(world.when(Action::ReportObstacle { address: addresses()[1], obstacle }).len(), 1);
    world.run(Duration::from_millis(1200));
    assert_eq!((world.when(Action::Kill).len(), world.causes()), (1, vec![Cause::Hang]));
}

/// A processor that others had, a page that was read from a disk.
#[test]
fn a_server_that_stalls_for_a_moment_and_goes_on_loses_no_address() {
    for stall in (310..400).step_by(10) {
        let mut world = proven();
        world.nature.hangs = true;
        world.run(stall * MS);
        world.nature.hangs = false;
        world.run(500 * MS);
        assert!(world.is_on(), "after {stall} ms");
    }
}

/// One lost SYN is a second of silence.
#[test]
fn an_address_that_is_silent_over_tcp_alone_is_given_longer() {
    let mut world = proven();
    world.nature.deaf = Some(3);
    world.run(Duration::from_millis(1400));
    assert!(world.is_on() && world.when(Action::Kill).is_empty());
}

/// A flood that fills a queue keeps probes out, and would do so at cluster DNS.
#[test]
fn an_address_is_not_withdrawn_for_packets_that_were_dropped_from_a_full_queue() {
    let mut world = proven();
    world.nature = Nature { deaf: Some(2), is_overrun: true, ..WELL };
    world.run(Duration::from_millis(1900));
    assert!(world.is_on() && world.when(Action::Kill).is_empty());
    world.nature.deaf = None;
    world.run(Duration::from_secs(1));
    world.nature = Nature { deaf: Some(2), ..WELL };
    world.run(Duration::from_secs(1));
    assert_eq!(world.on, only(0), "an overrun that is over excuses nobody");
}

#[test]
fn an_address_that_is_answered_wrongly_is_withdrawn_at_once_and_nobody_is_killed() {
    for wrong in [2, 3] {
        let mut world = proven();
        world.nature.foreign = Some(wrong);
        let began = world.now - world.start;
        world.run(Duration::from_secs(30));
        let withdrawn = world.when(Action::Intercept(only(0))).pop().unwrap() - began;
        let asked_within = [world.timing.watch_udp_interval, world.timing.watch_tcp_interval][wrong - 2];
        assert!(withdrawn <= asked_within + 3 * MS, "{withdrawn:?}");
        assert_eq!((world.on.clone(), world.when(Action::Kill).len()), (only(0), 0));
    }
}

/// Clients have its answers, so that one which reads the same queue more often than ours costs nobody anything.
#[test]
fn an_address_where_another_server_of_ours_answers_is_given_longer() {
    let mut world = proven();
    world.nature = Nature { foreign: Some(0), is_sibling: true, ..WELL };
    world.run(Duration::from_millis(1900));
    assert!(world.is_on());
    world.run(Duration::from_millis(300));
    assert_eq!((world.on.clone(), world.when(Action::Kill).len()), (only(1), 0));
}

#[test]
fn an_address_where_somebody_else_answers_is_not_intercepted_and_the_other_one_is() {
    let mut world = World::new(Nature { foreign: Some(0), ..WELL });
    world.run(Duration::from_millis(200));
    assert_eq!(world.on, only(1), "it waits for nobody");
    world.run(Duration::from_secs(30));
    assert_eq!((world.on.clone(), world.when(Action::Kill).len()), (only(1), 0));
    world.nature.foreign = None;
    world.run(Duration::from_secs(11));
    assert!(world.is_on());
}

/// What was heard there was all that was heard: a server that hangs must not seem to have been heard when the address
/// is withdrawn.
#[test]
fn a_server_that_hangs_while_somebody_else_answers_is_killed_with_the_withdrawal_of_that_address() {
    let mut world = proven();
    world.nature = Nature { foreign: Some(1), is_sibling: true, ..WELL };
    world.run(Duration::from_millis(698));
    world.nature.hangs = true;
    world.run(Duration::from_secs(3));
    let kill = world.when(Action::Kill)[0];
    let withdraws =
        |action: &Action| matches!(action, Action::Intercept(interception) if !interception.contains(addresses()[0]));
    let withdrawn = world.log.iter().find(|(at, action)| *at > Duration::from_secs(1) && withdraws(action));
    assert_eq!(withdrawn.map(|(at, _)| *at), Some(kill), "{:?}", world.log);
}

#[test]
fn an_address_that_loses_its_proof_is_withdrawn_alone_and_told_of_once() {
    let mut world = proven();
    world.nature.foreign = Some(3);
    world.run(Duration::from_secs(30));
    assert_eq!((world.on.clone(), world.when(Action::Kill).len(), world.when(off()).len()), (only(0), 0, 1));
    let obstacle = Obstacle::Foreign;
    assert_eq!(world.when(Action::ReportObstacle { address: addresses()[1], obstacle }).len(), 1);
    world.crash(Exit::Signal(9));
    world.run(Duration::from_secs(3));
    assert_eq!(
        (world.on.clone(), world.when(off()).len()),
        (only(0), 1),
        "nobody waits for it when the server is replaced"
    );
    world.nature.foreign = None;
    world.run(Duration::from_secs(12));
    assert!(world.is_on());
    world.nature.foreign = Some(3);
    world.run(Duration::from_secs(3));
    assert_eq!(
        world.when(Action::ReportObstacle { address: addresses()[1], obstacle }).len(),
        2,
        "it had been proven in between"
    );
}

/// When this target was asked, and whether with one packet only.
fn asked(world: &World, wanted: ProbeTarget) -> Vec<(Duration, bool)> {
    let of_probe = |(at, action): &(Duration, Action)| match action {
        Action::Probe { target, is_single_packet, .. } if *target == wanted => Some((*at, *is_single_packet)),
        _ => None,
    };
    world.log.iter().filter_map(of_probe).collect()
}

#[test]
fn what_is_asked_in_vain_is_asked_ever_more_seldom_down_to_one_packet_in_ten_seconds() {
    for nature in [Nature { foreign: Some(0), ..WELL }, Nature { deaf: Some(0), ..WELL }] {
        let mut world = World::new(nature);
        world.run(Duration::from_secs(200));
        let other = asked(&world, targets()[1]);
        let asked = asked(&world, targets()[0]);
        assert!(asked.len() < 35, "{asked:?}");
        let gaps: Vec<Duration> = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.iter().rev().take(10).all(|gap| *gap >= Duration::from_secs(10)), "{gaps:?}");
        assert!(asked[2..].iter().all(|(_, is_single_packet)| *is_single_packet), "{asked:?}");
        assert_eq!((world.on.clone(), world.when(Action::Kill).len()), (only(1), 0), "the rest goes on");
        assert!(other.len() > 1500, "what answers is watched");
        let without = world.machine.without_service(world.now);
        assert!(without < Duration::from_secs(5), "the server answers where it can: {without:?}");
    }
}

#[test]
fn what_is_asked_seldom_is_asked_at_once_when_the_node_has_changed_but_no_more_than_once_a_second() {
    let mut world = World::new(Nature { foreign: Some(0), ..WELL });
    world.run(Duration::from_secs(60));
    let before = asked(&world, targets()[0]).len();
    let settled = only(1);
    for _ in 0..500 {
        world.run(20 * MS);
        world.tell(Event::NodeSettled { interception: &settled, is_done: true });
    }
    let more = asked(&world, targets()[0]).len() - before;
    assert!((9..=11).contains(&more), "{more} in ten seconds of changes");
    world.nature.foreign = None;
    world.run(Duration::from_millis(1100));
    world.tell(Event::NodeSettled { interception: &settled, is_done: true });
    world.run(Duration::from_millis(200));
    assert!(world.is_on(), "it was never withdrawn, so that few proofs do");
}

#[test]
fn a_new_server_is_asked_everywhere_at_once() {
    let mut world = World::new(Nature { foreign: Some(0), ..WELL });
    world.run(Duration::from_secs(60));
    world.nature.foreign = None;
    world.crash(Exit::Signal(9));
    world.run(Duration::from_millis(300));
    assert!(world.is_on());
}

#[test]
fn a_server_that_hangs_is_replaced_in_time_though_somebody_else_answers_at_another_address() {
    let mut world = World::new(Nature { foreign: Some(0), ..WELL });
    world.run(Duration::from_secs(60));
    world.nature.hangs = true;
    world.run(Duration::from_millis(510));
    assert_eq!(world.causes(), [Cause::Hang]);
}

#[test]
fn a_part_that_the_next_server_does_not_serve_either_costs_no_further_server() {
    let mut world = proven();
    world.nature.deaf = Some(2);
    world.run(Duration::from_secs(60));
    assert_eq!((world.causes(), world.on.clone()), (vec![Cause::Hang], only(0)));
    world.nature.deaf = None;
    world.run(Duration::from_secs(12));
    assert!(world.is_on());
}

#[test]
fn a_first_server_of_which_nothing_is_ever_heard_is_given_the_time_of_a_start() {
    let mut world = World::new(Nature { hangs: true, ..WELL });
    world.run(Duration::from_secs(30));
    assert!(world.causes().is_empty(), "the questions may not come to any server");
    world.run(Duration::from_secs(1));
    assert_eq!(world.causes(), [Cause::Hang]);
    world.nature.hangs = false;
    world.run(Duration::from_millis(300));
    assert!(world.is_on());
    world.nature.hangs = true;
    world.run(Duration::from_millis(410));
    assert_eq!(world.causes().len(), 2, "who has been heard is missed at once");
}

#[test]
fn where_the_rules_cannot_be_had_every_question_is_sparing_until_the_first_answer() {
    let mut world = World::new(Nature { foreign: Some(0), ..WELL });
    world.coming.clear();
    world.tell(Event::NodeSettled { interception: &Interception::default(), is_done: false });
    world.run(Duration::from_millis(200));
    let [first, second] = [0, 2].map(|index| asked(&world, targets()[index]));
    assert!(first.len() > 2 && first.iter().all(|(_, is_single_packet)| *is_single_packet), "{first:?}");
    assert!(second.len() > 2 && second[0].1 && !second[1].1, "it is watched once it has answered: {second:?}");
}

#[test]
fn a_successor_waits_for_an_address_that_cannot_be_proven_no_longer_than_it_would_stay_intercepted() {
    let mut world = World::new(Nature { foreign: Some(0), ..WELL });
    world.run(Duration::from_secs(5));
    let (served, announced) = (world.when(Action::Spawn)[0] + WELL.startup, world.when(Action::AnnounceProven));
    assert_eq!(announced.len(), 1);
    assert!((2000 * MS..2200 * MS).contains(&(announced[0] - served)), "{announced:?}");
}

#[test]
fn time_in_which_the_watchdog_did_not_run_is_nobodys_fault() {
    let mut world = proven();
    // In the middle of questions, the answers to which cannot be read yet.
    world.nature.hangs = true;
    world.run(Duration::from_millis(300));
    world.now += Duration::from_secs(30);
    world.tell(Event::Tick);
    world.nature.hangs = false;
    assert!(world.when(Action::Kill).is_empty() && !world.machine.wanted.is_none());
    for at in world.last_answer.values_mut() {
        *at += Duration::from_secs(30);
    }
    world.run(Duration::from_secs(1));
    assert!(world.when(Action::Kill).is_empty() && world.is_on());
    world.nature.hangs = true;
    world.run(Duration::from_millis(405));
    assert_eq!(world.when(Action::Kill).len(), 1, "and it guards on");
}

#[test]
fn stopping_withdraws_first_then_drains_then_tears_down_and_ends_well() {
    let mut world = proven();
    world.tell(Event::Stop);
    world.run(Duration::from_secs(1));
    assert_eq!(world.exit, Some(0));
    let order: Vec<Action> = world.log.iter().rev().take(5).rev().map(|(_, action)| action.clone()).collect();
    let ending = [off(), STOP, Action::CancelProbes, Action::Teardown, Action::Exit(0)];
    assert_eq!(order, ending);
}

#[test]
fn a_withdrawal_that_fails_is_waited_for_while_the_server_serves_on() {
    let mut world = proven();
    world.tell(Event::Stop);
    world.coming.retain(|(_, coming)| !matches!(coming, Coming::Settled(_)));
    world.tell(Event::NodeSettled { interception: &Interception::default(), is_done: false });
    world.run(Duration::from_secs(1));
    assert!(world.when(STOP).is_empty(), "queries still come to it");
    world.tell(Event::NodeSettled { interception: &Interception::default(), is_done: true });
    world.run(Duration::from_secs(1));
    assert_eq!((world.when(STOP).len(), world.exit), (1, Some(0)));
}

#[test]
fn stopping_with_the_node_kept_withdraws_nothing() {
    let mut world = proven();
    world.machine.keep_node = true;
    world.tell(Event::Stop);
    world.run(Duration::from_secs(1));
    assert_eq!((world.exit, world.when(off()).len(), world.when(Action::Teardown).len()), (Some(0), 1, 0));
}

#[test]
fn a_server_that_does_not_stop_in_time_is_killed_and_a_second_signal_does_not_wait() {
    for impatient in [false, true] {
        let mut world = proven();
        world.tell(Event::Stop);
        world.run(4 * MS);
        world.coming.retain(|(_, coming)| !matches!(coming, Coming::Exit(_)));
        if impatient {
            world.tell(Event::Stop);
        }
        world.run(Duration::from_secs(7));
        assert_eq!((world.exit, world.when(Action::Kill).len()), (Some(0), 1));
        let (stopped, killed) = (world.when(STOP)[0], world.when(Action::Kill)[0]);
        assert_eq!(killed - stopped < Duration::from_secs(1), impatient);
    }
}

#[test]
fn stopping_without_a_server_ends_at_once() {
    let mut world = proven();
    world.nature.fails = true;
    world.crash(Exit::Signal(9));
    world.run(Duration::from_secs(8));
    world.tell(Event::Stop);
    world.run(Duration::from_millis(50));
    assert_eq!(world.exit, Some(0));
}

#[test]
fn a_reload_is_passed_on_to_a_server_there_is() {
    let mut world = proven();
    world.tell(Event::Reload);
    assert_eq!(world.when(Action::Reload).len(), 1);
    world.tell(Event::Retry);
    assert_eq!(world.when(Action::Reload).len(), 1);
    let fewer = targets()[..2].to_vec();
    world.targets.clone_from(&fewer);
    world.last_answer.retain(|target, _| fewer.contains(target));
    world.tell(Event::Serving { targets: &fewer, has_streams: false, drain: Duration::ZERO });
    assert_eq!(world.on, only(0));
    world.probes.retain(|target, _| fewer.contains(target));
    world.run(Duration::from_secs(3));
    assert!(world.when(Action::Kill).is_empty(), "targets that are gone are not missed");
    assert_eq!(world.on, only(0), "an address where nobody listens is not intercepted");
}

#[test]
fn a_successor_may_come_once_queries_come_here() {
    let world = proven();
    let (on, announced) = (world.when(on())[0], world.when(Action::AnnounceProven));
    assert!(announced.len() == 1 && announced[0] >= on, "{announced:?}");
}

#[test]
fn a_server_that_is_replaced_before_the_rules_stand_is_announced_all_the_same() {
    let mut world = World::new(WELL);
    while !world.is_on() {
        world.step();
    }
    world.crash(Exit::Signal(9));
    world.run(Duration::from_millis(300));
    assert_eq!((world.is_on(), world.when(on()).len(), world.when(Action::AnnounceProven).len()), (true, 1, 1));
}

#[test]
fn once_succeeded_the_server_goes_and_the_rules_and_nothing_else_until_told_to_end() {
    let mut world = proven();
    world.tell(Event::SocketsShared { is_shared: true });
    world.run(Duration::from_secs(3));
    assert!(world.is_on() && world.when(LEAVE).is_empty(), "both serve until the successor has proved itself");
    let served = world.machine.without_service(world.now);
    world.tell(Event::SuccessorServes);
    world.run(Duration::from_secs(60));
    assert_eq!((world.when(LEAVE).len(), world.when(STOP).len(), world.when(off()).len()), (1, 0, 2));
    assert_eq!((world.when(Action::Spawn).len(), world.when(Action::Teardown).len(), world.exit), (1, 0, None));
    assert!(world.causes().is_empty());
    assert_eq!(world.machine.without_service(world.now), served, "the successor serves");
    world.tell(Event::Stop);
    world.run(Duration::from_millis(50));
    assert_eq!((world.exit, world.when(Action::Teardown).len()), (Some(0), 1));
}

#[test]
fn told_to_end_while_the_successor_has_not_proved_itself_the_sockets_are_left_to_it() {
    let mut world = proven();
    world.tell(Event::SocketsShared { is_shared: true });
    world.tell(Event::Stop);
    world.run(Duration::from_secs(1));
    assert_eq!((world.exit, world.when(LEAVE).len(), world.when(STOP).len()), (Some(0), 1, 0));
}

#[test]
fn told_to_end_while_it_drains_for_its_successor_it_drains_on_and_ends() {
    let mut world = proven();
    world.tell(Event::SuccessorServes);
    world.tell(Event::Stop);
    world.run(Duration::from_secs(1));
    assert_eq!((world.exit, world.when(Action::Kill).len(), world.when(LEAVE).len()), (Some(0), 0, 1));
}

#[test]
fn when_the_successor_ends_it_serves_again_at_once() {
    for drained in [false, true] {
        let mut world = proven();
        world.tell(Event::SocketsShared { is_shared: true });
        world.tell(Event::SuccessorServes);
        world.run(if drained { Duration::from_secs(30) } else { MS });
        world.tell(Event::SocketsShared { is_shared: false });
        world.tell(Event::SuccessorGone);
        let gone = world.now - world.start;
        world.run(Duration::from_millis(200));
        assert!(world.is_on() && world.when(Action::Spawn)[1] - gone <= 8 * MS);
        assert_eq!(world.when(Action::AnnounceProven).len(), 2, "and another successor may come");
    }
}

#[test]
fn while_it_drains_for_a_successor_that_ended_another_one_may_take_its_place() {
    let mut world = proven();
    for event in [Event::SuccessorServes, Event::SuccessorGone, Event::SuccessorServes] {
        world.tell(event);
    }
    world.run(Duration::from_secs(30));
    assert_eq!((world.exit, world.when(LEAVE).len(), world.when(Action::Spawn).len()), (None, 1, 1));
    world.tell(Event::SuccessorGone);
    world.run(Duration::from_millis(200));
    assert!(world.is_on() && world.when(Action::Spawn).len() == 2);
}

#[test]
fn a_successor_that_never_proves_itself_changes_nothing() {
    let mut world = proven();
    world.tell(Event::SocketsShared { is_shared: true });
    world.run(Duration::from_secs(5));
    world.tell(Event::SocketsShared { is_shared: false });
    world.tell(Event::SuccessorGone);
    world.run(Duration::from_secs(5));
    assert!(world.is_on() && world.when(off()).len() == 1 && world.when(Action::Spawn).len() == 1);
    world.tell(Event::Stop);
    world.run(Duration::from_secs(1));
    assert_eq!((world.exit, world.when(STOP).len()), (Some(0), 1));
}

#[test]
fn a_server_that_is_lost_while_a_successor_takes_over_is_not_replaced() {
    let mut world = proven();
    world.tell(Event::SuccessorServes);
    world.coming.retain(|(_, coming)| !matches!(coming, Coming::Exit(_)));
    world.coming.push((world.now + MS, Coming::Exit(Exit::Signal(9))));
    world.run(Duration::from_secs(1));
    assert_eq!((world.exit, world.when(Action::Spawn).len(), world.causes().len()), (None, 1, 0));
    let mut world = proven();
    world.nature.hangs = true;
    while world.when(Action::Kill).is_empty() {
        world.step();
    }
    world.tell(Event::SuccessorServes);
    world.run(Duration::from_secs(1));
    assert_eq!((world.exit, world.when(Action::Spawn).len()), (None, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Run(u64),
    Crash(i32),
    Hang(bool),
    Deaf(Option<usize>),
    Foreign(Option<usize>),
    Sibling(bool),
    Overrun(bool),
    Slow { startup: u64, latency: u64 },
    Fail(bool),
    Retry,
    Reload,
    Share(bool),
    Succeed,
    LoseSuccessor,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..1000).prop_map(Step::Run),
        2 => (0_i32..16).prop_map(Step::Crash),
        2 => any::<bool>().prop_map(Step::Hang),
        1 => prop::option::of(0_usize..4).prop_map(Step::Deaf),
        1 => prop::option::of(0_usize..4).prop_map(Step::Foreign),
        1 => any::<bool>().prop_map(Step::Sibling),
        1 => any::<bool>().prop_map(Step::Overrun),
        1 => (1_u64..800, 1_u64..90).prop_map(|(startup, latency)| Step::Slow { startup, latency }),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Retry),
        1 => Just(Step::Reload),
        1 => any::<bool>().prop_map(Step::Share),
        1 => Just(Step::Succeed),
        1 => Just(Step::LoseSuccessor),
    ]
}

fn wild_event<'a>(
    choice: u8,
    target: ProbeTarget,
    probe_id: u64,
    all: &'a [ProbeTarget],
    settled: &'a [Interception; 3],
) -> Event<'a> {
    match choice {
        0 | 1 => Event::Tick,
        2 => Event::Serving { targets: all, has_streams: false, drain: Duration::from_secs(1) },
        3 => Event::ConfigurationRefused,
        4 => Event::Exited(Exit::Status(probe_id as i32 % 3)),
        5 => Event::Exited(Exit::Signal(9)),
        6..=9 => Event::ProbeEnded { target, probe_id, result: ProbeResult::Answered },
        10 => {
            let verdicts = [ProbeResult::Unproven, ProbeResult::Foreign, ProbeResult::Silent];
            Event::ProbeEnded { target, probe_id, result: verdicts[probe_id as usize % verdicts.len()] }
        }
        11 => Event::ProbeLate { target, probe_id, is_overrun: probe_id.is_multiple_of(2) },
        12 => Event::NodeSettled { interception: &settled[0], is_done: true },
        13 => Event::NodeSettled {
            interception: &settled[1 + probe_id as usize % 2],
            is_done: probe_id.is_multiple_of(3),
        },
        14 => Event::ProtocolViolated,
        15 => Event::Exited(Exit::NotStarted),
        16 => Event::Reload,
        17 => Event::Retry,
        18 => Event::TornDown,
        20 => Event::SocketsShared { is_shared: probe_id.is_multiple_of(2) },
        21 => Event::SuccessorServes,
        22 => Event::SuccessorGone,
        _ => Event::Stop,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// `World::judge` checks both promises after every millisecond.
    #[test]
    fn an_address_is_intercepted_only_while_the_server_is_proven_there_and_where_it_is_proven_in_time(
        steps in prop::collection::vec(step(), 1..24)
    ) {
        let mut world = proven();
        for step in steps {
            match step {
                Step::Run(ms) => world.run(Duration::from_millis(ms)),
                Step::Crash(code) => world.crash(if code < 2 { Exit::Status(code) } else { Exit::Signal(code) }),
                Step::Hang(hangs) => world.nature.hangs = hangs,
                Step::Deaf(deaf) => world.nature.deaf = deaf,
                Step::Foreign(foreign) => world.nature.foreign = foreign,
                Step::Sibling(is_sibling) => world.nature.is_sibling = is_sibling,
                Step::Overrun(is_overrun) => world.nature.is_overrun = is_overrun,
                Step::Slow { startup, latency } => {
                    world.nature.startup = Duration::from_millis(startup);
                    world.nature.latency = Duration::from_millis(latency);
                    // Proving takes as long as its probes do: measured anew.
                    world.good_since.clear();
                }
                Step::Fail(fails) => world.nature.fails = fails,
                Step::Retry => world.tell(Event::Retry),
                Step::Reload => world.tell(Event::Reload),
                Step::Share(is_shared) => world.tell(Event::SocketsShared { is_shared }),
                Step::Succeed => world.tell(Event::SuccessorServes),
                Step::LoseSuccessor => world.tell(Event::SuccessorGone),
            }
        }
        world.tell(Event::SuccessorGone);
        // Whatever has happened: once all is well, it is intercepted again; and then it stops in order.
        world.nature = WELL;
        world.good_since.clear();
        world.run(Duration::from_secs(24));
        prop_assert!(world.is_on());
        world.tell(Event::Stop);
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.exit, Some(0));
    }

    /// Events in any order, sensible or not: no panic, and an address is only intercepted when every target of it has
    /// answered since the server reported that it serves.
    #[test]
    fn no_sequence_of_events_brings_interception_without_proof(
        events in prop::collection::vec((0_u8..23, 0_usize..4, 0_u64..40, 0_u64..120), 1..200)
    ) {
        let timing = Timing::default();
        let all = targets();
        let mut now = Instant::now();
        let mut machine = StateMachine::new(timing, false, now);
        let mut asked: BTreeMap<ProbeTarget, u64> = BTreeMap::new();
        let mut proofs: BTreeMap<ProbeTarget, u32> = BTreeMap::new();
        let mut intercepted = Interception::default();
        let settled = [Interception::default(), only(0), Interception::of(&addresses())];
        let mut is_shared = false;
        for (choice, index, guess, ms) in events {
            now += Duration::from_millis(ms);
            let target = all[index];
            // Mostly the inquiry that is open, so that proofs come about.
            let probe_id = if guess < 35 { asked.get(&target).copied().unwrap_or(guess) } else { guess };
            // The end is rare, or nothing much would be seen.
            if choice == 19 && guess < 30 {
                continue;
            }
            let event = wild_event(choice, target, probe_id, &all, &settled);
            match event {
                Event::SocketsShared { is_shared: now_shared } => is_shared = now_shared,
                Event::ProbeEnded { result: ProbeResult::Answered, .. } if asked.get(&target) == Some(&probe_id) => {
                    *proofs.entry(target).or_default() += 1;
                    asked.remove(&target);
                }
                Event::ProbeEnded { .. } if asked.get(&target) == Some(&probe_id) => {
                    proofs.remove(&target);
                    asked.remove(&target);
                }
                _ => {}
            }
            for action in machine.handle(event, now) {
                match action {
                    Action::Probe { target, probe_id, .. } => _ = asked.insert(target, probe_id),
                    Action::CancelProbes => {
                        asked.clear();
                        proofs.clear();
                    }
                    Action::Stop { leave } => prop_assert!(leave || !is_shared, "taken from another process"),
                    Action::Intercept(interception) => {
                        let is_new = |target: &&ProbeTarget| {
                            interception.contains(target.address.ip()) && !intercepted.contains(target.address.ip())
                        };
                        for target in all.iter().filter(is_new) {
                            prop_assert!(proofs.get(target) >= Some(&timing.first_proofs), "{:?}", proofs);
                        }
                        intercepted = interception;
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_server_that_even_a_kill_does_not_end_keeps_nobody_from_ending() {
    let (start, timing) = (Instant::now(), Timing::default());
    let mut machine = StateMachine::new(timing, false, start);
    let settled = Event::NodeSettled { interception: &Interception::default(), is_done: true };
    assert!(machine.handle(settled, start).contains(&Action::Spawn));
    assert_eq!(
        machine.handle(Event::Stop, start),
        [Action::StopOffering, Action::CancelProbes, Action::Stop { leave: false }]
    );
    let mut said = Vec::new();
    while let Some(wake) = machine.wake_at() {
        said.extend(machine.handle(Event::Tick, wake));
        assert!(said.len() < 10, "{said:?}");
    }
    assert_eq!(said, [Action::Kill, Action::Teardown, Action::Exit(0)]);
}

/// A server of clients within TLS, whose thread has a turn twice a second.
struct StreamsScene {
    machine: StateMachine,
    now: Instant,
}

impl StreamsScene {
    /// Served with these targets and with streams.
    fn new(targets: &[ProbeTarget]) -> Self {
        let now = Instant::now();
        let mut scene = Self { machine: StateMachine::new(Timing::default(), false, now), now };
        let none = Interception::default();
        let actions = scene.tell(Event::NodeSettled { interception: &none, is_done: true });
        assert!(actions.contains(&Action::Spawn), "{actions:?}");
        scene.tell(Event::Serving { targets, has_streams: true, drain: Duration::ZERO });
        scene
    }

    fn tell(&mut self, event: Event<'_>) -> Vec<Action> {
        self.machine.handle(event, self.now)
    }

    /// Lets so much time pass, and answers every probe; when the server is killed, if it is.
    fn run(&mut self, time: Duration, has_turns: bool) -> Option<Instant> {
        let (end, mut turn) = (self.now + time, self.now);
        while self.now < end {
            let mut actions = self.tell(Event::Tick);
            if has_turns && self.now >= turn {
                actions.extend(self.tell(Event::StreamsAlive));
                turn += 500 * MS;
            }
            for action in actions {
                match action {
                    Action::Kill => return Some(self.now),
                    Action::Probe { target, probe_id, .. } => {
                        let answered = Event::ProbeEnded { target, probe_id, result: ProbeResult::Answered };
                        self.tell(answered);
                    }
                    _ => {}
                }
            }
            self.now += 20 * MS;
        }
        None
    }
}

#[test]
fn a_server_whose_thread_of_tls_hangs_is_replaced_also_where_nothing_else_is_served() {
    for targets in [Vec::new(), targets()] {
        let mut scene = StreamsScene::new(&targets);
        assert_eq!(scene.run(Duration::from_secs(20), true), None, "{targets:?}");
        let silent_from = scene.now - 500 * MS;
        let killed = scene.run(Duration::from_secs(20), false).expect("it is killed");
        let silence = killed - silent_from;
        let limit = Timing::default().silence_of_streams;
        assert!((limit..limit + 600 * MS).contains(&silence), "{silence:?}");
        let actions = scene.tell(Event::Exited(Exit::Signal(9)));
        assert!(actions.contains(&Action::CountRestart(Cause::Hang)), "{actions:?}");
    }
}

#[test]
fn a_thread_of_tls_that_hangs_is_found_though_the_watchdog_is_held_up_again_and_again() {
    let mut scene = StreamsScene::new(&[]);
    assert_eq!(scene.run(Duration::from_secs(2), true), None);
    let is_killed = |_| {
        let killed = scene.run(Duration::from_secs(1), false);
        scene.now += 300 * MS;
        killed.is_some()
    };
    assert!((0..16).any(is_killed), "time in which the watchdog did not run is not held against it, the rest is");
}

#[test]
fn a_server_of_tls_alone_is_no_outage_and_nothing_is_intercepted_for_it() {
    let mut scene = StreamsScene::new(&[]);
    assert_eq!(scene.run(Duration::from_secs(120), true), None);
    assert!(scene.machine.without_service(scene.now) < Duration::from_secs(1));
    assert!(scene.machine.wanted.is_none());
}

#[test]
fn a_thread_of_tls_is_expected_to_have_turns_only_while_there_are_such_listeners() {
    let mut scene = StreamsScene::new(&targets());
    scene.tell(Event::Serving { targets: &targets(), has_streams: false, drain: Duration::ZERO });
    assert_eq!(scene.run(Duration::from_secs(20), false), None);
    scene.tell(Event::Serving { targets: &targets(), has_streams: true, drain: Duration::ZERO });
    assert!(scene.run(Duration::from_secs(20), false).is_some(), "one that never has a turn hangs too");
    let mut scene = StreamsScene::new(&targets());
    scene.now += Duration::from_secs(60);
    assert_eq!(scene.run(Duration::from_secs(3), false), None, "the watchdog itself did not run");
}
