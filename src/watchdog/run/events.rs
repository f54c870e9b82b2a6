//! Takes events, and passes them to the state machine, the metrics and the log.

use super::metrics_server::MetricsServer;
use super::server_sockets::{self, MOST_ADDRESSES, reached};
use super::{PROBE_DEADLINE, ProbeProgress, ProbeUpdate, Watchdog};
use crate::admin;
use crate::chain::Transport;
use crate::node::Interception;
use crate::server::ListenAddresses;
use crate::watchdog::backlog;
use crate::watchdog::channel::{Channel, ChannelError};
use crate::watchdog::child::{ServerEvent, ServerProcess};
use crate::watchdog::control::{Instruction, ServerReport};
use crate::watchdog::node_thread::{NodeCommand, NodeOutcome, NodeThread};
use crate::watchdog::state::{Event, Exit, ProbeResult, ProbeTarget};
use crate::watchdog::status::NodeStatus;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Far beyond any grace period.
const MAX_DRAIN_MS: u64 = 24 * 60 * 60 * 1000;

impl Watchdog {
    pub(super) fn on_started(&mut self, started: io::Result<ServerProcess>) {
        self.spawning = None;
        let admin = started.is_ok().then(|| self.admin_socket()).flatten();
        let (generation, is_first) = (self.generation, !self.has_started);
        let hello = Instruction::Hello { generation, is_first, admin: admin.is_some() };
        match started {
            Ok(server) => {
                self.has_started = true;
                let cache = self.cache.take();
                let greet = || -> Result<(), ChannelError> {
                    let (here, there) = Channel::pair()?;
                    let there = there.into_fd();
                    let metrics = self.server_metrics.connect(&self.metrics)?;
                    let beside = [&there, &metrics].into_iter().chain(&admin).chain(&cache);
                    let beside: Vec<BorrowedFd<'_>> = beside.map(AsFd::as_fd).collect();
                    (self.files)(here);
                    server.tell(&hello, &beside)
                };
                if let Err(error) = greet() {
                    tracing::error!("watchdog: a new server cannot be spoken to: {error}");
                }
                self.server = Some(server);
                self.pass_owner();
                if let Some(level) = self.log_level {
                    self.tell(&Instruction::LogLevel { level });
                }
                if self.is_yielding {
                    self.tell(&Instruction::Yield { is_on: true });
                }
            }
            Err(error) => {
                tracing::error!(
                    "watchdog: cannot start the server: {error}; processes, memory or open files may be at their limit"
                );
                self.pending_exits.push_back(Exit::NotStarted);
            }
        }
    }

    /// A new one for each server, which alone keeps it: the name is gone with the server.
    fn admin_socket(&self) -> Option<OwnedFd> {
        let listening = admin::listen(self.admin_label.as_deref()?);
        let told = listening.inspect_err(|error| {
            tracing::warn!(
                "watchdog: there is no admin socket, so `nodelocaldns cache`, `queries` and `log-level` cannot ask this server: {error}"
            );
        });
        told.ok()
    }

    pub(super) fn on_probe_update(&mut self, update: ProbeUpdate, node: &NodeThread) {
        let ProbeUpdate { target, probe_id, progress } = update;
        match progress {
            ProbeProgress::Doubtful => _ = self.drops.insert(target, self.dropped_packets(target)),
            ProbeProgress::Late => {
                self.metrics.count_failure(target.transport);
                let before = self.drops.remove(&target).flatten();
                // Where the kernel does not tell, there may have been some.
                let is_overrun = before.is_none() || before != self.dropped_packets(target);
                self.handle(Event::ProbeLate { target, probe_id, is_overrun }, node);
            }
            ProbeProgress::Ended(outcome, elapsed) => {
                let result = outcome.result;
                if let Some(complaint) = self.complaints.take(target, outcome) {
                    tracing::warn!("watchdog: {complaint}");
                }
                match result {
                    ProbeResult::Answered => self.metrics.observe_probe(elapsed),
                    _ if elapsed < PROBE_DEADLINE => self.metrics.count_failure(target.transport),
                    // Counted when it was late.
                    _ => {}
                }
                self.handle(Event::ProbeEnded { target, probe_id, result }, node);
            }
        }
    }

    /// How many packets the kernel has dropped that came to the sockets of a target, or were for anybody on this
    /// machine, since a queue was full.
    fn dropped_packets(&self, target: ProbeTarget) -> Option<u64> {
        let of_sockets = self.sockets.dropped_packets(target.address, target.transport)?;
        Some(of_sockets.saturating_add(backlog::dropped_packets().ok()?))
    }

