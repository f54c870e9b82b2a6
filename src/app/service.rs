//! A running service: the plan that serves and the swap to its successor.

use super::banner::banner;
use super::load::{LoadError, Loaded, Source};
use super::log::Verbosity;
use crate::chain::{Endpoint, HttpAnswer, LineSink, Services};
use crate::directives::prometheus::{self, ProcessMetrics};
use crate::directives::reload::{self, ChangeDetector, Series};
use crate::plan::Plan;
use crate::server::{Limits, Server, Sockets};
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long SIGTERM may take, lameduck aside: what was received is answered meanwhile.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What a service is started with.
pub struct Options {
    pub source: Source,
    pub default_port: u16,
    pub workers: usize,
    /// Octets all caches together may take.
    pub cache_memory: usize,
    /// What clients may take.
    pub limits: Limits,
    /// Where `-metrics-listen-address` wants the metrics served beside the Corefile's own addresses.
    pub node_metrics: Option<SocketAddr>,
    pub quiet: bool,
}

/// What clients may take of a process that may open so many files: TCP clients half of them, so that upstreams are still asked and
/// probes answered.
pub fn limits(open_files: u64) -> Limits {
    let limits = Limits::default();
    let half = usize::try_from(open_files / 2).unwrap_or(usize::MAX);
    Limits { tcp_connections: limits.tcp_connections.min(half), ..limits }
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
        let services = Services::new(options.workers, options.cache_memory);
        let lines = LineSink::stdout().context("cannot start the thread that writes log lines")?;
        lines.count_drops(&services.registry);
        let process = ProcessMetrics::register(&services.registry);
        let mut server = Server::start(options.workers, options.limits, Handle::current(), &services.registry)?;
        let plan = build(&loaded, &services, &options)?;
        apply(&mut server, &plan, options.workers)?;
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
        let plan = build(loaded, &self.services, &self.options)?;
        apply(&mut self.server, &plan, self.options.workers)?;
        self.plan = plan;
        self.next_look = next_look(&self.plan);
        self.begin(loaded);
        tracing::info!("plugin/reload: the changed Corefile serves");
        Ok(())
    }

    /// Serves on for the lameduck, then answers what has been received, and ends.
    pub async fn stop(self) {
        self.services.lifecycle.set_stopping();
        if !self.plan.lameduck.is_zero() {
            tracing::info!("plugin/health: going into lameduck mode for {:?}", self.plan.lameduck);
            tokio::time::sleep(self.plan.lameduck).await;
        }
        // Some say a last thing when they are dropped.
        drop(self.background);
        let unanswered = self.server.drain(DRAIN_LIMIT).await;
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

fn build(loaded: &Loaded, services: &Services, options: &Options) -> anyhow::Result<Plan> {
    let mut plan = loaded.config.build(services)?;
    let is_served = |endpoint: &Endpoint| options.node_metrics == Some(endpoint.address) && endpoint.path == "/metrics";
    if let Some(address) = options.node_metrics.filter(|_| !plan.endpoints.iter().any(is_served)) {
        let registry = services.registry.clone();
        let answer = move || HttpAnswer { status: 200, content_type: crate::metrics::CONTENT_TYPE, body: registry.encode() };
        plan.endpoints.push(Endpoint { address, path: "/metrics", answer: Arc::new(answer) });
    }
    Ok(plan)
}

fn apply(server: &mut Server, plan: &Plan, workers: usize) -> anyhow::Result<()> {
    let dns = plan.listeners.iter().map(|listener| listener.address);
    let http = plan.endpoints.iter().map(|endpoint| endpoint.address);
    let sockets = Sockets::bind(dns, http, workers, server.sockets()).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(lines.join("\n"))
    })?;
    server.apply(&plan.listeners, &plan.endpoints, sockets).context("cannot serve the Corefile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_clients_leave_half_of_the_open_files_to_upstreams_and_probes() {
        assert_eq!(limits(1024).tcp_connections, 512);
        assert_eq!(limits(1 << 20), Limits::default());
    }
}
