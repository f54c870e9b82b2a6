//! The ordered end, and the hand-over to a successor.

use super::{Action, AfterDrain, Phase, StateMachine};
use crate::node::Interception;
use std::net::IpAddr;
use std::time::{Duration, Instant};

impl StateMachine {
    /// A successor that is announced takes the interception from its predecessor, at every address. So it waits for
    /// each: until that is intercepted here, or has gone without a proof for as long as it would have been left
    /// intercepted. That it never can be (somebody else answers, its queries cannot be had) does not keep the update of
    /// a node up for ever; but one address there must be.
    pub(super) fn may_be_succeeded(&self, now: Instant) -> bool {
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

    pub(super) fn stop(&mut self, now: Instant) {
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
                let is_intercepted =
                    may_be_intercepted(&self.wanted) || self.settled.as_ref().is_some_and(may_be_intercepted);
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

    pub(super) fn begin_drain(&mut self, now: Instant) {
        if !self.has_server {
            return self.tear_down(0, now);
        }
        self.actions.push(Action::Stop { leave: self.is_shared });
        self.phase = Phase::Draining { limit: now + self.drain + Duration::from_secs(1), then: AfterDrain::TearDown };
    }

    /// The successor serves and intercepts: this server goes, and with it our rules, but nothing that both need.
    pub(super) fn hand_over(&mut self, now: Instant) {
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
    pub(super) fn rest(&mut self, now: Instant) {
        self.grace = None;
        if let Some(since) = self.down_since.take() {
            self.without_service += now.saturating_duration_since(since);
        }
    }

    pub(super) fn stand_by(&mut self, now: Instant) {
        self.rest(now);
        self.phase = Phase::StandingBy;
        if !self.has_successor {
            self.serve_again(now);
        }
    }

    /// As at a first start: nobody has failed here.
    pub(super) fn serve_again(&mut self, now: Instant) {
        self.down_since = Some(now);
        self.delay = Duration::ZERO;
        self.withdrawn.clear();
        self.phase = Phase::Waiting { until: now };
    }

    pub(super) fn tear_down(&mut self, status: u8, now: Instant) {
        self.grace = None;
        if self.keep_node {
            return self.end(status);
        }
        self.wanted = Interception::default();
        self.actions.push(Action::Teardown);
        self.phase = Phase::TearingDown { limit: now + self.timing.teardown_limit, status };
    }

    pub(super) fn end(&mut self, status: u8) {
        self.phase = Phase::Ended;
        self.actions.push(Action::Exit(status));
    }
}
