//! The running service: the configuration that serves, and its replacement by a changed one without a lost query.

use super::banner::banner;
use super::cache_handover;
use super::configuration_files::{
    self, BackgroundWork, CheckedFiles, ConfigurationFiles, CorefileOrigin, InitialConfiguration, WrittenFiles,
};
use super::files;
use super::load::{CorefileSource, LoadError, LoadedCorefile};
use super::log::Verbosity;
use super::setup_errors::SetupErrors;
use crate::chain::{BuildError, ChainUpstreams, LineSink, MemoryBudget, ProcessContext};
use crate::directives::cache;
use crate::directives::prometheus::{self, ProcessMetrics};
use crate::directives::reload::{self, ChangeDetector, Fingerprint, ReloadMetrics};
use crate::kube_dns::render::Rendered;
use crate::kube_dns::watch::FileWatch;
use crate::plan::Plan;
use crate::server::{Capacity, Limits, Retries, Server};
use crate::threads;
use crate::watchdog::{ControlClient, HTTP_LISTEN};
use anyhow::Context;
use std::collections::BTreeSet;
use std::convert::identity;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long SIGTERM may take, lameduck aside: what was received is answered meanwhile.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The same where a successor waits for our end to read on: an upstream that lives has answered by then, and the
/// watchdog has not yet taken us, who answer no probe, for hanging.
const HASTY_DRAIN_LIMIT: Duration = Duration::from_millis(200);

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

/// Why a good Corefile is not served.
#[derive(Debug, thiserror::Error)]
enum SwapError {
    /// It never can be.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Listen addresses that another has, or that this machine does not have yet: each with what to do.
    #[error("{}\nit is tried again by itself, at least every minute", .0.join("\n"))]
    Sockets(Vec<String>),
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
    is_unwritable: bool,
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
    /// Loads, binds and serves. Fails without having served.
    pub(super) async fn start(
        origin: CorefileOrigin,
        options: ServiceOptions,
        verbosity: Verbosity,
    ) -> anyhow::Result<Self> {
        let mut services = ProcessContext::new(options.workers, options.cache_memory);
        services.generation = Some(options.watchdog.generation());
        let errors = SetupErrors::new(options.watchdog.clone());
        let reader = options.files.clone();
        services.files = {
            let reader = reader.clone();
            Arc::new(move |path: &Path| reader.of_resolver(path))
        };
        services.data_files = {
            let reader = reader.clone();
            Arc::new(move |path: &Path, unless| reader.data(path, unless))
        };
        let InitialConfiguration { files, loaded, unwritten } =
            origin.load(options.default_port, reader, errors).await?;
        if !loaded.warnings.is_empty() {
            LineSink::stderr()?.text(format!("{}\n", loaded.warnings).as_bytes());
        }
        let lines = LineSink::stdout().context("cannot start the thread that writes log lines")?;
        lines.count_drops(&services.registry);
        let process = ProcessMetrics::register(&services.registry);
        let fairness = services.fairness.clone();
        let mut server =
            Server::start(options.workers, options.limits, fairness, Handle::current(), &services.registry)?;
        let plan = loaded.config.build(&services)?;
        verbosity.follow(&loaded.config);
        if let Some(cache) = options.watchdog.take_cache() {
            cache_handover::restore(services.reload_state.clone(), cache, options.cache_memory);
        }
        // First, since from then on the addresses that are served may be intercepted.
        let upstreams = upstreams(&services);
        options.watchdog.report_upstreams(upstreams.clone());
        apply(&mut server, &plan, &options).await.map_err(|errors| anyhow::anyhow!(errors.join("\n")))?;
        let mut service = Self {
            reloads: ReloadMetrics::new(&services.registry, loaded.fingerprint),
            changes: ChangeDetector::new(loaded.fingerprint),
            background: JoinSet::new(),
            next_check: None,
            candidate: None,
            upstreams,
            swaps: Retries::default(),
            listens: Retries::default(),
            watch: FileWatch::start(),
            files,
            checking: BackgroundWork::default(),
            writing: BackgroundWork::default(),
            is_check_due: false,
            is_reload_requested: false,
            is_check_requested: false,
            is_unreadable: false,
            is_unwritable: false,
            unwritten,
            plan,
            options,
            verbosity,
            services,
            server,
            lines,
            _process: process,
        };
        if let Some(notice) = &loaded.notice {
            tracing::info!("{notice}");
        }
        service.begin();
        service.listen_http();
        service.write_and_watch();
        if !service.options.quiet {
            service.lines.text(banner(&service.plan).as_bytes());
        }
        Ok(service)
    }

    /// What clients take, and may take.
    pub(super) fn capacity(&self) -> Capacity {
        self.server.capacity()
    }

