//! The watchdog's decisions: events and the time in, actions out. Pure; sockets, processes and rules are `run`'s.
//!
//! Promises, held in `state/tests`, and the first two in `tests/simulation` for the whole node under faults drawn at random: *an address is
//! intercepted only while the server is proven to answer there*; *an address where the server is proven is intercepted within its proving
//! time, whatever becomes of the others*; *where somebody else answers, or nobody ever did, ever fewer questions are asked, and nobody is
//! killed for it*; *sockets that another process reads are never taken from it*; *while a successor lives we serve no longer, and when it
//! ends we serve again*.
//!
//! An address is proven when all of its targets are: each of its ports, over UDP and TCP, since a client chooses among them.

mod event;
#[cfg(test)]
mod tests;
mod timing;

pub use event::{Action, Cause, Event, Exit, Obstacle, ProbeResult, ProbeTarget};
pub use timing::Timing;

use crate::chain::Transport;
use crate::node::Interception;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The node is made ready; the server could not bind before.
    Preparing,
    /// No server, until it is time for another.
    Waiting {
        until: Instant,
    },
    /// Started, and not serving yet.
    Starting {
        limit: Instant,
    },
    Serving,
    /// Killed; its end is awaited.
    Dying {
        cause: Cause,
    },
    /// Told to stop; the interception goes first.
    Withdrawing {
        limit: Instant,
    },
    /// The server answers what it has.
    Draining {
        limit: Instant,
        then: AfterDrain,
    },
    /// A successor serves; should it end before we are told to, we serve again.
    StandingBy,
    TearingDown {
        limit: Instant,
        status: u8,
    },
    Ended,
}

/// What comes after the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterDrain {
    TearDown,
    StandBy,
}

/// Where one target stands.
#[derive(Clone, Copy, Debug)]
struct TargetState {
    /// It is being asked.
    asked: Option<PendingProbe>,
    /// When to ask next.
    due: Instant,
    /// The last sign of life; before there is one, when it was first expected to answer.
    last_heard: Instant,
    /// The last answer; before there is one, as above.
    last_answer: Instant,
    /// Answers without a miss.
    proofs: u32,
    /// The present server has answered here.
    has_answered: bool,
    /// Questions in a row that came to nothing for which no silence of the server's is to blame: somebody else answered, or they did not come
    /// to a server that has never answered here.
    fruitless_probes: u32,
    /// What the last of them came to.
    obstacle: Obstacle,
}

#[derive(Clone, Copy, Debug)]
struct PendingProbe {
    probe_id: u64,
    at: Instant,
}

impl TargetState {
    /// Since when it is asked without a sign of life.
    fn silent_since(&self) -> Option<Instant> {
        self.asked.map(|asked| asked.at.max(self.last_heard))
    }
}

/// So many questions in vain before they become sparing: where a predecessor or another agent's server reads the same queue, or one of the same
/// group, an answer that is not ours says little about the next one.
const REPEATED_PROBES: u32 = 2;

/// The state machine.
pub struct StateMachine {
    timing: Timing,
    keep_node: bool,
    phase: Phase,
    has_server: bool,
    /// A server has once reported that it serves.
    has_served: bool,
    /// One has answered a question.
    has_any_answered: bool,
    /// The present one has said that it will not take its configuration.
    has_failed: bool,
    drain: Duration,
    targets: BTreeMap<ProbeTarget, TargetState>,
    last_probe_id: u64,
    wanted: Interception,
    settled: Option<Interception>,
    /// Addresses that had to be withdrawn: they are to be proven for longer.
    withdrawn: BTreeSet<IpAddr>,
    /// What has been told of addresses that are not intercepted.
    reported: BTreeMap<IpAddr, Obstacle>,
    /// There is no service since, until every target of a new server has answered that can.
    down_since: Option<Instant>,
    /// The server is gone, and with it the interception of each address at which no other one answers by then.
    grace: Option<Instant>,
    without_service: Duration,
    delay: Duration,
    healthy_since: Option<Instant>,
    /// The server was killed while it drained before the end.
    is_drain_killed: bool,
    /// Another process reads the sockets too.
    is_shared: bool,
    has_successor: bool,
    /// Since the interception was last wanted.
    is_announced: bool,
    last_event: Option<Instant>,
    /// What [`StateMachine::wake_at`] said after it.
    alarm: Option<Instant>,
    actions: Vec<Action>,
}

