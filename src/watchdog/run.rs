//! The loop around the state machine: what happens goes in, and what comes out is done. Holds no decisions of its own.

use super::channel::{Channel, ChannelError};
use super::child::{ServerEvent, ServerProcess, SpawnHandle};
use super::control::{Instruction, Report};
use super::handover::{Handover, HandoverEvent, at};
use super::metrics::{HTTP_LISTEN, Metrics};
use super::node_thread::{Interceptor, NodeCommand, NodeOutcome, NodeThread};
use super::probe::{Complaints, ProbeOutcome, Prober};
use super::state::{Action, Event, Exit, Obstacle, ProbeResult, ProbeTarget, StateMachine, Timing};
use crate::chain::{Endpoint, HttpAnswer, LineSink, Transport};
use crate::node::Interception;
use crate::server::{Http, Retries, Sockets};
use crate::threads::ThreadError;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// A question that is not answered within this time counts as missed.
const PROBE_DEADLINE: Duration = Duration::from_millis(250);

/// How long a successor waits for what the caches hold, at most.
const CACHE_PATIENCE: Duration = Duration::from_millis(500);

/// How to guard.
pub struct WatchdogSettings {
    /// What starts servers.
    pub spawner: SpawnHandle,
    /// Gives a server the configuration's files, at this end of a socket, until it is gone.
    pub files: ServeFiles,
    pub timing: Timing,
    /// Leave link and rules in place at the end (`-skipteardown`).
    pub keep_node: bool,
    /// What the probes' packets are marked with, if there are rules that look for it; needs NET_ADMIN.
    pub probe_mark: Option<u32>,
    /// Addresses of the node whose queries are to be intercepted (`-localip`).
    pub addresses: Vec<IpAddr>,
    /// Where a predecessor may be found, and a successor finds us (`--handover`).
    pub handover: Option<PathBuf>,
    /// Where the watchdog's metrics are served (`-metrics-listen-address`).
    pub metrics_address: Option<SocketAddr>,
}

/// What serves files to a server, in the present runtime.
pub type ServeFiles = Box<dyn Fn(Channel) + Send>;

/// Why the watchdog could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    #[error("cannot start the thread that writes log lines: {0}")]
    Lines(io::Error),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// Guards until told to stop, or until the first server refuses its configuration. Returns the exit status.
///
/// `interceptor` sets the node up, on a thread of its own. Nothing here waits for files, programs or whoever reads the log.
///
/// # Errors
/// What is needed before anything can be guarded is not to be had.
pub async fn run(settings: WatchdogSettings, interceptor: impl Interceptor + Send + 'static) -> Result<u8, RunError> {
    let mut signals = WatchdogSignals::catch().map_err(RunError::Signals)?;
    let mut node = NodeThread::start(interceptor)?;
    let machine = StateMachine::new(settings.timing, settings.keep_node, Instant::now());
    let (report_probe, mut probe_updates) = mpsc::unbounded_channel();
    let metrics = Metrics::new(&settings.addresses);
    LineSink::stdout().map_err(RunError::Lines)?.count_drops(metrics.registry());
    let mut metrics_server = MetricsServer::new(settings.metrics_address, &metrics);
    metrics_server.listen(&metrics);
    let mut watchdog = Watchdog {
        spawner: settings.spawner,
        files: settings.files,
        spawning: None,
        probe_mark: settings.probe_mark,
        addresses: settings.addresses,
        lacks_rules: false,
        machine,
        metrics,
        server: None,
        generation: 0,
        has_started: false,
        settled: Interception::default(),
        sockets: Sockets::default(),
        handover: Handover::default(),
        handover_path: settings.handover,
        cache: None,
        owner: None,
        offer_by: None,
        report_probe,
        probes: HashMap::new(),
        complaints: Complaints::default(),
        pending_exits: VecDeque::new(),
        status: None,
    };
    watchdog.take_over();
    watchdog.handle(Event::SocketsShared { is_shared: watchdog.handover.is_shared() }, &node);
    loop {
        while let Some(exit) = watchdog.pending_exits.pop_front() {
            watchdog.handle(Event::Exited(exit), &node);
        }
        if let Some(status) = watchdog.status {
            watchdog.handover.closed().await;
            return Ok(status);
        }
        let (wake, offer_by, listen_due) = (watchdog.machine.wake_at(), watchdog.offer_by, metrics_server.retries.due());
        tokio::select! {
            started = started(&mut watchdog.spawning) => watchdog.on_started(started),
            event = next_server_event(&mut watchdog.server) => watchdog.on_server_event(event, &node, &mut metrics_server),
            Some(update) = probe_updates.recv() => watchdog.on_probe_update(update, &node),
            outcome = node.outcome() => match outcome {
                Some(outcome) => watchdog.on_node_outcome(outcome, &node),
                None => {
                    // With this process the kernel takes the rules away, which nobody else could.
                    tracing::error!("watchdog: the thread that sets the node up has ended before its time: please report this");
                    watchdog.status = Some(1);
                }
            },
            event = signals.next() => watchdog.handle(event, &node),
            event = watchdog.handover.next() => watchdog.on_handover_event(event, &node),
            () = at(offer_by) => watchdog.offer(&node),
            () = at(wake) => watchdog.handle(Event::Tick, &node),
            () = at(listen_due) => metrics_server.listen(&watchdog.metrics),
        }
    }
}

