//! The service's start: the configuration is loaded, the sockets are had from the watchdog, and the plan serves.

use super::swap::{apply, upstreams};
use super::{RefusedParts, Service, ServiceOptions};
use crate::app::banner::banner;
use crate::app::cache_handover;
use crate::app::configuration_files::{BackgroundWork, CorefileOrigin, InitialConfiguration};
use crate::app::log::Verbosity;
use crate::app::setup_errors::SetupErrors;
use crate::chain::{DataFiles, LineSink, ProcessContext};
use crate::directives::prometheus::ProcessMetrics;
use crate::directives::reload::{ChangeDetector, ReloadMetrics};
use crate::kube_dns::watch::FileWatch;
use crate::server::{Retries, Server};
use crate::watchdog::MetricsExchange;
use crate::watchdog::channel::Channel;
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

impl Service {
    /// Loads, binds and serves. Fails without having served.
    pub(in crate::app) async fn start(
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
            DataFiles::new(Arc::new(move |path: &Path, unless| reader.data(path, unless)))
        };
        services.unix_sockets = {
            let reader = reader.clone();
            Arc::new(move |path: &Path, role| reader.socket(path, role))
        };
        services.other_metrics = options.watchdog.take_metrics().and_then(|end| {
            let exchange = Channel::from_fd(end).and_then(|end| MetricsExchange::start(end, services.registry.clone()));
            exchange
                .inspect_err(|error| tracing::warn!("the watchdog is not asked for its metrics: {error}"))
                .ok()
                .map(MetricsExchange::into_ask)
        });
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
        let watchdog = options.watchdog.clone();
        server.set_alive_report(Arc::new(move || watchdog.report_streams_alive()));
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
            refused: RefusedParts::default(),
            read_refusal: None,
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
        service.show_refusal();
        service.begin();
        service.listen_http();
        service.write_and_watch();
        if !service.options.quiet {
            service.lines.text(banner(&service.plan).as_bytes());
        }
        Ok(service)
    }
}