    pub(super) fn on_node_outcome(&mut self, outcome: NodeOutcome, node: &NodeThread) {
        for error in &outcome.errors {
            self.metrics.count_setup_error(error.errortype);
        }
        if outcome.owner.is_some() {
            self.owner = outcome.owner;
            self.pass_owner();
        }
        let is_done = outcome.is_done;
        self.lacks_rules = !is_done;
        let mut node_status = NodeStatus {
            in_place: self.settled.clone(),
            spared: outcome.spared.clone(),
            refused: outcome.refused.clone(),
            reach: outcome.reach,
            errors: outcome.errors.iter().map(ToString::to_string).collect(),
        };
        let event = match &outcome.command {
            NodeCommand::TearDown => {
                node_status.in_place = Interception::default();
                Event::TornDown
            }
            NodeCommand::Intercept(interception) => {
                if is_done {
                    let in_place = interception.without(&outcome.spared);
                    // A mark is for rules: without one there are none.
                    if self.probe_mark.is_some() {
                        self.metrics.set_interception(&in_place.without(&outcome.refused), outcome.reach);
                    }
                    if !in_place.is_within(&self.settled) {
                        self.tell(&Instruction::Intercepted);
                    }
                    node_status.in_place.clone_from(&in_place);
                    self.settled = in_place;
                }
                Event::NodeSettled { interception, is_done }
            }
        };
        self.watchdog_status.settle(node_status);
        self.handle(event, node);
    }

    pub(super) fn on_server_event(
        &mut self,
        event: ServerEvent,
        node: &NodeThread,
        metrics_server: &mut MetricsServer,
    ) {
        match event {
            ServerEvent::Report(ServerReport::Want { listen, workers }) => self.pass_sockets(&listen, workers),
            // It has no sockets for so many.
            ServerEvent::Report(ServerReport::Serving { listen, .. }) if listen.all().count() > MOST_ADDRESSES => {
                tracing::error!(
                    "watchdog: the server says that it serves {} addresses, more than it was given",
                    listen.all().count()
                );
                self.handle(Event::ProtocolViolated, node);
            }
            ServerEvent::Report(ServerReport::Serving { listen, http, drain_ms }) => {
                self.sockets.retain(&listen);
                metrics_server.yield_address_to(&http);
                let transports = [Transport::Udp, Transport::Tcp];
                // Not the streams, which may want a certificate: their thread says itself that it goes on.
                let addresses: BTreeSet<SocketAddr> = listen
                    .dns
                    .iter()
                    .flat_map(|listens| reached(*listens, self.sockets.reachable(*listens), &self.addresses))
                    .collect();
                let targets: Vec<ProbeTarget> = addresses
                    .into_iter()
                    .flat_map(|address| transports.map(|transport| ProbeTarget { address, transport }))
                    .collect();
                self.complaints.retain(&targets);
                let (has_streams, drain) =
                    (!listen.streams.is_empty(), Duration::from_millis(drain_ms.min(MAX_DRAIN_MS)));
                self.handle(Event::Serving { targets: &targets, has_streams, drain }, node);
            }
            ServerEvent::Report(ServerReport::StreamsAlive) => self.handle(Event::StreamsAlive, node),
            ServerEvent::Report(ServerReport::Upstreams { addresses }) => node.spare(addresses),
            ServerEvent::Report(ServerReport::Failed { message }) => {
                let first = message.lines().next().unwrap_or_default();
                tracing::debug!("watchdog: the server refuses its configuration: {first}");
                self.handle(Event::ConfigurationRefused, node);
            }
            ServerEvent::Report(ServerReport::LogLevel { level }) => {
                self.log_level = level;
                (self.set_log_level)(level);
            }
            ServerEvent::Report(ServerReport::SetupError { errortype }) => self.metrics.count_setup_error(&errortype),
            ServerEvent::Report(ServerReport::Cache) => {
                tracing::warn!("watchdog: the server says that its cache is beside a packet, where none is")
            }
            ServerEvent::Cache(cache) => {
                self.cache = Some(cache);
                if self.offer_by.is_some() {
                    self.offer(node);
                }
            }
            ServerEvent::ProtocolError(error) => {
                tracing::error!("watchdog: {error}");
                self.handle(Event::ProtocolViolated, node);
            }
            ServerEvent::Exited(exit) => {
                self.server = None;
                self.watchdog_status.note("ended", exit.to_string());
                match exit {
                    Exit::Status(status) => tracing::debug!("watchdog: the server ended with status {status}"),
                    Exit::Signal(signal) => tracing::info!("watchdog: the server was ended by signal {signal}"),
                    Exit::NotStarted => {}
                }
                self.handle(Event::Exited(exit), node);
            }
        }
    }

    /// Opens what is not held, and passes copies of all that is wanted.
    pub(super) fn pass_sockets(&mut self, wanted: &ListenAddresses, workers: usize) {
        let Some(server) = &self.server else { return };
        let sent = match server_sockets::open(&mut self.sockets, wanted, workers) {
            Ok(wanted) => {
                let sent = server.pass(&wanted);
                self.sockets.join(wanted);
                sent
            }
            Err(errors) => server.tell(&Instruction::Refused { errors }, &[]),
        };
        if let Err(error) = sent {
            tracing::error!("watchdog: sockets could not be passed to the server: {error}");
        }
    }
}