/// The server that is being started; never where none is.
async fn started(spawning: &mut Option<oneshot::Receiver<io::Result<ServerProcess>>>) -> io::Result<ServerProcess> {
    match spawning {
        Some(server) => server.await.unwrap_or_else(|_ended| Err(io::Error::other("its thread has ended: please report this"))),
        None => pending().await,
    }
}

async fn next_server_event(server: &mut Option<ServerProcess>) -> ServerEvent {
    match server {
        Some(server) => server.next_event().await,
        None => pending().await,
    }
}

/// What a probe's task tells: that it is late, or its end.
struct ProbeUpdate {
    target: ProbeTarget,
    probe_id: u64,
    /// With how long it took; `None` while it goes on.
    outcome: Option<(ProbeOutcome, Duration)>,
}

/// Everything that is guarded, and what it takes.
struct Watchdog {
    spawner: SpawnHandle,
    files: ServeFiles,
    /// A server that is being started.
    spawning: Option<oneshot::Receiver<io::Result<ServerProcess>>>,
    probe_mark: Option<u32>,
    addresses: Vec<IpAddr>,
    /// What was last wanted of the node could not be done.
    lacks_rules: bool,
    machine: StateMachine,
    metrics: Metrics,
    server: Option<ServerProcess>,
    generation: u64,
    has_started: bool,
    /// The interception that is in place.
    settled: Interception,
    /// Listening sockets, kept from one server to the next.
    sockets: Sockets,
    handover: Handover,
    handover_path: Option<PathBuf>,
    /// What the caches of a server that is gone held, for the next one.
    cache: Option<OwnedFd>,
    /// What the rules last as long as ([`Interceptor::take_owner`]).
    owner: Option<OwnedFd>,
    /// A successor has asked, and is offered everything by then at the latest.
    offer_by: Option<Instant>,
    report_probe: mpsc::UnboundedSender<ProbeUpdate>,
    probes: HashMap<ProbeTarget, AbortHandle>,
    complaints: Complaints,
    /// Servers that ended before they began.
    pending_exits: VecDeque<Exit>,
    status: Option<u8>,
}

impl Watchdog {
    fn handle(&mut self, event: Event<'_>, node: &NodeThread) {
        let now = Instant::now();
        for action in self.machine.handle(event, now) {
            self.perform(action, node);
        }
        self.metrics.set_without_service(self.machine.without_service(now));
    }

