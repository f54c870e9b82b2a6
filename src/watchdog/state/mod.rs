//! The watchdog's state machine. It takes events and the time and returns actions. Pure: [`mod@super::run`] has the
//! sockets, processes and rules.
//!
//! [`probing`] decides which address is proven, [`streams`] whether clients within TLS are served, [`service`] when the
//! server is started and killed and what is intercepted, [`ending`] how it stops.
//!
//! Promises, held in `state/tests`, and the first two in `tests/simulation` for the whole node under faults drawn at
//! random: *an address is intercepted only once the server is proven to answer there, and no longer than it takes to
//! find out that it does not*; *an address where the server is proven is intercepted within its proving time,
//! whatever becomes of the others*; *where somebody else answers, or
//! nobody ever did, ever fewer questions are asked, and nobody is killed for it*; *sockets that another process reads
//! are never taken from it*; *while a successor lives we serve no longer, and when it ends we serve again*.
//!
//! An address is proven when all of its targets are: each of its ports, over UDP and TCP, since a client chooses among
//! them.

mod ending;
mod event;
mod probing;
mod service;
mod streams;
#[cfg(test)]
mod tests;
mod timing;

pub use event::{Action, Cause, Event, Exit, Obstacle, ProbeResult, ProbeTarget};
pub use timing::Timing;

use self::probing::TargetState;
use self::streams::StreamsState;
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
    /// When the server last answered after it had been silent everywhere.
    resumed_at: Option<Instant>,
    /// `None` while it serves nobody within TLS or HTTPS.
    streams: Option<StreamsState>,
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
    /// Begins with making the node ready. With `keep_node` nothing is withdrawn or taken down at the end
    /// (`-skipteardown`).
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
            resumed_at: None,
            streams: None,
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

    /// For how long in all no server has answered.
    pub fn without_service(&self, now: Instant) -> Duration {
        self.without_service + self.down_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What it is doing, in a word.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Preparing => "preparing",
            Phase::Waiting { .. } => "waiting",
            Phase::Starting { .. } => "starting",
            Phase::Serving => "serving",
            Phase::Dying { .. } => "killing",
            Phase::Withdrawing { .. } => "withdrawing",
            Phase::Draining { .. } => "draining",
            Phase::StandingBy => "standing_by",
            Phase::TearingDown { .. } => "tearing_down",
            Phase::Ended => "ended",
        }
    }

    /// What is to be intercepted.
    pub fn wanted(&self) -> &Interception {
        &self.wanted
    }

    /// Why an address that is served is not intercepted, as far as it has been told.
    pub fn obstacles(&self) -> &BTreeMap<IpAddr, Obstacle> {
        &self.reported
    }

    /// Takes one event, and returns what to do about it. Events out of place change nothing.
    pub fn handle(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        self.forgive_own_stall(now);
        match event {
            Event::Tick => {}
            Event::Serving { targets, has_streams, drain } => self.begin_serving(targets, has_streams, drain, now),
            Event::StreamsAlive => self.hear_streams(now),
            Event::ConfigurationRefused => self.has_failed = true,
            Event::ProtocolViolated => self.kill(Cause::Protocol, now),
            Event::Exited(exit) => self.on_exit(exit, now),
            Event::ProbeEnded { target, probe_id, result } => self.on_probe_result(target, probe_id, result, now),
            Event::ProbeLate { target, probe_id, is_overrun } => {
                if let Some(state) = self.asked(target, probe_id) {
                    state.proofs = 0;
                    state.is_overrun = is_overrun;
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
        if let Some(streams) = &mut self.streams {
            streams.last_heard = now.min(streams.last_heard + late);
        }
        if let Some(grace) = &mut self.grace {
            *grace = now + self.timing.restart_grace;
        }
        if let Phase::Starting { limit } | Phase::Withdrawing { limit } | Phase::Draining { limit, .. } =
            &mut self.phase
        {
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
}
