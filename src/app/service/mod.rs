//! The running service: the configuration that serves, and its replacement by a changed one without a lost query.
//!
//! [`mod@start`] makes it of a configuration. [`check`] looks at the files, [`swap`] puts a changed configuration in
//! the place of the one that serves, and [`stop`] ends it.

mod check;
mod start;
mod stop;
mod swap;

use super::configuration_files::{BackgroundWork, CheckedFiles, ConfigurationFiles, WrittenFiles};
use super::files;
use super::load::LoadedCorefile;
use super::log::Verbosity;
use super::served_record::ServedRecord;
use crate::admin::{AdminCommand, AdminContext, Commands, LogLevelRequest};
use crate::chain::{Level, LineSink, MemoryBudget, ProcessContext};
use crate::directives::prometheus::ProcessMetrics;
use crate::directives::reload::{ChangeDetector, ReloadMetrics};
use crate::kube_dns::render::Rendered;
use crate::kube_dns::watch::FileWatch;
use crate::plan::Plan;
use crate::query_stats::QueryStats;
use crate::server::{Capacity, Limits, Retries, Server};
use crate::watchdog::ControlClient;
use std::convert::identity;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long SIGTERM may take, lameduck aside: what was received is answered meanwhile.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What a service is started with.
pub(super) struct ServiceOptions {
    pub default_port: u16,
    pub workers: usize,
    /// Octets all caches together may take.
    pub cache_memory: usize,
    /// What clients may take.
    pub limits: Limits,
    pub quiet: bool,
    /// Who reads the configuration.
    pub files: Arc<files::FileClient>,
    /// Where the sockets come from.
    pub watchdog: Arc<ControlClient>,
}

/// Why a service stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The watchdog says so, and has told the node.
    Shutdown,
    /// The watchdog says so: another server reads the same sockets already.
    HandedOver,
    /// Somebody else says so: another server will read on where this one stops.
    Restart,
}

/// What it is time for.
pub(super) enum ServiceEvent {
    /// To look at the files: something watched has changed, or nobody looked for a while.
    CheckFiles,
    /// To take what the look has found.
    FilesChecked(Box<io::Result<(ConfigurationFiles, CheckedFiles)>>),
    /// To take what has come of writing and watching.
    FilesWritten(io::Result<WrittenFiles>),
    /// To try again to serve the Corefile that could not be served.
    RetrySwap,
    /// To try again to listen where HTTP is to be served.
    RetryHttp,
}

/// A good Corefile, and what it was rendered from if it was.
struct PendingCorefile {
    loaded: LoadedCorefile,
    rendered: Option<Rendered>,
}

/// What is configured and does not serve.
#[derive(Clone, Copy, Default)]
struct RefusedParts {
    /// What was rendered last could not be served.
    rendered: bool,
    /// The Corefile as it was read last could not be served.
    read: bool,
    /// What is configured is bad: the Corefile as it stands, or, at the start, whatever was to be served.
    bad: bool,
}

impl RefusedParts {
    /// Something has been served, or could not be.
    fn set(&mut self, is_rendered: bool, is_refused: bool) {
        match (is_rendered, is_refused) {
            // It goes before whatever stands where it is written.
            (true, false) => *self = Self::default(),
            (true, true) => self.rendered = true,
            (false, _) => self.read = is_refused,
        }
    }
}

/// Everything that serves.
pub(super) struct Service {
    options: ServiceOptions,
    /// What is read when the Corefile may have changed.
    files: ConfigurationFiles,
    checking: BackgroundWork<io::Result<(ConfigurationFiles, CheckedFiles)>>,
    writing: BackgroundWork<io::Result<WrittenFiles>>,
    /// Another look is due once what runs has ended.
    is_check_due: bool,
    /// The user has asked for the look that is due, and for the one that runs.
    is_reload_requested: bool,
    is_check_requested: bool,
    /// The last look, and the last writing and watching, did not come to an end.
    is_unreadable: bool,
    refused: RefusedParts,
    /// Why the Corefile as it stands is refused, as it was told.
    read_refusal: Option<String>,
    is_unwritable: bool,
    /// What serves, for the next server.
    served: Option<ServedRecord>,
    /// Is served, and not written yet.
    unwritten: Option<Rendered>,
    watch: FileWatch,
    verbosity: Verbosity,
    services: ProcessContext,
    server: Server,
    plan: Plan,
    background: JoinSet<()>,
    changes: ChangeDetector,
    next_check: Option<Instant>,
    /// A changed Corefile that will be served once its sockets can be had.
    candidate: Option<PendingCorefile>,
    /// Where queries are sent, as the watchdog was told.
    upstreams: Vec<SocketAddr>,
    swaps: Retries,
    listens: Retries,
    reloads: ReloadMetrics,
    lines: Arc<LineSink>,
    _process: ProcessMetrics,
}