    /// What all caches together may hold.
    pub(super) fn cache_memory(&self) -> Arc<MemoryBudget> {
        self.services.cache_memory.clone()
    }

    /// What begins once a plan serves.
    fn begin(&mut self) {
        self.services.fairness.set(self.plan.fairness);
        prometheus::publish_enabled(&self.services.registry, &self.plan.enabled);
        self.background = JoinSet::new();
        for task in self.plan.take_background() {
            self.background.spawn(task);
        }
        self.services.lifecycle.set_serving();
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
                    Some(candidate) => _ = self.serve(candidate).await,
                    None => self.swaps = Retries::default(),
                }
                if !self.is_at_work() {
                    self.write_and_watch();
                }
            }
            ServiceEvent::RetryHttp => self.listen_http(),
        }
    }

    fn is_at_work(&self) -> bool {
        self.checking.is_running() || self.writing.is_running()
    }

    /// Reads the Corefile again and swaps it in, changed or not (SIGUSR1): an upstream's host file or an interface may
    /// have changed. What is cached is given up.
    pub(super) fn reload(&mut self) {
        self.is_reload_requested = true;
        self.check();
    }

    /// Begins to look. A Corefile that is not rendered, or was changed by hand since, is read only where it has
    /// `reload` or the user asked.
    fn check(&mut self) {
        self.is_check_due = self.is_at_work();
        if self.is_check_due {
            return;
        }
        self.is_check_requested = std::mem::take(&mut self.is_reload_requested);
        let (files, reads) = (self.files.clone(), self.is_check_requested || self.plan.reload.is_some());
        if let Err(error) = self.checking.begin(move || files.check(reads)) {
            self.on_unreadable(&error);
        }
    }

    /// What serves serves on, and the same look is taken again.
    fn on_unreadable(&mut self, error: &io::Error) {
        self.is_reload_requested |= std::mem::take(&mut self.is_check_requested);
        self.next_check = Some(Instant::now() + configuration_files::PAUSE);
        if !std::mem::replace(&mut self.is_unreadable, true) {
            self.reloads.count_failure();
            self.count_configmap();
            let path = self
                .files
                .rendering
                .as_ref()
                .map_or(self.files.source.path(), |(rendering, _)| rendering.template().base());
            let path = path.display();
            tracing::error!(
                "plugin/reload: {path} and what belongs to it cannot be read: {error} What served before serves on; it is tried again"
            );
        }
    }

    /// Swaps in what has changed.
    async fn on_files_checked(&mut self, files: ConfigurationFiles, found: CheckedFiles) {
        self.files.rendering = files.rendering;
        let always = std::mem::take(&mut self.is_check_requested);
        if std::mem::take(&mut self.is_unreadable) {
            tracing::info!("plugin/reload: the configuration can be read again");
        }
        let waits = self.candidate.take_if(|candidate| always && candidate.rendered.is_some());
        match (found.rendered, waits) {
            (Some((rendered, outcome)), _) => {
                let is_swapped = self.on_rendered(rendered, outcome).await;
                if let Some(loaded) = found.read.filter(|_| !is_swapped) {
                    self.on_read(loaded, always).await;
                }
            }
            // Who asks wants what is rendered, not what stands there of the time before.
            (None, Some(candidate)) => _ = self.serve(candidate).await,
            (None, None) => {
                if let Some(loaded) = found.read {
                    self.on_read(loaded, always).await;
                }
            }
        }
        if always {
            cache::flush(&self.services.reload_state);
        }
        self.write_and_watch();
    }

    /// True if it serves now.
    async fn on_rendered(&mut self, rendered: Rendered, outcome: Result<LoadedCorefile, LoadError>) -> bool {
        if let Some(fingerprint) = fingerprint(&outcome) {
            self.reloads.set_version(fingerprint);
        }
        self.forget_candidate();
        match outcome {
            Ok(loaded) => self.serve(PendingCorefile { loaded, rendered: Some(rendered) }).await,
            Err(error) => {
                self.refuse(&error.into(), true);
                false
            }
        }
    }

    /// Swaps the Corefile in as it stands if it has changed, or `always`.
    async fn on_read(&mut self, loaded: Result<LoadedCorefile, LoadError>, always: bool) {
        if let Some(fingerprint) = fingerprint(&loaded) {
            if !self.changes.is_changed(fingerprint) && !always {
                return;
            }
            self.reloads.set_version(fingerprint);
        }
        self.forget_candidate();
        match loaded {
            Ok(loaded) => _ = self.serve(PendingCorefile { loaded, rendered: None }).await,
            Err(error) => self.refuse(&error.into(), false),
        }
    }

    /// Another text has come in its place.
    fn forget_candidate(&mut self) {
        self.candidate = None;
        self.swaps = Retries::default();
    }

    /// Serves a good Corefile instead of the one before; true if it could be. If only its sockets are not to be had it
    /// is tried again.
    async fn serve(&mut self, candidate: PendingCorefile) -> bool {
        let is_retry = self.swaps.due().is_some();
        let is_rendered = candidate.rendered.is_some();
        if candidate.loaded.config.serves_nothing() && !self.plan.listeners.is_empty() {
            // A file that was emptied, or is still being written, must not end the service.
            self.refuse(&anyhow::anyhow!("{}", candidate.loaded.warnings), is_rendered);
            return false;
        }
        match self.swap(&candidate.loaded).await {
            Ok(plan) => {
                self.swaps = Retries::default();
                self.plan = plan;
                let PendingCorefile { loaded, rendered } = candidate;
                let warnings = loaded.warnings;
                if let (Some(rendered), Some((rendering, _))) = (rendered, &self.files.rendering) {
                    rendering.announce(&rendered);
                    // Until it is written.
                    self.files.source =
                        CorefileSource::Text { path: self.files.source.path().to_owned(), text: rendered.text.clone() };
                    self.unwritten = Some(rendered);
                    self.changes.is_changed(loaded.fingerprint);
                }
                self.begin();
                self.listen_http();
                tracing::info!("plugin/reload: the changed Corefile serves");
                if !warnings.is_empty() {
                    tracing::warn!("plugin/reload: what of it is not heeded:\n{warnings}");
                }
                return true;
            }
            Err(error) => {
                let mut new = Vec::new();
                if let SwapError::Sockets(errors) = &error {
                    new = self.swaps.take(errors, std::time::Instant::now());
                    self.candidate = Some(candidate);
                }
                if !is_retry {
                    self.refuse(&error.into(), is_rendered);
                } else if !new.is_empty() {
                    tracing::error!("plugin/reload: the changed Corefile still cannot be served:\n{}", new.join("\n"));
                }
            }
        }
        false
    }

    /// Listens where HTTP is to be served and is not yet. What cannot be is told, and tried again: DNS is served
    /// without it.
    fn listen_http(&mut self) {
        let is_retry = self.listens.due().is_some();
        let errors = self.server.listen_http();
        errors.iter().for_each(|_| self.options.watchdog.report_setup_error(HTTP_LISTEN));
        for error in self.listens.take(&errors, std::time::Instant::now()) {
            tracing::error!("{error} (DNS is served without it; told once, tried again at least every minute)");
        }
        if is_retry && errors.is_empty() {
            tracing::info!("HTTP is served on every address that the Corefile names after all");
        }
    }

    fn refuse(&self, error: &anyhow::Error, is_rendered: bool) {
        self.reloads.count_failure();
        if is_rendered {
            self.count_configmap();
        }
        tracing::error!("plugin/reload: the changed Corefile is refused, the one before serves on:\n{error:#}");
    }

    /// Writes and watches what there is to write and to watch, beside everything else.
    fn write_and_watch(&mut self) {
        self.report_upstreams();
        self.schedule();
        if self.writing.has_threads() {
            // One of them may still write what has been rendered before. The next look settles it.
            return;
        }
        let (files, unwritten, reads) = (self.files.clone(), self.unwritten.clone(), self.plan.reload.is_some());
        let inotify = self.watch.descriptor().map(|inotify| inotify.try_clone_to_owned()).transpose();
        let begun =
            inotify.and_then(|inotify| self.writing.begin(move || files.write_and_watch(unwritten, reads, inotify)));
        if let Err(error) = begun {
            self.on_files_written(Err(error));
        }
    }

    fn on_files_written(&mut self, settled: io::Result<WrittenFiles>) {
        match settled {
            Ok(WrittenFiles { written, placed }) => {
                self.is_unwritable = false;
                if let (Some((text, outcome)), Some((rendering, errors))) = (written, &self.files.rendering)
                    && let Some(rendered) = self.unwritten.take_if(|rendered| rendered.text == text)
                {
                    self.files.source = rendering.written(&rendered, outcome, errors);
                }
                if let Some(placed) = placed {
                    self.watch.adopt(placed);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_unwritable, true) {
                    self.count_configmap();
                    let path = self.files.source.path().display();
                    tracing::error!("{path} is not written, or files are not watched: {error} It is tried again");
                }
            }
        }
        self.schedule();
        if self.is_check_due {
            self.check();
        }
    }

    fn count_configmap(&self) {
        if let Some((_, errors)) = &self.files.rendering {
            errors.count_configmap();
        }
    }

    /// Sets when to look though nothing is told.
    fn schedule(&mut self) {
        let reload = self.plan.reload.filter(|config| !config.interval.is_zero());
        let is_file = matches!(self.files.source, CorefileSource::File(_));
        let read = reload.filter(|_| is_file).map(|config| reload::period(config, fastrand::f64()));
        let render = self.files.rendering.as_ref().map(|_| self.watch.poll_period());
        self.next_check = read.into_iter().chain(render).min().map(|period| Instant::now() + period);
    }

    /// Serves the plan of `loaded` and returns it.
    async fn swap(&mut self, loaded: &LoadedCorefile) -> Result<Plan, SwapError> {
        let plan = loaded.config.build(&self.services)?;
        self.report_upstreams();
        apply(&mut self.server, &plan, &self.options).await.map_err(SwapError::Sockets)?;
        self.verbosity.follow(&loaded.config);
        Ok(plan)
    }

    /// Probes every upstream again, where `loop` does.
    pub(super) fn probe_upstreams(&self) {
        self.services.reload_state.all::<ChainUpstreams>().iter().for_each(|(_, upstreams)| upstreams.doubt());
    }

    /// Tells the watchdog where queries are sent, if that has changed: also since a host name stands for other
    /// addresses, or the last query of a plan that is gone has been answered.
    fn report_upstreams(&mut self) {
        let upstreams = upstreams(&self.services);
        if upstreams != self.upstreams {
            self.options.watchdog.report_upstreams(upstreams.clone());
            self.upstreams = upstreams;
        }
    }

    /// Has what the caches hold written down for another server, beside everything else.
    pub(super) fn export_cache(&self) {
        self.export();
    }

    /// Resolves when that is done, or could not be.
    fn export(&self) -> oneshot::Receiver<()> {
        let (reload_state, watchdog) = (self.services.reload_state.clone(), self.options.watchdog.clone());
        let octets = self.options.cache_memory;
        let cannot = "what the caches hold cannot be written down for the next server";
        let save = move || match cache_handover::save(&reload_state, octets) {
            Ok(cache) => watchdog.report_cache(cache.as_fd()),
            Err(error) => tracing::warn!("{cannot}: {error}"),
        };
        threads::run_blocking("cache-save", save).unwrap_or_else(|error| {
            tracing::warn!("{cannot}: {error}");
            oneshot::channel().1
        })
    }

    /// Serves on for the lameduck, then answers what has been received, and ends.
    pub(super) async fn stop(self, reason: StopReason) {
        let drain_limit = match reason {
            StopReason::Shutdown => {
                self.server.sockets().claim();
                DRAIN_LIMIT
            }
            StopReason::HandedOver => DRAIN_LIMIT,
            StopReason::Restart => {
                // While the workers serve on.
                _ = self.export().await;
                HASTY_DRAIN_LIMIT
            }
        };
        self.services.lifecycle.set_stopping();
        if reason != StopReason::HandedOver && !self.plan.lameduck.is_zero() {
            tracing::info!("plugin/health: going into lameduck mode for {:?}", self.plan.lameduck);
            tokio::time::sleep(self.plan.lameduck).await;
        }
        // Some say a last thing when they are dropped.
        drop(self.background);
        let unanswered = self.server.drain(drain_limit).await;
        if unanswered > 0 {
            tracing::warn!("{unanswered} queries were still waiting for their upstream and are left without an answer");
        }
        self.lines.flush(Duration::from_secs(1));
    }
}