impl StateMachine {
    /// Begins with making the node ready. With `keep_node` nothing is withdrawn or taken down at the end (`-skipteardown`).
    pub fn new(timing: Timing, keep_node: bool, now: Instant) -> Self {
        Self {
            timing,
            keep_node,
            phase: Phase::Preparing,
            has_server: false,
            has_served: false,
            has_any_answered: false,
            has_failed: false,
            drain: Duration::ZERO,
            targets: BTreeMap::new(),
            last_probe_id: 0,
            wanted: Interception::default(),
            settled: None,
            withdrawn: BTreeSet::new(),
            reported: BTreeMap::new(),
            down_since: Some(now),
            grace: None,
            without_service: Duration::ZERO,
            delay: Duration::ZERO,
            healthy_since: None,
            is_drain_killed: false,
            is_shared: false,
            has_successor: false,
            is_announced: false,
            last_event: None,
            alarm: None,
            actions: vec![Action::Intercept(Interception::default())],
        }
    }

    /// What the node should be like.
    pub fn wanted(&self) -> &Interception {
        &self.wanted
    }

    /// For how long in all no server has answered.
    pub fn without_service(&self, now: Instant) -> Duration {
        self.without_service + self.down_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Takes one event, and returns what to do about it. Events out of place change nothing.
    pub fn handle(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        self.forgive_own_stall(now);
        match event {
            Event::Tick => {}
            Event::Serving { targets, drain } => self.begin_serving(targets, drain, now),
            Event::ConfigurationRefused => self.has_failed = true,
            Event::ProtocolViolated => self.kill(Cause::Protocol, now),
            Event::Exited(exit) => self.on_exit(exit, now),
            Event::ProbeEnded { target, probe_id, result } => self.on_probe_result(target, probe_id, result, now),
            Event::ProbeLate { target, probe_id } => {
                if let Some(state) = self.asked(target, probe_id) {
                    state.proofs = 0;
                }
            }
            Event::NodeSettled { interception, is_done } => self.on_node_settled(interception, is_done, now),
            Event::TornDown => {
                if let Phase::TearingDown { status, .. } = self.phase {
                    self.end(status);
                }
            }
            Event::Reload | Event::Retry => match self.phase {
                Phase::Waiting { .. } => self.phase = Phase::Waiting { until: now },
                Phase::Starting { .. } | Phase::Serving if event == Event::Reload => self.actions.push(Action::Reload),
                _ => {}
            },
            Event::SocketsShared { is_shared } => self.is_shared = is_shared,
            Event::SuccessorServes => self.hand_over(now),
            Event::SuccessorGone => {
                self.has_successor = false;
                if self.phase == Phase::StandingBy {
                    self.serve_again(now);
                }
            }
            Event::Stop => self.stop(now),
        }
        self.advance(now);
        self.last_event = Some(now);
        self.alarm = self.wake_at();
        std::mem::take(&mut self.actions)
    }

    /// When to call [`StateMachine::handle`] again at the latest.
    pub fn wake_at(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Preparing | Phase::Dying { .. } | Phase::StandingBy | Phase::Ended => None,
            Phase::Waiting { until } => Some(until),
            Phase::Starting { limit } | Phase::Withdrawing { limit } => Some(limit),
            Phase::Draining { limit, .. } | Phase::TearingDown { limit, .. } => Some(limit),
            Phase::Serving => self.next_watch(),
        };
        phase.into_iter().chain(self.grace.filter(|_| !self.wanted.is_none())).min()
    }

    fn next_watch(&self) -> Option<Instant> {
        let last_heard = self.accountable().map(|state| state.last_heard);
        let answering = self.accountable().filter(|state| state.has_answered).map(|state| state.last_heard);
        let asked = self.targets.values().filter_map(TargetState::silent_since);
        let wanted = self.targets.iter().filter(|(target, _)| self.wanted.contains(target.address.ip()));
        let suspicious_from = self.suspicious_from();
        let limits = [
            last_heard.max().filter(|_| self.has_any_answered).map(|last_heard| last_heard + self.timing.silence_of_all),
            answering.chain(asked).min().map(|last_heard| last_heard + self.timing.silence_of_one),
            wanted.map(|(_, state)| state.last_answer + self.timing.silence_of_one).min(),
            self.targets.iter().filter_map(|(target, state)| self.due(target, state, suspicious_from)).min(),
            // So that a stall of our own is known as one, whatever else there is to wait for.
            self.last_event.map(|at| at + self.timing.watch_udp_interval),
        ];
        limits.into_iter().flatten().min()
    }