impl Service {
    /// What clients take, and may take.
    pub(super) fn capacity(&self) -> Capacity {
        self.server.capacity()
    }

    /// Whether a successor reads the sockets too, and is to have its share of what arrives.
    pub(super) fn yield_to_successor(&self, is_there: bool) {
        self.server.yield_to_successor(is_there);
    }

    /// What all caches together may hold.
    pub(super) fn cache_memory(&self) -> Arc<MemoryBudget> {
        self.services.cache_memory.clone()
    }

    /// What the admin socket is asked about, and how it tells this service what to do.
    pub(super) fn admin_context(&self, commands: Commands) -> AdminContext {
        AdminContext {
            reload_state: self.services.reload_state.clone(),
            cache_memory: self.services.cache_memory.clone(),
            query_taps: self.services.query_taps.clone(),
            registry: self.services.registry.clone(),
            commands,
        }
    }

    /// Does what a user wants done.
    pub(super) fn obey(&mut self, command: AdminCommand) {
        match command {
            // Who asked may wait no longer.
            AdminCommand::FlushPackets(told) => _ = told.send(self.server.flush_packets()),
            // As it is by this time, whoever has said so.
            AdminCommand::FollowTaps(told) => {
                _ = told.send(self.server.set_tapped(self.services.query_taps.is_on()));
            }
            AdminCommand::LogLevel { request, user, tell } => {
                if let LogLevelRequest::Set(level) = request {
                    self.verbosity.set(level, &format!("user {user} has said so"));
                    self.options.watchdog.report_log_level(level);
                }
                _ = tell.send(self.verbosity.levels());
            }
            AdminCommand::Listeners(told) => _ = told.send(self.plan.listeners.clone()),
        }
    }

    /// Logs as the server before was told to.
    pub(super) fn set_log_level(&self, level: Level) {
        self.verbosity.set(Some(level), "as of the server before");
    }

    /// What is recorded of queries.
    pub(super) fn query_stats(&self) -> Arc<QueryStats> {
        self.services.query_stats.clone()
    }

    /// Resolves when it is time for something. May be dropped and called again at any time.
    pub(super) async fn next_event(&mut self) -> ServiceEvent {
        let is_idle = !self.is_at_work();
        tokio::select! {
            looked = self.checking.outcome() => ServiceEvent::FilesChecked(Box::new(looked.and_then(identity))),
            settled = self.writing.outcome() => ServiceEvent::FilesWritten(settled.and_then(identity)),
            () = at(self.next_check), if is_idle => ServiceEvent::CheckFiles,
            () = self.watch.changed() => ServiceEvent::CheckFiles,
            () = at(self.swaps.due().map(Instant::from_std)) => ServiceEvent::RetrySwap,
            () = at(self.listens.due().map(Instant::from_std)) => ServiceEvent::RetryHttp,
        }
    }

    /// Does what it is time for, and waits for nothing but the watchdog's sockets. To look is to find out whether
    /// template, ConfigMap, Corefile or a file it imports has changed, and if so to swap it in.
    pub(super) async fn handle(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::CheckFiles => self.check(),
            ServiceEvent::FilesChecked(looked) => match *looked {
                Ok((files, found)) => self.on_files_checked(files, found).await,
                Err(error) => self.on_unreadable(&error),
            },
            ServiceEvent::FilesWritten(settled) => self.on_files_written(settled),
            ServiceEvent::RetrySwap => {
                match self.candidate.take() {
                    Some(candidate) => {
                        self.serve(candidate).await;
                        self.show_refusal();
                    }
                    None => self.swaps = Retries::default(),
                }
                if !self.is_at_work() {
                    self.write_and_watch();
                }
            }
            ServiceEvent::RetryHttp => self.listen_http(),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}