    fn perform(&mut self, action: Action, node: &NodeThread) {
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
            Action::CancelProbes => self.probes.drain().for_each(|(_, probe)| probe.abort()),
            Action::Intercept(interception) => {
                tracing::debug!("watchdog: queries for {interception} are to come here: there the server has proved itself");
                node.command(NodeCommand::Intercept(interception));
            }
            Action::ReportObstacle { address, obstacle } => {
                let why = match obstacle {
                    Obstacle::Foreign => "somebody else answers the watchdog's questions there",
                    Obstacle::Misrouted => "the watchdog's questions do not come to the server",
                    Obstacle::Silence => "the watchdog's questions are not answered there",
                };
                tracing::warn!("watchdog: {address} is not intercepted: {why}; nodelocaldns doctor says more");
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
            }
            Action::Teardown => node.command(NodeCommand::TearDown),
            Action::Exit(status) => self.status = Some(status),
        }
    }

    fn spawn(&mut self) {
        // Drawn anew, since another pod's server may listen on the same address.
        self.generation = rand::random();
        self.spawning = Some(self.spawner.spawn());
    }

    fn on_started(&mut self, started: io::Result<ServerProcess>) {
        self.spawning = None;
        let hello = Instruction::Hello { generation: self.generation, is_first: !self.has_started };
        match started {
            Ok(server) => {
                self.has_started = true;
                let cache = self.cache.take();
                let greet = || -> Result<(), ChannelError> {
                    let (here, there) = Channel::pair()?;
                    let there = there.into_fd();
                    let beside: Vec<BorrowedFd<'_>> = [&there].into_iter().chain(&cache).map(AsFd::as_fd).collect();
                    (self.files)(here);
                    server.tell(&hello, &beside)
                };
                if let Err(error) = greet() {
                    tracing::error!("watchdog: a new server cannot be spoken to: {error}");
                }
                self.server = Some(server);
                self.pass_owner();
            }
            Err(error) => {
                tracing::error!(
                    "watchdog: cannot start the server: {error}; processes, memory or open files may be at their limit"
                );
                self.pending_exits.push_back(Exit::NotStarted);
            }
        }
    }

    /// Has the server keep the rules until it has ended too. A reply that it sends after they are gone is tracked, and keeps its client's port on this
    /// node, where nobody answers any longer.
    fn pass_owner(&self) {
        let (Some(server), Some(owner)) = (&self.server, &self.owner) else { return };
        if let Err(error) = server.tell(&Instruction::Hold, &[owner.as_fd()]) {
            tracing::warn!("watchdog: the server does not keep the rules: {error}");
        }
    }

    fn tell(&self, instruction: &Instruction) {
        if let Some(Err(error)) = self.server.as_ref().map(|server| server.tell(instruction, &[])) {
            tracing::warn!("watchdog: the server was not told: {error}");
        }
    }

    fn probe(&mut self, target: ProbeTarget, probe_id: u64, is_single_packet: bool) {
        let (generation, mark, lacks_rules) = (self.generation, self.probe_mark, self.lacks_rules);
        let prober = Prober { generation, mark, is_single_packet, lacks_rules };
        let report_probe = self.report_probe.clone();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut asking = std::pin::pin!(prober.ask(target));
            // Fails only when the watchdog ends.
            let tell = |outcome| _ = report_probe.send(ProbeUpdate { target, probe_id, outcome });
            let outcome = match timeout(PROBE_DEADLINE, &mut asking).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    tell(None);
                    asking.await
                }
            };
            tell(Some((outcome, started.elapsed())));
        });
        if let Some(before) = self.probes.insert(target, task.abort_handle()) {
            before.abort();
        }
    }

    fn on_probe_update(&mut self, update: ProbeUpdate, node: &NodeThread) {
        let ProbeUpdate { target, probe_id, outcome } = update;
        match outcome {
            None => {
                self.metrics.count_failure(target.transport);
                self.handle(Event::ProbeLate { target, probe_id }, node);
            }
            Some((outcome, elapsed)) => {
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

    fn on_node_outcome(&mut self, outcome: NodeOutcome, node: &NodeThread) {
        for error in &outcome.errors {
            self.metrics.count_setup_error(error.errortype);
        }
        if outcome.owner.is_some() {
            self.owner = outcome.owner;
            self.pass_owner();
        }
        let is_done = outcome.is_done;
        self.lacks_rules = !is_done;
        let event = match &outcome.command {
            NodeCommand::TearDown => Event::TornDown,
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
                    self.settled = in_place;
                }
                Event::NodeSettled { interception, is_done }
            }
        };
        self.handle(event, node);
    }

    fn on_server_event(&mut self, event: ServerEvent, node: &NodeThread, metrics_server: &mut MetricsServer) {
        match event {
            ServerEvent::Report(Report::Want { dns, workers }) => self.pass_sockets(&dns, workers),
            // It has no sockets for so many.
            ServerEvent::Report(Report::Serving { dns, .. }) if dns.len() > MOST_ADDRESSES => {
                tracing::error!("watchdog: the server says that it serves {} addresses, more than it was given", dns.len());
                self.handle(Event::ProtocolViolated, node);
            }
            ServerEvent::Report(Report::Serving { dns, http, drain_ms }) => {
                self.sockets.retain_dns(&dns);
                metrics_server.yield_address_to(&http);
                let transports = [Transport::Udp, Transport::Tcp];
                let addresses: BTreeSet<SocketAddr> =
                    dns.iter().flat_map(|listens| reached(*listens, self.sockets.reachable(*listens), &self.addresses)).collect();
                let targets: Vec<ProbeTarget> = addresses
                    .into_iter()
                    .flat_map(|address| transports.map(|transport| ProbeTarget { address, transport }))
                    .collect();
                self.complaints.retain(&targets);
                self.handle(Event::Serving { targets: &targets, drain: Duration::from_millis(drain_ms.min(MAX_DRAIN_MS)) }, node);
            }
            ServerEvent::Report(Report::Upstreams { addresses }) => node.spare(addresses),
            ServerEvent::Report(Report::Failed { message }) => {
                let first = message.lines().next().unwrap_or_default();
                tracing::debug!("watchdog: the server refuses its configuration: {first}");
                self.handle(Event::ConfigurationRefused, node);
            }
            ServerEvent::Report(Report::SetupError { errortype }) => self.metrics.count_setup_error(&errortype),
            ServerEvent::Report(Report::Cache) => {
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
                match exit {
                    Exit::Status(status) => tracing::debug!("watchdog: the server ended with status {status}"),
                    Exit::Signal(signal) => tracing::info!("watchdog: the server was ended by signal {signal}"),
                    Exit::NotStarted => {}
                }
                self.handle(Event::Exited(exit), node);
            }
        }
    }

    /// Begins with what a predecessor has, if there is one.
    fn take_over(&mut self) {
        let Some(path) = self.handover_path.as_deref() else { return };
        match self.handover.take_over(path) {
            Ok(None) => {}
            Ok(Some(inherited)) => {
                self.sockets = inherited.sockets;
                self.cache = inherited.cache;
                let addresses: Vec<String> = self.sockets.dns_addresses().map(|address| address.to_string()).collect();
                tracing::info!("watchdog: the sockets of {} come from a predecessor", addresses.join(", "));
            }
            Err(error) => tracing::warn!("watchdog: nothing is taken over at {}, this begins afresh: {error}", path.display()),
        }
    }

    fn on_handover_event(&mut self, event: HandoverEvent, node: &NodeThread) {
        match event {
            HandoverEvent::TakeoverRequested => {
                self.offer_by = Some(Instant::now() + CACHE_PATIENCE);
                if self.server.is_some() {
                    self.tell(&Instruction::ExportCache);
                } else {
                    self.offer(node);
                }
            }
            HandoverEvent::SuccessorProven => {
                tracing::info!("watchdog: a successor has taken over; this one stands by until it is told to end");
                self.handle(Event::SuccessorServes, node);
            }
            HandoverEvent::SuccessorGone => {
                self.offer_by = None;
                self.handle(Event::SocketsShared { is_shared: self.handover.is_shared() }, node);
                self.handle(Event::SuccessorGone, node);
            }
            HandoverEvent::PredecessorGone => self.handle(Event::SocketsShared { is_shared: self.handover.is_shared() }, node),
        }
    }

    /// Gives the successor that asked what there is.
    fn offer(&mut self, node: &NodeThread) {
        self.offer_by = None;
        self.sockets.drop_stopped();
        let cache = self.cache.take();
        if self.handover.offer(&self.sockets, cache.as_ref().map(AsFd::as_fd)) {
            tracing::info!("watchdog: a successor has been given the sockets");
            self.handle(Event::SocketsShared { is_shared: true }, node);
        }
    }

    /// Opens what is not held, and passes copies of all that is wanted.
    fn pass_sockets(&mut self, dns: &[SocketAddr], workers: usize) {
        self.sockets.drop_stopped();
        let workers = workers.clamp(1, MAX_WORKERS);
        let Some(server) = &self.server else { return };
        let count = address_count(&self.sockets, dns);
        if count > MOST_ADDRESSES {
            let errors = vec![format!("DNS would be served at {count} addresses, more than {MOST_ADDRESSES}: serve fewer")];
            self.tell(&Instruction::Refused { errors });
            return;
        }
        let sent = match Sockets::bind(dns.iter().copied(), workers, &self.sockets) {
            Ok(wanted) => {
                let sent = server.pass(&wanted);
                self.sockets.join(wanted);
                sent
            }
            Err(errors) => {
                let errors = errors.iter().map(ToString::to_string).collect();
                server.tell(&Instruction::Refused { errors }, &[])
            }
        };
        if let Err(error) = sent {
            tracing::error!("watchdog: sockets could not be passed to the server: {error}");
        }
    }
}