    /// Whether the server is to blame if nothing is heard from this one: where somebody else answers, silence is as well somebody else's.
    fn is_accountable(&self, target: &ProbeTarget, state: &TargetState) -> bool {
        state.fruitless_probes == 0 || self.wanted.contains(target.address.ip())
    }

    fn accountable(&self) -> impl Iterator<Item = &TargetState> {
        self.targets.iter().filter(|(target, state)| self.is_accountable(target, state)).map(|(_, state)| state)
    }

    /// When the one that was asked first and has not answered becomes suspect.
    fn suspicious_from(&self) -> Option<Instant> {
        let asked = self.accountable().filter_map(|state| state.asked.map(|asked| asked.at)).min();
        asked.map(|at| at + self.timing.suspicion)
    }

    /// When to ask this one, unless it is being asked.
    fn due(&self, target: &ProbeTarget, state: &TargetState, suspicious_from: Option<Instant>) -> Option<Instant> {
        if state.asked.is_some() {
            return None;
        }
        let in_suspicion = suspicious_from
            .filter(|_| self.is_accountable(target, state))
            .map(|from| from.max(state.last_heard + self.timing.watch_udp_interval));
        in_suspicion.into_iter().chain([state.due]).min()
    }

    /// How long after the end of a question the next one is asked.
    fn interval(&self, target: &ProbeTarget, state: &TargetState) -> Duration {
        let address = target.address.ip();
        let is_proven = state.proofs >= self.proofs_needed(address);
        match target.transport {
            _ if state.fruitless_probes > 0 && !self.wanted.contains(address) => {
                let doubled = self.timing.prove_interval.saturating_mul(2_u32.saturating_pow(state.fruitless_probes));
                doubled.min(self.timing.longest_prove_interval)
            }
            Transport::Udp if self.wanted.contains(address) => self.timing.watch_udp_interval,
            Transport::Tcp if self.wanted.contains(address) => self.timing.watch_tcp_interval,
            // Proven, though another one of its address is not. Perhaps it is all that can be heard of the server.
            _ if is_proven => self.timing.watch_udp_interval,
            _ => self.timing.prove_interval,
        }
    }

    /// Time in which the watchdog did not run is held against nobody.
    fn forgive_own_stall(&mut self, now: Instant) {
        let Some(late) = self.alarm.map(|alarm| now.saturating_duration_since(alarm)) else { return };
        if late <= self.timing.own_stall {
            return;
        }
        for state in self.targets.values_mut() {
            // Answers may wait in our sockets, unread.
            state.last_heard = now;
            state.last_answer = now.min(state.last_answer + late);
        }
        if let Some(grace) = &mut self.grace {
            *grace = now + self.timing.restart_grace;
        }
        if let Phase::Starting { limit } | Phase::Withdrawing { limit } | Phase::Draining { limit, .. } = &mut self.phase {
            *limit += late;
        }
    }

    /// What time alone brings about.
    fn advance(&mut self, now: Instant) {
        match self.phase {
            Phase::Waiting { until } if now >= until => {
                self.actions.push(Action::Spawn);
                self.has_server = true;
                self.has_failed = false;
                self.phase = Phase::Starting { limit: now + self.timing.start_limit };
            }
            Phase::Starting { limit } if now >= limit => self.kill(Cause::Start, now),
            Phase::Serving => self.watch(now),
            Phase::Withdrawing { limit } if now >= limit => self.begin_drain(now),
            // The kernel keeps it in spite of that: on a file system that hangs, say.
            Phase::Draining { limit, then: AfterDrain::TearDown } if now >= limit && self.is_drain_killed => {
                self.tear_down(0, now)
            }
            Phase::Draining { limit, then } if now >= limit => {
                self.is_drain_killed = then == AfterDrain::TearDown;
                self.actions.push(Action::Kill);
                self.phase = Phase::Draining { limit: now + self.timing.teardown_limit, then };
            }
            Phase::TearingDown { limit, status } if now >= limit => self.end(status),
            _ => {}
        }
        if self.grace.is_some_and(|grace| now >= grace) {
            self.grace = None;
            self.want(self.wanted.in_both(&self.proven(|_| 1)));
        }
        if !self.is_announced && self.phase == Phase::Serving && self.may_be_succeeded(now) {
            self.is_announced = true;
            self.actions.push(Action::AnnounceProven);
        }
    }

