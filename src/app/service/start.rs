//! The service's start: the configuration is loaded, the sockets are had from the watchdog, and the plan serves.

use super::swap::{PlanSockets, SwapError, acquire, apply, upstreams};
use super::{PendingCorefile, RefusedParts, Service, ServiceOptions};
use crate::app::banner::banner;
use crate::app::cache_handover;
use crate::app::configuration_files::{BackgroundWork, ConfigurationFiles, CorefileOrigin, InitialConfiguration};
use crate::app::load::LoadedCorefile;
use crate::app::log::Verbosity;
use crate::app::predecessor::StartRefusal;
use crate::app::setup_errors::SetupErrors;
use crate::chain::{DataFiles, Level, LineSink, ProcessContext};
use crate::directives::prometheus::ProcessMetrics;
use crate::directives::reload::{ChangeDetector, ReloadMetrics};
use crate::kube_dns::render::Rendered;
use crate::kube_dns::watch::FileWatch;
use crate::plan::Plan;
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
        let services = process_context(&options);
        let (reader, errors) = (options.files.clone(), SetupErrors::new(options.watchdog.clone()));
        let InitialConfiguration { mut files, loaded, unwritten: mut rendered, refusal } =
            origin.load(options.default_port, reader, errors).await?;
        if !loaded.warnings.is_empty() {
            LineSink::stderr()?.text(Level::Warning, format!("{}\n", loaded.warnings).as_bytes());
        }
        let lines = LineSink::stdout().context("cannot start the thread that writes log lines")?;
        lines.count_drops(&services.registry);
        let process = ProcessMetrics::register(&services.registry);
        let fairness = services.fairness.clone();
        let mut server =
            Server::start(options.workers, options.limits, fairness, Handle::current(), &services.registry)?;
        let watchdog = options.watchdog.clone();
        server.set_alive_report(Arc::new(move || watchdog.report_streams_alive()));
        let FirstPlan { loaded, plan, sockets, put_off } =
            FirstPlan::of(loaded, &mut rendered, &mut files, &server, &services, &options).await?;
        verbosity.follow(&loaded.config);
        if let Some(cache) = options.watchdog.take_cache() {
            cache_handover::restore(services.reload_state.clone(), cache, options.cache_memory);
        }
        // First, since from then on the addresses that are served may be intercepted.
        let upstreams = upstreams(&services);
        options.watchdog.report_upstreams(upstreams.clone());
        if let Some(served) = loaded.record.clone() {
            files.note_serving(served).await;
        }
        let unwritten = match rendered {
            Some(rendered) => files.write_first(rendered).await,
            None => None,
        };
        apply(&mut server, &plan, sockets, &options).map_err(SwapError::at_start)?;
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
            served: loaded.record,
            unwritten,
            plan,
            options,
            verbosity,
            services,
            server,
            lines,
            _process: process,
        };
        service.show_configuration(&loaded.warnings);
        if let Some(notice) = &loaded.notice {
            tracing::info!("{notice}");
        }
        if let Some((candidate, error)) = put_off {
            let fingerprint = candidate.loaded.fingerprint;
            if candidate.rendered.is_none() {
                service.changes.is_changed(fingerprint, true);
            }
            service.put_off(candidate, error);
            service.reloads.set_version(fingerprint);
        } else if let Some(StartRefusal { error, fingerprint }) = refusal {
            (service.read_refusal, service.refused.bad) = (Some(error.to_string()), true);
            // It was counted where it was rendered.
            service.refuse(&error, false);
            tracing::warn!("what served before serves on, from memory");
            if let Some(fingerprint) = fingerprint {
                service.changes.is_changed(fingerprint, false);
                service.reloads.set_version(fingerprint);
            }
        }
        service.show_refusal();
        service.begin();
        service.listen_http();
        service.write_and_watch();
        if !service.options.quiet {
            service.lines.text(Level::Info, banner(&service.plan).as_bytes());
        }
        Ok(service)
    }
}

/// With the ends of what the watchdog does for this process.
fn process_context(options: &ServiceOptions) -> ProcessContext {
    let mut services = ProcessContext::new(options.workers, options.cache_memory);
    services.generation = Some(options.watchdog.generation());
    let reader = options.files.clone();
    services.files = {
        let reader = reader.clone();
        Arc::new(move |path: &Path| reader.of_resolver(path))
    };
    services.data_files = {
        let reader = reader.clone();
        DataFiles::new(Arc::new(move |path: &Path, unless| reader.data(path, unless)))
    };
    services.unix_sockets = Arc::new(move |path: &Path, role| reader.socket(path, role));
    services.other_metrics = options.watchdog.take_metrics().and_then(|end| {
        let stats = Some(services.query_stats.clone());
        let exchange =
            Channel::from_fd(end).and_then(|end| MetricsExchange::start(end, services.registry.clone(), stats));
        exchange
            .inspect_err(|error| tracing::warn!("the watchdog is not asked for its metrics: {error}"))
            .ok()
            .map(MetricsExchange::into_ask)
    });
    services
}

/// What serves first.
struct FirstPlan {
    loaded: LoadedCorefile,
    plan: Plan,
    sockets: PlanSockets,
    /// What was to serve, and why it cannot yet.
    put_off: Option<(PendingCorefile, SwapError)>,
}

impl FirstPlan {
    /// That of `loaded`; if that cannot be had, of what served before this process began, which is better than nothing.
    async fn of(
        loaded: LoadedCorefile,
        rendered: &mut Option<Rendered>,
        files: &mut ConfigurationFiles,
        server: &Server,
        services: &ProcessContext,
        options: &ServiceOptions,
    ) -> anyhow::Result<Self> {
        let prepare = async |loaded: &LoadedCorefile| -> Result<(Plan, PlanSockets), SwapError> {
            let plan = loaded.config.build(services)?;
            let sockets = acquire(server, &plan, options).await?;
            Ok((plan, sockets))
        };
        let error = match prepare(&loaded).await {
            Ok((plan, sockets)) => return Ok(Self { loaded, plan, sockets, put_off: None }),
            Err(error) => error,
        };
        let Some((source, predecessor)) = files.predecessor().await else { return Err(error.at_start()) };
        let Ok((plan, sockets)) = prepare(&predecessor).await else { return Err(error.at_start()) };
        if files.rendering.is_some() {
            // The next look is at what serves.
            files.source = source;
        }
        let put_off = Some((PendingCorefile { loaded, rendered: rendered.take() }, error));
        Ok(Self { loaded: predecessor, plan, sockets, put_off })
    }
}