/// Where the server is asked that listens at `listens` and is reached by programs on this node at `reachable`: with the unspecified address it
/// listens at each of the `intercepted` ones too, and each of them is to be proven.
fn reached(listens: SocketAddr, reachable: SocketAddr, intercepted: &[IpAddr]) -> Vec<SocketAddr> {
    let is_meant =
        |ip: &IpAddr| listens.ip().is_unspecified() && (ip.is_ipv4() == listens.is_ipv4() || ip.is_ipv4() && reachable.is_ipv4());
    let intercepted = intercepted.iter().map(IpAddr::to_canonical).filter(|ip| !ip.is_unspecified());
    let meant = intercepted.filter(is_meant).map(|ip| SocketAddr::new(ip, listens.port()));
    [reachable].into_iter().chain(meant).collect()
}

/// Far beyond any grace period.
const MAX_DRAIN_MS: u64 = 24 * 60 * 60 * 1000;

/// More than any machine has processors.
const MAX_WORKERS: usize = 4096;

/// Addresses at which sockets are held for a server, those of a configuration and of the one that it replaces: far more than any node has.
const MOST_ADDRESSES: usize = 512;

/// At how many addresses there are sockets once those of `wanted` are held too.
fn address_count(held: &Sockets, wanted: &[SocketAddr]) -> usize {
    held.dns_addresses().chain(wanted.iter().copied()).collect::<BTreeSet<_>>().len()
}

