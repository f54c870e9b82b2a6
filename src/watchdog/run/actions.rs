//! Carries out what the state machine decides.

use super::{PROBE_DEADLINE, PROBE_DOUBT, ProbeProgress, ProbeUpdate, RunningProbe, Watchdog};
use crate::plan::probe::ProbePath;
use crate::server::Sockets;
use crate::watchdog::control::Instruction;
use crate::watchdog::node_thread::{NodeCommand, NodeThread};
use crate::watchdog::probe::Prober;
use crate::watchdog::state::{Action, Exit, ProbeTarget};
use std::os::fd::AsFd;
use std::time::Instant;
use tokio::time::timeout;

impl Watchdog {
    pub(super) fn perform(&mut self, action: Action, node: &NodeThread) {
        match action {
            Action::Spawn => self.spawn(),
            Action::Kill => {
                if let Some(server) = &mut self.server {
                    server.kill();
                } else if self.spawning.take().is_some() {
                    tracing::error!(
                        "watchdog: a server could not be started in time; do memory or the program's file system hang?"
                    );
                    self.pending_exits.push_back(Exit::NotStarted);
                }
            }
            Action::Reload => self.tell(&Instruction::Reload),
            Action::Stop { leave } => {
                self.tell(&Instruction::Stop { leave });
                if !leave {
                    // Its own from now on, so that it can stop receiving.
                    self.sockets = Sockets::default();
                }
            }
            Action::Probe { target, probe_id, is_single_packet } => self.probe(target, probe_id, is_single_packet),
            Action::CancelProbes => {
                self.drops.clear();
                self.probes.drain().for_each(|(_, probe)| probe.task.abort());
            }
            Action::Intercept(interception) => {
                tracing::debug!("watchdog: intercepted from now on: {interception}");
                node.command(NodeCommand::Intercept(interception));
            }
            Action::ReportObstacle { address, obstacle } => {
                self.watchdog_status.note("obstacle", format!("{address}: {obstacle}"));
                tracing::warn!("watchdog: {address} is not intercepted: {obstacle}; nodelocaldns doctor says more");
            }
            Action::AnnounceProven => self.handover.announce(self.handover_path.as_deref()),
            Action::StopOffering => {
                self.handover.stop_offering();
                if self.offer_by.take().is_some() {
                    self.handover.refuse("we end ourselves");
                }
            }
            Action::CountRestart(cause) => {
                tracing::warn!("watchdog: the server is replaced; cause: {}", cause.label());
                self.metrics.count_restart(cause);
                self.watchdog_status.note("replaced", cause.label());
            }
            Action::Teardown => node.command(NodeCommand::TearDown),
            Action::Exit(status) => self.status = Some(status),
        }
    }

    pub(super) fn spawn(&mut self) {
        // Drawn anew, since another pod's server may listen on the same address.
        self.generation = rand::random();
        self.spawning = Some(self.spawner.spawn());
    }

    /// Has the server keep the rules until it has ended too. A reply that it sends after they are gone is tracked, and
    /// keeps its client's port on this node, where nobody answers any longer.
    pub(super) fn pass_owner(&self) {
        let (Some(server), Some(owner)) = (&self.server, &self.owner) else { return };
        if let Err(error) = server.tell(&Instruction::Hold, &[owner.as_fd()]) {
            tracing::warn!("watchdog: the server does not keep the rules: {error}");
        }
    }

    pub(super) fn tell(&self, instruction: &Instruction) {
        if let Some(Err(error)) = self.server.as_ref().map(|server| server.tell(instruction, &[])) {
            tracing::warn!("watchdog: the server was not told: {error}");
        }
    }

    pub(super) fn probe(&mut self, target: ProbeTarget, probe_id: u64, is_single_packet: bool) {
        let (generation, mark, lacks_rules) = (self.generation, self.probe_mark, self.lacks_rules);
        // One after the other, so that neither hangs for long unseen.
        let path = self.probes.get(&target).map_or(ProbePath::Fast, |probe| probe.path.other());
        let prober = Prober { generation, path, mark, is_single_packet, lacks_rules };
        let report_probe = self.report_probe.clone();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut asking = std::pin::pin!(prober.ask(target));
            // Fails only when the watchdog ends.
            let tell = |progress| _ = report_probe.send(ProbeUpdate { target, probe_id, progress });
            let mut outcome = None;
            for (until, progress) in [(PROBE_DOUBT, ProbeProgress::Doubtful), (PROBE_DEADLINE, ProbeProgress::Late)] {
                outcome = timeout(until.saturating_sub(started.elapsed()), &mut asking).await.ok();
                if outcome.is_some() {
                    break;
                }
                tell(progress);
            }
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => asking.await,
            };
            tell(ProbeProgress::Ended(outcome, started.elapsed()));
        });
        let probe = RunningProbe { task: task.abort_handle(), path };
        if let Some(before) = self.probes.insert(target, probe) {
            before.task.abort();
        }
    }
}
