//! Which address is probed when, and whether its answers prove it.
//!
//! A proof is lost in three ways. Evidence counts at once: an answer that none of our servers gives. Silence at one
//! target over UDP counts while the server answers at others; what hangs as a whole is replaced in place. Silence that
//! dropped packets may explain, silence over TCP, where one lost SYN is a second of it (RFC 6298 section 2), and
//! answers of another of our servers count when there was no proof for long.

use super::{Action, Cause, Obstacle, ProbeResult, ProbeTarget, StateMachine};
use crate::chain::Transport;
use crate::node::Interception;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Where one target stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetState {
    /// It is being asked.
    pub(super) asked: Option<PendingProbe>,
    /// When to ask next.
    pub(super) due: Instant,
    /// The last sign of life; before there is one, when it was first expected to answer.
    pub(super) last_heard: Instant,
    /// The last answer; before there is one, as above.
    pub(super) last_answer: Instant,
    /// Answers without a miss.
    pub(super) proofs: u32,
    /// The present server has answered here.
    pub(super) has_answered: bool,
    /// The last answer was none that a server of this program gives.
    pub(super) is_contradicted: bool,
    /// Packets were dropped from full queues while it was asked.
    pub(super) is_overrun: bool,
    /// Questions in a row that came to nothing for which no silence of the server's is to blame: somebody else
    /// answered, or they did not come to a server that has never answered here.
    pub(super) fruitless_probes: u32,
    /// What the last of them came to.
    pub(super) obstacle: Obstacle,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PendingProbe {
    pub(super) probe_id: u64,
    pub(super) at: Instant,
}

impl TargetState {
    /// Since when it is asked without a sign of life.
    fn silent_since(&self) -> Option<Instant> {
        self.asked.map(|asked| asked.at.max(self.last_heard))
    }
}

/// So many questions in vain before they become sparing: where a predecessor or another agent's server reads the same
/// queue, or one of the same group, an answer that is not ours says little about the next one.
const REPEATED_PROBES: u32 = 2;

impl StateMachine {
    pub(super) fn next_watch(&self) -> Option<Instant> {
        let last_heard = self.accountable().map(|state| state.last_heard);
        let answering = self.accountable().filter(|state| state.has_answered).map(|state| state.last_heard);
        let asked = self.targets.values().filter_map(TargetState::silent_since);
        let wanted = self.targets.iter().filter(|(target, _)| self.wanted.contains(target.address.ip()));
        let suspicious_from = self.suspicious_from();
        let limits = [
            last_heard
                .max()
                .filter(|_| self.has_any_answered)
                .map(|last_heard| last_heard + self.timing.silence_of_all),
            answering.chain(asked).min().map(|last_heard| last_heard + self.timing.silence_of_one),
            wanted.clone().map(|(_, state)| state.last_answer + self.timing.silence_of_one).min(),
            // Once that is over, only an answer elsewhere makes it count.
            wanted
                .filter_map(|(target, state)| self.mute_from(target, state))
                .filter(|from| self.last_event.is_none_or(|at| *from > at))
                .min(),
            self.targets.iter().filter_map(|(target, state)| self.due(target, state, suspicious_from)).min(),
            // So that a stall of our own is known as one, whatever else there is to wait for.
            self.last_event.map(|at| at + self.timing.watch_udp_interval),
            self.streams_limit(),
        ];
        limits.into_iter().flatten().min()
    }

    /// Whether the server is to blame if nothing is heard from this one: where somebody else answers, silence is as
    /// well somebody else's.
    pub(super) fn is_accountable(&self, target: &ProbeTarget, state: &TargetState) -> bool {
        state.fruitless_probes == 0 || self.wanted.contains(target.address.ip())
    }

    pub(super) fn accountable(&self) -> impl Iterator<Item = &TargetState> {
        self.targets.iter().filter(|(target, state)| self.is_accountable(target, state)).map(|(_, state)| state)
    }

    /// When the one that was asked first and has not answered becomes suspect.
    pub(super) fn suspicious_from(&self) -> Option<Instant> {
        let asked = self.accountable().filter_map(|state| state.asked.map(|asked| asked.at)).min();
        asked.map(|at| at + self.timing.suspicion)
    }

    /// When to ask this one, unless it is being asked.
    pub(super) fn due(
        &self,
        target: &ProbeTarget,
        state: &TargetState,
        suspicious_from: Option<Instant>,
    ) -> Option<Instant> {
        if state.asked.is_some() {
            return None;
        }
        let in_suspicion = suspicious_from
            .filter(|_| self.is_accountable(target, state))
            .map(|from| from.max(state.last_heard + self.timing.watch_udp_interval));
        in_suspicion.into_iter().chain([state.due]).min()
    }

    /// How long after the end of a question the next one is asked.
    pub(super) fn interval(&self, target: &ProbeTarget, state: &TargetState) -> Duration {
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

    pub(super) fn watch(&mut self, now: Instant) {
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
        let streams_hang = self.streams_limit().is_some_and(|limit| now >= limit);
        if shortest.is_some_and(|shortest| shortest >= limit) || hangs_in_part || was_never_heard || streams_hang {
            return self.kill(Cause::Hang, now);
        }
        let asked = self.targets.iter().filter(|(_, state)| state.silent_since().is_some_and(is_silent));
        let unheard: Vec<ProbeTarget> = asked.map(|(target, _)| *target).collect();
        for target in unheard {
            self.conclude(target, ProbeResult::Silent, now);
        }
        self.report_obstacles(now);
        let lost = self.targets.iter().filter(|(target, state)| self.has_lost_proof(target, state, now));
        let lost: Interception = lost.map(|(target, _)| target.address.ip()).collect();
        let served = self.served();
        self.want(
            self.wanted.addresses().filter(|address| served.contains(*address) && !lost.contains(*address)).collect(),
        );
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

    /// From when on a target that has answered counts as mute, if the server answers others then.
    fn mute_from(&self, target: &ProbeTarget, state: &TargetState) -> Option<Instant> {
        let counts = target.transport == Transport::Udp && state.has_answered && !state.is_overrun;
        let since = state.silent_since().filter(|_| counts)?;
        // A server that hung and goes on answers one target first.
        Some(self.resumed_at.map_or(since, |resumed| since.max(resumed)) + self.timing.silence_while_others_answer)
    }

    /// The last answer of all.
    fn newest_answer(&self) -> Option<Instant> {
        self.targets.values().map(|state| state.last_answer).max()
    }

    /// Whether what this target has answered before proves nothing any longer: it has been long ago, somebody has
    /// answered otherwise since, or it has become mute while the server answers others. One that hangs as a whole is
    /// replaced instead, and the interception stays.
    fn has_lost_proof(&self, target: &ProbeTarget, state: &TargetState, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_mute = || {
            self.mute_from(target, state).is_some_and(|from| now >= from)
                && self.newest_answer().is_some_and(|newest| since(newest) <= self.timing.others_answer_within)
        };
        state.is_contradicted || since(state.last_answer) >= self.timing.silence_of_one || is_mute()
    }

    pub(super) fn probe_due_targets(&mut self, now: Instant) {
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
            // Where rules are wanted that cannot be had, nothing keeps a question from going to whoever kube-proxy
            // sends it to.
            let is_exposed = self.settled.is_none() && !state.has_answered;
            let is_single_packet = (state.fruitless_probes >= REPEATED_PROBES || is_exposed) && !is_intercepted;
            self.actions.push(Action::Probe { target, probe_id: self.last_probe_id, is_single_packet });
        }
    }

    /// Says of each address that has gone without a proof for a while, why.
    pub(super) fn report_obstacles(&mut self, now: Instant) {
        let proven = self.wanted.in_either(&self.proven(|_| 1));
        self.reported.retain(|address, _| !proven.contains(*address));
        for (target, state) in &self.targets {
            let address = target.address.ip().to_canonical();
            let is_refuted = self.wanted.contains(address) && self.has_lost_proof(target, state, now);
            let is_unproven = now.saturating_duration_since(state.last_answer) >= self.timing.silence_of_one;
            if (is_refuted || is_unproven) && !self.reported.contains_key(&address) {
                self.reported.insert(address, state.obstacle);
                self.actions.push(Action::ReportObstacle { address, obstacle: state.obstacle });
            }
        }
    }

    /// Addresses that have targets.
    pub(super) fn served(&self) -> Interception {
        self.targets.keys().map(|target| target.address.ip()).collect()
    }

    /// Addresses of which every target has answered so often without a miss.
    pub(super) fn proven(&self, needed: impl Fn(IpAddr) -> u32) -> Interception {
        let lacking = self.targets.iter().filter(|(target, state)| state.proofs < needed(target.address.ip()));
        let lacking: Interception = lacking.map(|(target, _)| target.address.ip()).collect();
        self.served().addresses().filter(|address| !lacking.contains(*address)).collect()
    }

    pub(super) fn proofs_needed(&self, address: IpAddr) -> u32 {
        let is_later = self.withdrawn.contains(&address.to_canonical());
        if is_later { self.timing.later_proofs } else { self.timing.first_proofs }
    }

    /// Every target has answered, but for those where it is not the server's fault.
    pub(super) fn answers_where_it_can(&self) -> bool {
        let mut states = self.targets.values();
        (states.clone().any(|state| state.proofs > 0) || self.serves_streams_alone())
            && states.all(|state| state.proofs > 0 || state.fruitless_probes > 0)
    }

    pub(super) fn asked(&mut self, target: ProbeTarget, probe_id: u64) -> Option<&mut TargetState> {
        self.targets.get_mut(&target).filter(|state| state.asked.is_some_and(|asked| asked.probe_id == probe_id))
    }

    pub(super) fn on_probe_result(&mut self, target: ProbeTarget, probe_id: u64, result: ProbeResult, now: Instant) {
        if self.asked(target, probe_id).is_some() {
            self.conclude(target, result, now);
        }
    }

    /// The question to `target` has come to this.
    pub(super) fn conclude(&mut self, target: ProbeTarget, result: ProbeResult, now: Instant) {
        let was_silent =
            self.newest_answer().is_none_or(|at| now.saturating_duration_since(at) > self.timing.others_answer_within);
        if result == ProbeResult::Answered && was_silent {
            self.resumed_at = Some(now);
        }
        let Some(state) = self.targets.get_mut(&target) else { return };
        state.asked = None;
        state.is_overrun = false;
        state.is_contradicted = result == ProbeResult::Foreign;
        state.last_heard = now;
        let obstacle = match result {
            ProbeResult::Answered => {
                state.last_answer = now;
                state.proofs = state.proofs.saturating_add(1);
                state.has_answered = true;
                None
            }
            ProbeResult::Foreign | ProbeResult::OtherGeneration => Some(Obstacle::Foreign),
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
    pub(super) fn probe_soon_again(&mut self, now: Instant) {
        for state in self.targets.values_mut().filter(|state| state.fruitless_probes > 0) {
            state.due = state.due.min(now.max(state.last_heard + self.timing.change_interval));
        }
    }
}
