//! A running service: the plan that serves and the swap to its successor.

use super::banner::banner;
use super::load::{LoadError, Loaded, Source};
use super::log::Verbosity;
use crate::chain::{LineSink, Services};
use crate::directives::prometheus::{self, ProcessMetrics};
use crate::directives::reload::{self, ChangeDetector, Series};
use crate::plan::Plan;
use crate::server::{Limits, Server};
use crate::watchdog::ServerEnd;
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long SIGTERM may take, lameduck aside: what was received is answered meanwhile.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The same when the watchdog is gone: as long as an upstream may take.
pub const ORPHAN_DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What a service is started with.
pub struct Options {
    pub source: Source,
    pub default_port: u16,
    pub workers: usize,
    /// Octets all caches together may take.
    pub cache_memory: usize,
    pub quiet: bool,
    /// Where the sockets come from.
    pub watchdog: Arc<ServerEnd>,
}

/// Why a service stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The watchdog says so, and has told the node.
    Ordered,
    /// The watchdog is gone, and queries go elsewhere already.
    Orphaned,
    /// Somebody else says so: another server will read on where this one stops.
    Replaced,
}

/// Everything that serves.
pub struct Service {
    options: Options,
    verbosity: Verbosity,
    services: Services,
    server: Server,
    plan: Plan,
    background: JoinSet<()>,
    changes: ChangeDetector,
    next_look: Option<Instant>,
    reloads: Series,
    lines: Arc<LineSink>,
    _process: ProcessMetrics,
}

impl Service {
    /// Loads, binds and serves. Fails without having served.
    pub fn start(options: Options, verbosity: Verbosity) -> anyhow::Result<Self> {
        let loaded = options.source.load(options.default_port)?;
        if !loaded.warnings.is_empty() {
            eprintln!("{}", loaded.warnings);
        }
        let mut services = Services::new(options.workers, options.cache_memory);
        services.generation = Some(options.watchdog.generation());
        let lines = LineSink::stdout().context("cannot start the thread that writes log lines")?;
        lines.count_drops(&services.registry);
        let process = ProcessMetrics::register(&services.registry);
        let mut server = Server::start(options.workers, Limits::default(), Handle::current(), &services.registry)?;
        let plan = loaded.config.build(&services)?;
        apply(&mut server, &plan, &options)?;
        let mut service = Self {
            reloads: Series::new(&services.registry, loaded.fingerprint),
            changes: ChangeDetector::new(loaded.fingerprint),
            background: JoinSet::new(),
            next_look: next_look(&plan),
            plan,
            options,
            verbosity,
            services,
            server,
            lines,
            _process: process,
        };
        service.begin(&loaded);
        if !service.options.quiet {
            print!("{}", banner(&service.plan));
        }
        Ok(service)
    }

    /// What begins once a plan serves.
    fn begin(&mut self, loaded: &Loaded) {
        self.verbosity.set_debug(loaded.config.is_debug());
        self.verbosity.set_stacktrace(loaded.config.wants_stacktrace());
        prometheus::publish_enabled(&self.services.registry, &self.plan.enabled);
        self.background = JoinSet::new();
        for task in self.plan.take_background() {
            self.background.spawn(task);
        }
        self.services.lifecycle.set_serving();
    }

    /// Resolves when it is time to look whether the Corefile has changed; never without `reload`, nor where there is no file.
    pub async fn poll_due(&self) {
        match (&self.options.source, self.next_look) {
            (Source::File(_), Some(due)) => tokio::time::sleep_until(due).await,
            _ => std::future::pending().await,
        }
    }

    /// Looks whether the Corefile or a file it imports has changed, and if so swaps it in.
    pub fn reload_if_changed(&mut self) {
        self.look(false);
        self.next_look = next_look(&self.plan);
    }

    /// Reads the Corefile again and swaps it in, changed or not (SIGUSR1): an upstream's host file or an interface may have changed.
    pub fn reload(&mut self) {
        self.look(true);
    }

    fn look(&mut self, always: bool) {
        let loaded = self.options.source.load(self.options.default_port);
        let fingerprint = match &loaded {
            Ok(loaded) => Some(loaded.fingerprint),
            Err(LoadError::Refused { fingerprint, .. }) => Some(*fingerprint),
            Err(LoadError::Read { .. }) => None,
        };
        if let Some(fingerprint) = fingerprint {
            if !self.changes.is_changed(fingerprint) && !always {
                return;
            }
            self.reloads.set_version(fingerprint);
        }
        if let Err(error) = loaded.map_err(anyhow::Error::from).and_then(|loaded| self.swap(&loaded)) {
            self.reloads.count_failure();
            tracing::error!("plugin/reload: the changed Corefile is refused, the one before serves on:\n{error:#}");
        }
    }

    fn swap(&mut self, loaded: &Loaded) -> anyhow::Result<()> {
        let plan = loaded.config.build(&self.services)?;
        apply(&mut self.server, &plan, &self.options)?;
        self.plan = plan;
        self.next_look = next_look(&self.plan);
        self.begin(loaded);
        tracing::info!("plugin/reload: the changed Corefile serves");
        Ok(())
    }

    /// Serves on for the lameduck, then answers what has been received, and ends. Without a watchdog there is nobody left to wait for.
    pub async fn stop(self, farewell: Farewell) {
        self.services.lifecycle.set_stopping();
        let is_orphaned = farewell == Farewell::Orphaned;
        if farewell != Farewell::Replaced {
            self.server.sockets().claim();
        }
        if !self.plan.lameduck.is_zero() && !is_orphaned {
            tracing::info!("plugin/health: going into lameduck mode for {:?}", self.plan.lameduck);
            tokio::time::sleep(self.plan.lameduck).await;
        }
        // Some say a last thing when they are dropped.
        drop(self.background);
        let unanswered = self.server.drain(if is_orphaned { ORPHAN_DRAIN_LIMIT } else { DRAIN_LIMIT }).await;
        if unanswered > 0 {
            tracing::warn!("{unanswered} queries were still waiting for their upstream and are left without an answer");
        }
        self.lines.flush(Duration::from_secs(1));
    }
}

fn next_look(plan: &Plan) -> Option<Instant> {
    let config = plan.reload.filter(|config| !config.interval.is_zero())?;
    Some(Instant::now() + reload::period(config, fastrand::f64()))
}

fn apply(server: &mut Server, plan: &Plan, options: &Options) -> anyhow::Result<()> {
    let dns: Vec<SocketAddr> = plan.listeners.iter().map(|listener| listener.address).collect();
    let http: Vec<SocketAddr> = plan.endpoints.iter().map(|endpoint| endpoint.address).collect();
    let watchdog = &options.watchdog;
    let sockets =
        watchdog.sockets(&dns, &http, options.workers, server.sockets()).map_err(|errors| anyhow::anyhow!(errors.join("\n")))?;
    server.apply(&plan.listeners, &plan.endpoints, sockets).context("cannot serve the Corefile")?;
    watchdog.report_serving(dns, http, plan.lameduck + DRAIN_LIMIT);
    Ok(())
}