    /// A successor that is announced takes the interception from its predecessor, at every address. So it waits for each: until that is
    /// intercepted here, or has gone without a proof for as long as it would have been left intercepted. That it never can be (somebody else
    /// answers, its queries cannot be had) does not keep the update of a node up for ever; but one address there must be.
    fn may_be_succeeded(&self, now: Instant) -> bool {
        let proven = self.proven(|_| 1);
        let is_unprovable = |address: IpAddr| {
            let mut states = self.targets.iter().filter(|(target, _)| target.address.ip().to_canonical() == address);
            states.any(|(_, state)| now.saturating_duration_since(state.last_answer) >= self.timing.silence_of_one)
        };
        let is_settled = self.settled.as_ref() == Some(&self.wanted) && !self.wanted.is_none();
        is_settled
            && self.wanted.is_within(&proven)
            && self.served().addresses().all(|address| self.wanted.contains(address) || is_unprovable(address))
    }

    fn begin_serving(&mut self, targets: &[ProbeTarget], drain: Duration, now: Instant) {
        if !matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            return;
        }
        self.phase = Phase::Serving;
        self.has_served = true;
        self.drain = drain;
        self.targets.retain(|target, _| targets.contains(target));
        for target in targets {
            let new = TargetState {
                asked: None,
                due: now,
                last_heard: now,
                last_answer: now,
                proofs: 0,
                has_answered: false,
                fruitless_probes: 0,
                obstacle: Obstacle::Silence,
            };
            self.targets.entry(*target).or_insert(new);
        }
    }

    fn watch(&mut self, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_silent = |last_heard: Instant| since(last_heard) >= self.timing.silence_of_one;
        let shortest = self.accountable().map(|state| since(state.last_heard)).min();
        let hangs_in_part = self.accountable().any(|state| state.has_answered && is_silent(state.last_heard));
        // Nobody has been heard here yet: the questions may not come to any server, and another one is no better.
        let limit = if self.has_any_answered { self.timing.silence_of_all } else { self.timing.start_limit };
        let mut states = self.targets.values();
        let was_never_heard = states.len() > 0
            && states.all(|state| {
                let is_mute = !state.has_answered && state.obstacle == Obstacle::Silence;
                is_mute && since(state.last_answer) >= self.timing.start_limit
            });
        if shortest.is_some_and(|shortest| shortest >= limit) || hangs_in_part || was_never_heard {
            return self.kill(Cause::Hang, now);
        }
        let asked = self.targets.iter().filter(|(_, state)| state.silent_since().is_some_and(is_silent));
        let unheard: Vec<ProbeTarget> = asked.map(|(target, _)| *target).collect();
        for target in unheard {
            self.conclude(target, ProbeResult::Silent, now);
        }
        self.report_obstacles(now);
        let lost = self.targets.iter().filter(|(_, state)| since(state.last_answer) >= self.timing.silence_of_one);
        let lost: Interception = lost.map(|(target, _)| target.address.ip()).collect();
        let served = self.served();
        self.want(self.wanted.addresses().filter(|address| served.contains(*address) && !lost.contains(*address)).collect());
        // Answers at what has just been withdrawn, of somebody else perhaps, may have been all that was heard.
        let shortest = self.accountable().map(|state| since(state.last_heard)).min();
        if shortest.is_some_and(|shortest| shortest >= limit) {
            return self.kill(Cause::Hang, now);
        }
        self.probe_due_targets(now);
        if self.answers_where_it_can() {
            self.healthy_since.get_or_insert(now);
            if let Some(since) = self.down_since.take() {
                self.without_service += now.saturating_duration_since(since);
            }
        }
        if self.wanted.is_within(&self.proven(|_| 1)) {
            self.grace = None;
        }
        self.want(self.wanted.in_either(&self.proven(|address| self.proofs_needed(address))));
    }

    fn probe_due_targets(&mut self, now: Instant) {
        let suspicious_from = self.suspicious_from();
        let is_due = |(target, state): &(&ProbeTarget, &TargetState)| {
            self.due(target, state, suspicious_from).is_some_and(|due| now >= due)
        };
        let due: Vec<ProbeTarget> = self.targets.iter().filter(is_due).map(|(target, _)| *target).collect();
        for target in due {
            let is_intercepted = self.wanted.contains(target.address.ip());
            let Some(state) = self.targets.get_mut(&target) else { continue };
            self.last_probe_id += 1;
            state.asked = Some(PendingProbe { probe_id: self.last_probe_id, at: now });
            // Where rules are wanted that cannot be had, nothing keeps a question from going to whoever kube-proxy sends it to.
            let is_exposed = self.settled.is_none() && !state.has_answered;
            let is_single_packet = (state.fruitless_probes >= REPEATED_PROBES || is_exposed) && !is_intercepted;
            self.actions.push(Action::Probe { target, probe_id: self.last_probe_id, is_single_packet });
        }
    }

    /// Says of each address that has gone without a proof for a while, why.
    fn report_obstacles(&mut self, now: Instant) {
        let proven = self.wanted.in_either(&self.proven(|_| 1));
        self.reported.retain(|address, _| !proven.contains(*address));
        for (target, state) in &self.targets {
            let address = target.address.ip().to_canonical();
            let is_unproven = now.saturating_duration_since(state.last_answer) >= self.timing.silence_of_one;
            if is_unproven && !self.reported.contains_key(&address) {
                self.reported.insert(address, state.obstacle);
                self.actions.push(Action::ReportObstacle { address, obstacle: state.obstacle });
            }
        }
    }

    /// Addresses that have targets.
    fn served(&self) -> Interception {
        self.targets.keys().map(|target| target.address.ip()).collect()
    }

    /// Addresses of which every target has answered so often without a miss.
    fn proven(&self, needed: impl Fn(IpAddr) -> u32) -> Interception {
        let lacking = self.targets.iter().filter(|(target, state)| state.proofs < needed(target.address.ip()));
        let lacking: Interception = lacking.map(|(target, _)| target.address.ip()).collect();
        self.served().addresses().filter(|address| !lacking.contains(*address)).collect()
    }

    fn proofs_needed(&self, address: IpAddr) -> u32 {
        let is_later = self.withdrawn.contains(&address.to_canonical());
        if is_later { self.timing.later_proofs } else { self.timing.first_proofs }
    }

    /// Every target has answered, but for those where it is not the server's fault.
    fn answers_where_it_can(&self) -> bool {
        let mut states = self.targets.values();
        states.clone().any(|state| state.proofs > 0) && states.all(|state| state.proofs > 0 || state.fruitless_probes > 0)
    }

    fn asked(&mut self, target: ProbeTarget, probe_id: u64) -> Option<&mut TargetState> {
        self.targets.get_mut(&target).filter(|state| state.asked.is_some_and(|asked| asked.probe_id == probe_id))
    }

    fn on_probe_result(&mut self, target: ProbeTarget, probe_id: u64, result: ProbeResult, now: Instant) {
        if self.asked(target, probe_id).is_some() {
            self.conclude(target, result, now);
        }
    }

    /// The question to `target` has come to this.
    fn conclude(&mut self, target: ProbeTarget, result: ProbeResult, now: Instant) {
        let Some(state) = self.targets.get_mut(&target) else { return };
        state.asked = None;
        state.last_heard = now;
        let obstacle = match result {
            ProbeResult::Answered => {
                state.last_answer = now;
                state.proofs = state.proofs.saturating_add(1);
                state.has_answered = true;
                None
            }
            ProbeResult::Foreign => Some(Obstacle::Foreign),
            // Where it has answered before, that it does not is its own affair: it goes on being asked, and is watched.
            ProbeResult::Unproven => Some(Obstacle::Misrouted).filter(|_| !state.has_answered),
            ProbeResult::Silent => Some(Obstacle::Silence).filter(|_| !state.has_answered),
        };
        if result != ProbeResult::Answered {
            state.proofs = 0;
        }
        state.fruitless_probes = obstacle.map_or(0, |_| state.fruitless_probes.saturating_add(1));
        state.obstacle = obstacle.unwrap_or(Obstacle::Silence);
        let state = *state;
        self.has_any_answered |= state.has_answered;
        let due = now + self.interval(&target, &state);
        if let Some(state) = self.targets.get_mut(&target) {
            state.due = due;
        }
    }

    /// The node has changed: what was in vain may not be so any longer.
    fn probe_soon_again(&mut self, now: Instant) {
        for state in self.targets.values_mut().filter(|state| state.fruitless_probes > 0) {
            state.due = state.due.min(now.max(state.last_heard + self.timing.change_interval));
        }
    }

    /// The server no longer serves; some of it or all has not since `since`.
    fn lose_service(&mut self, since: Instant, now: Instant) {
        self.down_since.get_or_insert(since);
        self.grace.get_or_insert(now + self.timing.restart_grace);
        self.targets.clear();
        self.actions.push(Action::CancelProbes);
    }

    fn kill(&mut self, cause: Cause, now: Instant) {
        if !matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            return;
        }
        let last_heard: Vec<Instant> = self.accountable().map(|state| state.last_heard).collect();
        let last = last_heard.iter().max().copied();
        let all_silent = last.filter(|last_heard| now.saturating_duration_since(*last_heard) >= self.timing.silence_of_all);
        self.lose_service(all_silent.or(last_heard.into_iter().min()).unwrap_or(now), now);
        self.actions.push(Action::Kill);
        self.phase = Phase::Dying { cause };
    }

    fn on_exit(&mut self, exit: Exit, now: Instant) {
        if !self.has_server {
            return;
        }
        self.has_server = false;
        self.lose_service(now, now);
        let cause = match (self.phase, exit) {
            (Phase::Draining { then: AfterDrain::TearDown, .. }, _) => return self.tear_down(0, now),
            (Phase::Draining { then: AfterDrain::StandBy, .. }, _) => return self.stand_by(now),
            (Phase::Starting { .. } | Phase::Serving | Phase::Dying { .. }, Exit::Status(status)) if !self.has_served => {
                // Whoever started us is told what is wrong, and how it ended, as by the server itself.
                let status = u8::try_from(status).unwrap_or(1);
                return self.tear_down(status, now);
            }
            (Phase::Dying { cause }, _) => cause,
            (Phase::Starting { .. } | Phase::Serving, Exit::Status(_)) if self.has_failed => Cause::Configuration,
            (Phase::Starting { .. } | Phase::Serving, Exit::Status(_)) => Cause::Exit,
            (Phase::Starting { .. } | Phase::Serving, Exit::Signal(_)) => Cause::Signal,
            (Phase::Starting { .. } | Phase::Serving, Exit::NotStarted) => Cause::Start,
            _ => return,
        };
        self.actions.push(Action::CountRestart(cause));
        let was_healthy = self.healthy_since.take().is_some_and(|since| now >= since + self.timing.healthy_time);
        if was_healthy {
            self.delay = Duration::ZERO;
        }
        if matches!(self.phase, Phase::Starting { .. }) || self.delay >= self.timing.restart_grace {
            // It did not come to serve, and the next one has no better prospects, or comes too late: nobody's query waits for that.
            self.withdraw();
        }
        self.phase = Phase::Waiting { until: now + self.delay };
        self.delay = (self.delay * 2).clamp(self.timing.first_delay, self.timing.longest_delay);
    }

    /// Queries for all addresses go to cluster DNS until a server has proved itself for a while.
    fn withdraw(&mut self) {
        self.grace = None;
        self.want(Interception::default());
    }

    /// Has these addresses intercepted, and no others.
    fn want(&mut self, wanted: Interception) {
        if wanted == self.wanted {
            return;
        }
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        for address in before.addresses().filter(|address| !wanted.contains(*address)) {
            self.withdrawn.insert(address);
            for (target, state) in &mut self.targets {
                if target.address.ip().to_canonical() == address {
                    state.proofs = 0;
                }
            }
        }
        if wanted.is_none() {
            self.is_announced = false;
        }
        self.actions.push(Action::Intercept(wanted));
    }

    fn on_node_settled(&mut self, interception: &Interception, is_done: bool, now: Instant) {
        if is_done {
            self.settled = Some(interception.clone());
        }
        self.probe_soon_again(now);
        match self.phase {
            // Even if it could not be made ready: what the server then cannot bind it says better.
            Phase::Preparing => self.phase = Phase::Waiting { until: now },
            // What could not be withdrawn still brings queries to the server: it is tried again, within the limit.
            Phase::Withdrawing { .. } if is_done && interception.is_none() => self.begin_drain(now),
            _ => {}
        }
    }

    fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Withdrawing { .. } => self.begin_drain(now),
            Phase::Draining { then: AfterDrain::TearDown, .. } => {
                self.phase = Phase::Draining { limit: now, then: AfterDrain::TearDown }
            }
            Phase::Draining { limit, then: AfterDrain::StandBy } => {
                self.phase = Phase::Draining { limit, then: AfterDrain::TearDown }
            }
            Phase::TearingDown { status, .. } => self.end(status),
            Phase::Ended => {}
            _ => {
                self.actions.push(Action::StopOffering);
                let may_be_intercepted = |interception: &Interception| !interception.is_none();
                let is_intercepted = may_be_intercepted(&self.wanted) || self.settled.as_ref().is_some_and(may_be_intercepted);
                self.actions.push(Action::CancelProbes);
                self.targets.clear();
                if is_intercepted && !self.keep_node {
                    self.withdraw();
                    self.phase = Phase::Withdrawing { limit: now + self.timing.withdraw_limit };
                } else {
                    self.begin_drain(now);
                }
            }
        }
    }

    fn begin_drain(&mut self, now: Instant) {
        if !self.has_server {
            return self.tear_down(0, now);
        }
        self.actions.push(Action::Stop { leave: self.is_shared });
        self.phase = Phase::Draining { limit: now + self.drain + Duration::from_secs(1), then: AfterDrain::TearDown };
    }

    /// The successor serves and intercepts: this server goes, and with it our rules, but nothing that both need.
    fn hand_over(&mut self, now: Instant) {
        let drain = |limit| Phase::Draining { limit: now + limit, then: AfterDrain::StandBy };
        self.phase = match self.phase {
            Phase::Preparing | Phase::Waiting { .. } => Phase::StandingBy,
            Phase::Starting { .. } | Phase::Serving => {
                self.actions.push(Action::Stop { leave: true });
                drain(self.drain + Duration::from_secs(1))
            }
            Phase::Dying { .. } => drain(self.timing.teardown_limit),
            // For one that has ended since; this one serves in its stead.
            Phase::Draining { then: AfterDrain::StandBy, .. } => {
                self.has_successor = true;
                return;
            }
            _ => return,
        };
        self.has_successor = true;
        self.actions.extend([Action::StopOffering, Action::CancelProbes]);
        self.targets.clear();
        self.withdraw();
        self.rest(now);
    }

    /// Answering is the successor's business: that we do not is no outage.
    fn rest(&mut self, now: Instant) {
        self.grace = None;
        if let Some(since) = self.down_since.take() {
            self.without_service += now.saturating_duration_since(since);
        }
    }

    fn stand_by(&mut self, now: Instant) {
        self.rest(now);
        self.phase = Phase::StandingBy;
        if !self.has_successor {
            self.serve_again(now);
        }
    }

    /// As at a first start: nobody has failed here.
    fn serve_again(&mut self, now: Instant) {
        self.down_since = Some(now);
        self.delay = Duration::ZERO;
        self.withdrawn.clear();
        self.phase = Phase::Waiting { until: now };
    }

    fn tear_down(&mut self, status: u8, now: Instant) {
        self.grace = None;
        if self.keep_node {
            return self.end(status);
        }
        self.wanted = Interception::default();
        self.actions.push(Action::Teardown);
        self.phase = Phase::TearingDown { limit: now + self.timing.teardown_limit, status };
    }

    fn end(&mut self, status: u8) {
        self.phase = Phase::Ended;
        self.actions.push(Action::Exit(status));
    }
}