/// Of what was read, good or bad; `None` if nothing could be.
fn fingerprint(outcome: &Result<LoadedCorefile, LoadError>) -> Option<Fingerprint> {
    match outcome {
        Ok(loaded) => Some(loaded.fingerprint),
        Err(LoadError::Refused { fingerprint, .. }) => Some(*fingerprint),
        Err(LoadError::Read { .. }) => None,
    }
}

/// Serves `plan`, HTTP where it is listened already. On failure everything is as it was, and why is told.
async fn apply(server: &mut Server, plan: &Plan, options: &ServiceOptions) -> Result<(), Vec<String>> {
    let dns: Vec<SocketAddr> = plan.listeners.iter().map(|listener| listener.address).collect();
    let http: Vec<SocketAddr> = plan.endpoints.iter().map(|endpoint| endpoint.address).collect();
    let watchdog = &options.watchdog;
    let sockets = watchdog.sockets(&dns, options.workers, server.sockets()).await?;
    server.apply(&plan.listeners, &plan.endpoints, sockets).map_err(|error| vec![error.to_string()])?;
    watchdog.report_serving(dns, http, plan.lameduck + DRAIN_LIMIT);
    Ok(())
}

/// Where queries are sent, each address once, in their order.
fn upstreams(services: &ProcessContext) -> Vec<SocketAddr> {
    let all = services.reload_state.all::<ChainUpstreams>();
    let addresses = all.iter().flat_map(|(_, upstreams)| upstreams.current()).map(|upstream| upstream.address());
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}
