//! The server's start, end and restart, and the interception that follows from them.

use super::probing::TargetState;
use super::{Action, AfterDrain, Cause, Exit, Obstacle, Phase, ProbeTarget, StateMachine};
use crate::node::Interception;
use std::time::{Duration, Instant};

impl StateMachine {
    pub(super) fn begin_serving(&mut self, targets: &[ProbeTarget], has_streams: bool, drain: Duration, now: Instant) {
        if !matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            return;
        }
        self.phase = Phase::Serving;
        self.has_served = true;
        self.drain = drain;
        self.expect_streams(has_streams, now);
        self.targets.retain(|target, _| targets.contains(target));
        for target in targets {
            let new = TargetState {
                asked: None,
                due: now,
                last_heard: now,
                last_answer: now,
                proofs: 0,
                has_answered: false,
                is_contradicted: false,
                is_overrun: false,
                fruitless_probes: 0,
                obstacle: Obstacle::Silence,
            };
            self.targets.entry(*target).or_insert(new);
        }
    }

    /// The server no longer serves; some of it or all has not since `since`.
    pub(super) fn lose_service(&mut self, since: Instant, now: Instant) {
        self.down_since.get_or_insert(since);
        self.grace.get_or_insert(now + self.timing.restart_grace);
        self.targets.clear();
        self.streams = None;
        self.actions.push(Action::CancelProbes);
    }

    pub(super) fn kill(&mut self, cause: Cause, now: Instant) {
        if !matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            return;
        }
        let of_targets = self.accountable().map(|state| state.last_heard);
        let last_heard: Vec<Instant> = of_targets.chain(self.streams.map(|streams| streams.last_heard)).collect();
        let last = last_heard.iter().max().copied();
        let all_silent =
            last.filter(|last_heard| now.saturating_duration_since(*last_heard) >= self.timing.silence_of_all);
        self.lose_service(all_silent.or(last_heard.into_iter().min()).unwrap_or(now), now);
        self.actions.push(Action::Kill);
        self.phase = Phase::Dying { cause };
    }

    pub(super) fn on_exit(&mut self, exit: Exit, now: Instant) {
        if !self.has_server {
            return;
        }
        self.has_server = false;
        self.lose_service(now, now);
        let cause = match (self.phase, exit) {
            (Phase::Draining { then: AfterDrain::TearDown, .. }, _) => return self.tear_down(0, now),
            (Phase::Draining { then: AfterDrain::StandBy, .. }, _) => return self.stand_by(now),
            (Phase::Starting { .. } | Phase::Serving | Phase::Dying { .. }, Exit::Status(status))
                if !self.has_served =>
            {
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
            // It did not come to serve, and the next one has no better prospects, or comes too late: nobody's query
            // waits for that.
            self.withdraw();
        }
        self.phase = Phase::Waiting { until: now + self.delay };
        self.delay = (self.delay * 2).clamp(self.timing.first_delay, self.timing.longest_delay);
    }

    /// Queries for all addresses go to cluster DNS until a server has proved itself for a while.
    pub(super) fn withdraw(&mut self) {
        self.grace = None;
        self.want(Interception::default());
    }

    /// Has these addresses intercepted, and no others.
    pub(super) fn want(&mut self, wanted: Interception) {
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

    pub(super) fn on_node_settled(&mut self, interception: &Interception, is_done: bool, now: Instant) {
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
}