/// The watchdog's metrics over HTTP.
struct MetricsServer {
    http: Http,
    address: Option<SocketAddr>,
    retries: Retries,
}

impl MetricsServer {
    /// Nothing is listened on yet.
    fn new(address: Option<SocketAddr>, metrics: &Metrics) -> Self {
        let registry = metrics.registry().clone();
        let mut http = Http::new(Handle::current(), &registry);
        let answer: Arc<dyn Fn() -> HttpAnswer + Send + Sync> =
            Arc::new(move || HttpAnswer { status: 200, content_type: crate::metrics::CONTENT_TYPE, body: registry.encode() });
        let endpoint = |address| Endpoint { address, path: "/metrics", answer: answer.clone() };
        http.serve(&address.map(endpoint).into_iter().collect::<Vec<_>>());
        Self { http, address, retries: Retries::default() }
    }

    /// Serves them if it can, else later: DNS goes before metrics.
    fn listen(&mut self, metrics: &Metrics) {
        let is_retry = self.retries.due().is_some();
        let errors = self.http.listen();
        errors.iter().for_each(|_| metrics.count_setup_error(HTTP_LISTEN));
        for error in self.retries.take(&errors, Instant::now()) {
            tracing::error!("watchdog: its metrics are not served: {error} (told once; tried again at least every minute)");
        }
        if is_retry && errors.is_empty() {
            tracing::info!("watchdog: its metrics are served after all");
        }
    }

