//! The watchdog's decisions: events and the time in, actions out. Pure; sockets, processes and rules are `run`'s.
//!
//! Promises, held in `state/tests`, and the first two in `tests/simulation` for the whole node under faults drawn at random: *interception
//! is on only while the server is proven to answer*; *a proven server is intercepted within its proving time*; *sockets that another
//! process reads are never taken from it*; *while a successor lives we serve no longer, and when it ends we serve again*.

mod event;
#[cfg(test)]
mod tests;
mod timing;

pub use event::{Action, Cause, Event, Exit, Interception, Target, Verdict};
pub use timing::Timing;

use crate::chain::Transport;
use std::collections::BTreeMap;
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
        then: Then,
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
enum Then {
    TearDown,
    StandBy,
}

/// Where one target stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// It is being asked.
    asked: Option<Asked>,
    /// When to ask next.
    due: Instant,
    /// The last sign of life; before there is one, when it was first expected to answer.
    heard: Instant,
    /// The last answer; before there is one, as above.
    answered: Instant,
    /// Answers without a miss.
    proofs: u32,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    inquiry: u64,
    at: Instant,
}

/// The state machine.
pub struct Machine {
    timing: Timing,
    keep_node: bool,
    phase: Phase,
    has_server: bool,
    /// A server has once reported that it serves.
    has_served: bool,
    /// The present one has said that it will not take its configuration.
    has_failed: bool,
    drain: Duration,
    targets: BTreeMap<Target, Standing>,
    last_inquiry: u64,
    wanted: Interception,
    settled: Option<Interception>,
    proofs_needed: u32,
    /// There is no service since, until every target of a new server has answered.
    down_since: Option<Instant>,
    /// The server is gone, and the interception with it unless another one answers by then.
    grace: Option<Instant>,
    without_service: Duration,
    delay: Duration,
    healthy_since: Option<Instant>,
    /// Another process reads the sockets too.
    is_shared: bool,
    has_successor: bool,
    /// Since the interception was last wanted.
    is_announced: bool,
    last_event: Option<Instant>,
    /// What [`Machine::wake_at`] said after it.
    alarm: Option<Instant>,
    actions: Vec<Action>,
}

impl Machine {
    /// Begins with making the node ready. With `keep_node` nothing is withdrawn or taken down at the end (`-skipteardown`).
    pub fn new(timing: Timing, keep_node: bool, now: Instant) -> Self {
        Self {
            timing,
            keep_node,
            phase: Phase::Preparing,
            has_server: false,
            has_served: false,
            has_failed: false,
            drain: Duration::ZERO,
            targets: BTreeMap::new(),
            last_inquiry: 0,
            wanted: Interception::Probing,
            settled: None,
            proofs_needed: timing.first_proofs,
            down_since: Some(now),
            grace: None,
            without_service: Duration::ZERO,
            delay: Duration::ZERO,
            healthy_since: None,
            is_shared: false,
            has_successor: false,
            is_announced: false,
            last_event: None,
            alarm: None,
            actions: vec![Action::Intercept(Interception::Probing)],
        }
    }

