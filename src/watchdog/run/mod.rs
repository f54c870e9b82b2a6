//! The loop around the state machine. It tells the machine what happens ([`events`], [`handing_over`]) and does what
//! the machine decides ([`actions`]). It decides nothing itself.

mod actions;
mod events;
mod handing_over;
mod metrics_server;
mod server_sockets;
mod signals;

pub(crate) use self::metrics_server::StatusPage;
use self::metrics_server::{MetricsServer, ServerMetrics};
use self::signals::WatchdogSignals;
use super::channel::Channel;
use super::child::{ServerEvent, ServerProcess, SpawnHandle};
use super::handover::{Handover, at};
use super::metrics::WatchdogMetrics;
use super::node_thread::{Interceptor, NodeThread};
use super::probe::{Complaints, ProbeOutcome};
use super::state::{Event, Exit, ProbeTarget, StateMachine, Timing};
use super::status::WatchdogStatus;
use crate::chain::{Level, LineSink};
use crate::node::Interception;
use crate::plan::probe::ProbePath;
use crate::server::Sockets;
use crate::threads::ThreadError;
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// A question that is not answered within this time counts as missed.
const PROBE_DEADLINE: Duration = Duration::from_millis(250);

/// From here on it is looked at whether packets are dropped: the first packet of a question has been in vain, and of
/// two more it will be known by [`PROBE_DEADLINE`].
const PROBE_DOUBT: Duration = Duration::from_millis(100);

/// How to guard.
pub(crate) struct WatchdogSettings {
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
    /// What else is served there.
    pub status_page: StatusPage,
    /// What each server's admin socket is called; `None`: it has none.
    pub admin_label: Option<String>,
    /// Has this process log lines of a level, and those above; `None`: as it does by itself.
    pub set_log_level: SetLogLevel,
}

/// Sets the level of the watchdog's log.
pub(crate) type SetLogLevel = Box<dyn Fn(Option<Level>) + Send>;

/// What serves files to a server, in the present runtime.
pub(crate) type ServeFiles = Box<dyn Fn(Channel) + Send>;

/// Why the watchdog could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    #[error("cannot start the thread that writes log lines: {0}")]
    Lines(io::Error),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// Guards until told to stop, or until the first server refuses its configuration. Returns the exit status.
///
/// `interceptor` sets the node up, on a thread of its own. Nothing here waits for files, programs or whoever reads the
/// log.
///
/// # Errors
/// What is needed before anything can be guarded is not to be had.
pub(crate) async fn run(
    settings: WatchdogSettings,
    interceptor: impl Interceptor + Send + 'static,
) -> Result<u8, RunError> {
    let mut signals = WatchdogSignals::catch().map_err(RunError::Signals)?;
    let mut node = NodeThread::start(interceptor)?;
    let machine = StateMachine::new(settings.timing, settings.keep_node, Instant::now());
    let (report_probe, mut probe_updates) = mpsc::unbounded_channel();
    let metrics = WatchdogMetrics::new(&settings.addresses, settings.probe_mark.is_some());
    LineSink::stdout().map_err(RunError::Lines)?.count_drops(metrics.registry());
    let server_metrics = ServerMetrics::default();
    let status = WatchdogStatus::new(&settings.addresses, settings.probe_mark.is_some());
    let ask_status = server_metrics.as_ask_status(status.clone());
    let mut metrics_server = MetricsServer::new(
        settings.metrics_address,
        settings.status_page,
        &metrics,
        server_metrics.as_ask(),
        ask_status,
    );
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
        server_metrics,
        watchdog_status: status,
        server: None,
        generation: 0,
        has_started: false,
        settled: Interception::default(),
        sockets: Sockets::default(),
        handover: Handover::default(),
        handover_path: settings.handover,
        cache: None,
        owner: None,
        admin_label: settings.admin_label,
        set_log_level: settings.set_log_level,
        log_level: None,
        offer_by: None,
        is_yielding: false,
        report_probe,
        probes: HashMap::new(),
        drops: HashMap::new(),
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
        let (wake, offer_by, listen_due) = (watchdog.machine.wake_at(), watchdog.offer_by, metrics_server.listen_due());
        tokio::select! {
            started = started(&mut watchdog.spawning) => watchdog.on_started(started),
            event = next_server_event(&mut watchdog.server) => {
                watchdog.on_server_event(event, &node, &mut metrics_server);
            }
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
        Some(server) => {
            server.await.unwrap_or_else(|_ended| Err(io::Error::other("its thread has ended: please report this")))
        }
        None => pending().await,
    }
}

async fn next_server_event(server: &mut Option<ServerProcess>) -> ServerEvent {
    match server {
        Some(server) => server.next_event().await,
        None => pending().await,
    }
}

/// A probe that was sent.
struct RunningProbe {
    task: AbortHandle,
    path: ProbePath,
}

/// What a probe's task tells.
struct ProbeUpdate {
    target: ProbeTarget,
    probe_id: u64,
    progress: ProbeProgress,
}

/// How far a probe has come.
enum ProbeProgress {
    /// [`PROBE_DOUBT`] is over.
    Doubtful,
    /// [`PROBE_DEADLINE`] is over.
    Late,
    /// With how long it took.
    Ended(ProbeOutcome, Duration),
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
    metrics: WatchdogMetrics,
    server_metrics: ServerMetrics,
    watchdog_status: WatchdogStatus,
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
    admin_label: Option<String>,
    set_log_level: SetLogLevel,
    /// What a user wants logged.
    log_level: Option<Level>,
    /// A successor has asked, and is offered everything by then at the latest.
    offer_by: Option<Instant>,
    /// A successor has been given the sockets, and reads them.
    is_yielding: bool,
    report_probe: mpsc::UnboundedSender<ProbeUpdate>,
    /// The last of each target.
    probes: HashMap<ProbeTarget, RunningProbe>,
    /// How many packets had been dropped when a probe became doubtful.
    drops: HashMap<ProbeTarget, Option<u64>>,
    complaints: Complaints,
    /// Servers that ended before they began.
    pending_exits: VecDeque<Exit>,
    status: Option<u8>,
}

impl Watchdog {
    fn handle(&mut self, event: Event<'_>, node: &NodeThread) {
        let now = Instant::now();
        let actions = self.machine.handle(event, now);
        self.watchdog_status.observe(&self.machine, now);
        for action in actions {
            self.perform(action, node);
        }
        self.metrics.set_without_service(self.machine.without_service(now));
    }
}