    /// Leaves the address to the server if its Corefile names the same: half of the scrapes would get the one, half the other.
    fn yield_address_to(&mut self, http: &[SocketAddr]) {
        if let Some(address) = self.address.take_if(|own| http.iter().any(|other| is_shared(*own, *other))) {
            tracing::warn!(
                "watchdog: the Corefile serves HTTP on {address}, so the watchdog's own metrics are not served; choose another \
                 -metrics-listen-address"
            );
            self.http.serve(&[]);
            self.retries = Retries::default();
        }
    }
}

/// Whether clients of the one listener may reach the other instead: both have the same address, or both all, of whichever family.
fn is_shared(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (ip == other_ip || ip.is_unspecified() && other_ip.is_unspecified())
}

/// The signals that mean something to us.
struct WatchdogSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
    hangup: Signal,
}

impl WatchdogSignals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event<'static> {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.quit.recv() => Event::Stop,
            _ = self.reload.recv() => Event::Reload,
            _ = self.hangup.recv() => Event::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_ADDRESSES, address_count, is_shared, reached};
    use crate::server::Sockets;
    use std::net::{IpAddr, SocketAddr};

    #[test]
    fn a_server_is_passed_no_more_sockets_than_of_512_addresses_those_that_are_held_included() {
        let at = |port: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(port).unwrap()));
        let wanted: Vec<SocketAddr> = (0..MOST_ADDRESSES).map(|port| at(port + 1)).collect();
        assert_eq!(address_count(&Sockets::default(), &wanted), MOST_ADDRESSES);
        let twice = [&wanted[..], &wanted[..]].concat();
        assert_eq!(address_count(&Sockets::default(), &twice), MOST_ADDRESSES);
        let held = Sockets::bind([([127, 0, 0, 1], 0).into()], 1, &Sockets::default()).unwrap();
        assert_eq!(address_count(&held, &wanted), MOST_ADDRESSES + 1, "more than may be");
    }

    #[test]
    fn a_server_on_the_unspecified_address_is_asked_at_each_address_that_is_intercepted() {
        let intercepted: Vec<IpAddr> = ["10.96.0.10", "fd00::10"].map(|text| text.parse().unwrap()).to_vec();
        let reached = |listens: &str, reachable: &str| -> Vec<String> {
            let targets = reached(listens.parse().unwrap(), reachable.parse().unwrap(), &intercepted);
            targets.iter().map(ToString::to_string).collect()
        };
        assert_eq!(reached("10.96.0.10:53", "10.96.0.10:53"), ["10.96.0.10:53"]);
        assert_eq!(reached("0.0.0.0:53", "127.0.0.1:53"), ["127.0.0.1:53", "10.96.0.10:53"]);
        assert_eq!(reached("[::]:53", "127.0.0.1:53"), ["127.0.0.1:53", "10.96.0.10:53", "[fd00::10]:53"]);
        assert_eq!(reached("[::]:53", "[::1]:53"), ["[::1]:53", "[fd00::10]:53"], "of IPv6 alone");
    }

    #[test]
    fn all_addresses_of_one_family_are_shared_with_all_of_the_other() {
        let is_shared = |one: &str, other: &str| is_shared(one.parse().unwrap(), other.parse().unwrap());
        assert!(is_shared("0.0.0.0:9353", "[::]:9353"));
        assert!(is_shared("127.0.0.1:9353", "127.0.0.1:9353"));
        assert!(is_shared("[::ffff:127.0.0.1]:9353", "127.0.0.1:9353"));
        assert!(!is_shared("0.0.0.0:9353", "[::]:9253"));
        assert!(!is_shared("0.0.0.0:9353", "127.0.0.1:9353"), "the kernel prefers the one that names the address");
    }
}