    /// What the node should be like.
    pub fn wanted(&self) -> Interception {
        self.wanted
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
            Event::Failed => self.has_failed = true,
            Event::Misbehaved => self.kill(Cause::Protocol, now),
            Event::Exited(exit) => self.take_exit(exit, now),
            Event::Probed { target, inquiry, verdict } => self.take_verdict(target, inquiry, verdict, now),
            Event::ProbeLate { target, inquiry } => {
                if let Some(standing) = self.asked(target, inquiry) {
                    standing.proofs = 0;
                }
            }
            Event::Settled { interception, is_done } => self.take_settled(interception, is_done, now),
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
            Event::Shared { is_shared } => self.is_shared = is_shared,
            Event::Succeeded => self.succeed(now),
            Event::SuccessorGone => {
                self.has_successor = false;
                if self.phase == Phase::StandingBy {
                    self.take_back(now);
                }
            }
            Event::Stop => self.stop(now),
        }
        self.advance(now);
        self.last_event = Some(now);
        self.alarm = self.wake_at();
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Machine::handle`] again at the latest.
    pub fn wake_at(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Preparing | Phase::Dying { .. } | Phase::StandingBy | Phase::Ended => None,
            Phase::Waiting { until } => Some(until),
            Phase::Starting { limit } | Phase::Withdrawing { limit } => Some(limit),
            Phase::Draining { limit, .. } | Phase::TearingDown { limit, .. } => Some(limit),
            Phase::Serving => self.next_watch(),
        };
        phase.into_iter().chain(self.grace.filter(|_| self.wanted == Interception::On)).min()
    }

    fn next_watch(&self) -> Option<Instant> {
        let heard = self.targets.values().map(|standing| standing.heard);
        let answered = self.targets.values().map(|standing| standing.answered).min();
        let limits = [
            heard.clone().max().map(|heard| heard + self.timing.silence_of_all),
            heard.min().map(|heard| heard + self.timing.silence_of_one),
            answered.filter(|_| self.wanted == Interception::On).map(|answered| answered + self.timing.silence_of_one),
            self.targets.values().filter_map(|standing| self.due(standing, self.suspicious_from())).min(),
            // So that a stall of our own is known as one, whatever else there is to wait for.
            self.last_event.map(|at| at + self.timing.watch_udp_interval),
        ];
        limits.into_iter().flatten().min()
    }

    /// When the one that was asked first and has not answered becomes suspect.
    fn suspicious_from(&self) -> Option<Instant> {
        let asked = self.targets.values().filter_map(|standing| standing.asked.map(|asked| asked.at)).min();
        asked.map(|at| at + self.timing.suspicion)
    }

    /// When to ask this one, unless it is being asked.
    fn due(&self, standing: &Standing, suspicious_from: Option<Instant>) -> Option<Instant> {
        if standing.asked.is_some() {
            return None;
        }
        let in_suspicion = suspicious_from.map(|from| from.max(standing.heard + self.timing.watch_udp_interval));
        in_suspicion.into_iter().chain([standing.due]).min()
    }

    /// Time in which the watchdog did not run is held against nobody.
    fn forgive_own_stall(&mut self, now: Instant) {
        let Some(late) = self.alarm.map(|alarm| now.saturating_duration_since(alarm)) else { return };
        if late <= self.timing.own_stall {
            return;
        }
        for standing in self.targets.values_mut() {
            // Answers may wait in our sockets, unread.
            standing.heard = now;
            standing.answered = now.min(standing.answered + late);
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
            Phase::Draining { limit, then } if now >= limit => {
                self.actions.push(Action::Kill);
                self.phase = Phase::Draining { limit: now + self.timing.teardown_limit, then };
            }
            Phase::TearingDown { limit, status } if now >= limit => self.end(status),
            _ => {}
        }
        if self.grace.is_some_and(|grace| now >= grace) {
            self.withdraw();
        }
        let is_on = self.wanted == Interception::On && self.settled == Some(Interception::On);
        if !self.is_announced && is_on && self.phase == Phase::Serving && self.has_proofs(1) {
            self.is_announced = true;
            self.actions.push(Action::Announce);
        }
    }

    fn begin_serving(&mut self, targets: &[Target], drain: Duration, now: Instant) {
        if !matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            return;
        }
        self.phase = Phase::Serving;
        self.has_served = true;
        self.drain = drain;
        self.targets.retain(|target, _| targets.contains(target));
        for target in targets {
            let new = Standing { asked: None, due: now, heard: now, answered: now, proofs: 0 };
            self.targets.entry(*target).or_insert(new);
        }
    }

    fn watch(&mut self, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then);
        let heard = self.targets.values().map(|standing| since(standing.heard));
        let (shortest, longest) = (heard.clone().min().unwrap_or_default(), heard.max().unwrap_or_default());
        if shortest >= self.timing.silence_of_all || longest >= self.timing.silence_of_one {
            return self.kill(Cause::Hang, now);
        }
        if self.targets.values().any(|standing| since(standing.answered) >= self.timing.silence_of_one) {
            self.withdraw();
        }
        let suspicious_from = self.suspicious_from();
        let is_due = |standing: &Standing| self.due(standing, suspicious_from).is_some_and(|due| now >= due);
        let due: Vec<Target> = self.targets.iter().filter(|(_, standing)| is_due(standing)).map(|(target, _)| *target).collect();
        for target in due {
            if let Some(standing) = self.targets.get_mut(&target) {
                self.last_inquiry += 1;
                standing.asked = Some(Asked { inquiry: self.last_inquiry, at: now });
                self.actions.push(Action::Probe { target, inquiry: self.last_inquiry });
            }
        }
        if self.has_proofs(1) {
            self.grace = None;
            self.healthy_since.get_or_insert(now);
            if let Some(since) = self.down_since.take() {
                self.without_service += now.saturating_duration_since(since);
            }
        }
        if self.wanted == Interception::Probing && self.has_proofs(self.proofs_needed) {
            self.wanted = Interception::On;
            self.actions.push(Action::Intercept(Interception::On));
        }
    }

    /// Every target there is has answered so often.
    fn has_proofs(&self, count: u32) -> bool {
        !self.targets.is_empty() && self.targets.values().all(|standing| standing.proofs >= count)
    }

    fn asked(&mut self, target: Target, inquiry: u64) -> Option<&mut Standing> {
        self.targets.get_mut(&target).filter(|standing| standing.asked.is_some_and(|asked| asked.inquiry == inquiry))
    }

    fn take_verdict(&mut self, target: Target, inquiry: u64, verdict: Verdict, now: Instant) {
        let is_proving = self.wanted == Interception::Probing;
        let interval = match target.transport {
            _ if is_proving => self.timing.prove_interval,
            Transport::Udp => self.timing.watch_udp_interval,
            Transport::Tcp => self.timing.watch_tcp_interval,
        };
        let Some(standing) = self.asked(target, inquiry) else { return };
        standing.asked = None;
        standing.due = now + interval;
        standing.heard = now;
        match verdict {
            Verdict::Answered => {
                standing.answered = now;
                standing.proofs = standing.proofs.saturating_add(1);
            }
            Verdict::Unproven => standing.proofs = 0,
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
        let heard = self.targets.values().map(|standing| standing.heard);
        let all_silent = heard.clone().max().filter(|heard| now.saturating_duration_since(*heard) >= self.timing.silence_of_all);
        self.lose_service(all_silent.or(heard.min()).unwrap_or(now), now);
        self.actions.push(Action::Kill);
        self.phase = Phase::Dying { cause };
    }

    fn take_exit(&mut self, exit: Exit, now: Instant) {
        if !self.has_server {
            return;
        }
        self.has_server = false;
        self.lose_service(now, now);
        let cause = match (self.phase, exit) {
            (Phase::Draining { then: Then::TearDown, .. }, _) => return self.tear_down(0, now),
            (Phase::Draining { then: Then::StandBy, .. }, _) => return self.stand_by(now),
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

    /// Queries go to cluster DNS until a server has proved itself for a while.
    fn withdraw(&mut self) {
        self.grace = None;
        if self.wanted == Interception::Probing {
            return;
        }
        self.wanted = Interception::Probing;
        self.is_announced = false;
        self.proofs_needed = self.timing.later_proofs;
        for standing in self.targets.values_mut() {
            standing.proofs = 0;
        }
        self.actions.push(Action::Intercept(Interception::Probing));
    }

    fn take_settled(&mut self, interception: Interception, is_done: bool, now: Instant) {
        if is_done {
            self.settled = Some(interception);
        }
        match self.phase {
            // Even if it could not be made ready: what the server then cannot bind it says better.
            Phase::Preparing => self.phase = Phase::Waiting { until: now },
            // What could not be withdrawn still brings queries to the server: it is tried again, within the limit.
            Phase::Withdrawing { .. } if is_done && interception == Interception::Probing => self.begin_drain(now),
            _ => {}
        }
    }

    fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Withdrawing { .. } => self.begin_drain(now),
            Phase::Draining { then: Then::TearDown, .. } => self.phase = Phase::Draining { limit: now, then: Then::TearDown },
            Phase::Draining { limit, then: Then::StandBy } => self.phase = Phase::Draining { limit, then: Then::TearDown },
            Phase::TearingDown { status, .. } => self.end(status),
            Phase::Ended => {}
            _ => {
                self.actions.push(Action::StopOffering);
                let is_intercepted = self.wanted == Interception::On || self.settled == Some(Interception::On);
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
        self.phase = Phase::Draining { limit: now + self.drain + Duration::from_secs(1), then: Then::TearDown };
    }

    /// The successor serves and intercepts: this server goes, and with it our rules, but nothing that both need.
    fn succeed(&mut self, now: Instant) {
        let drain = |limit| Phase::Draining { limit: now + limit, then: Then::StandBy };
        self.phase = match self.phase {
            Phase::Preparing | Phase::Waiting { .. } => Phase::StandingBy,
            Phase::Starting { .. } | Phase::Serving => {
                self.actions.push(Action::Stop { leave: true });
                drain(self.drain + Duration::from_secs(1))
            }
            Phase::Dying { .. } => drain(self.timing.teardown_limit),
            // For one that has ended since; this one serves in its stead.
            Phase::Draining { then: Then::StandBy, .. } => {
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
            self.take_back(now);
        }
    }

    /// As at a first start: nobody has failed here.
    fn take_back(&mut self, now: Instant) {
        self.down_since = Some(now);
        self.delay = Duration::ZERO;
        self.proofs_needed = self.timing.first_proofs;
        self.phase = Phase::Waiting { until: now };
    }

    fn tear_down(&mut self, status: u8, now: Instant) {
        self.grace = None;
        if self.keep_node {
            return self.end(status);
        }
        self.wanted = Interception::Probing;
        self.actions.push(Action::Teardown);
        self.phase = Phase::TearingDown { limit: now + self.timing.teardown_limit, status };
    }

    fn end(&mut self, status: u8) {
        self.phase = Phase::Ended;
        self.actions.push(Action::Exit(status));
    }
}
