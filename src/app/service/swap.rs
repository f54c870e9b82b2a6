//! Swaps a good Corefile in: sockets, plan and what begins with it.

use super::{DRAIN_LIMIT, PendingCorefile, Service, ServiceOptions};
use crate::app::load::{CorefileSource, LoadedCorefile};
use crate::chain::{BuildError, ChainUpstreams, ProcessContext};
use crate::directives::prometheus;
use crate::plan::{Listener, Plan};
use crate::query_stats::ConfigurationReport;
use crate::server::{ListenAddresses, Retries, Server, Sockets};
use crate::watchdog::HTTP_LISTEN;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::task::JoinSet;

/// Why a good Corefile is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwapError {
    /// It never can be.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Listen addresses that another has, or that this machine does not have yet: each with what to do.
    #[error("{}\nit is tried again by itself, at least every minute", .0.join("\n"))]
    Sockets(Vec<String>),
}

impl SwapError {
    /// Why nothing is served: this process ends, and tries nothing again.
    pub(super) fn at_start(self) -> anyhow::Error {
        match self {
            Self::Build(error) => error.into(),
            Self::Sockets(errors) => anyhow::anyhow!(errors.join("\n")),
        }
    }
}

impl Service {
    /// What begins once a plan serves.
    pub(super) fn begin(&mut self) {
        self.services.fairness.set(self.plan.fairness);
        prometheus::publish_enabled(&self.services.registry, &self.plan.enabled);
        self.background = JoinSet::new();
        for task in self.plan.take_background() {
            self.background.spawn(task);
        }
        self.services.lifecycle.set_serving();
    }

    /// Serves a good Corefile instead of the one before; true if it could be. If only its sockets are not to be had it
    /// is tried again.
    pub(super) async fn serve(&mut self, candidate: PendingCorefile) -> bool {
        let is_rendered = candidate.rendered.is_some();
        if candidate.loaded.config.serves_nothing() && !self.plan.listeners.is_empty() {
            // A file that was emptied, or is still being written, must not end the service.
            self.refused.set(is_rendered, true);
            self.refuse(&anyhow::anyhow!("{}", candidate.loaded.warnings), is_rendered);
            return false;
        }
        match self.swap(&candidate.loaded).await {
            Ok(plan) => {
                self.refused.set(is_rendered, false);
                if self.candidate.is_none() {
                    self.swaps = Retries::default();
                }
                self.plan = plan;
                let PendingCorefile { loaded, rendered } = candidate;
                let warnings = loaded.warnings;
                self.show_configuration(&warnings);
                self.served = loaded.record;
                if let (Some(rendered), Some((rendering, _))) = (rendered, &self.files.rendering) {
                    rendering.announce(&rendered);
                    // Until it is written.
                    self.files.source =
                        CorefileSource::Text { path: self.files.source.path().to_owned(), text: rendered.text.clone() };
                    self.unwritten = Some(rendered);
                    self.changes.is_changed(loaded.fingerprint, true);
                }
                self.begin();
                self.listen_http();
                tracing::info!("plugin/reload: the changed Corefile serves");
                if !warnings.is_empty() {
                    tracing::warn!("plugin/reload: what of it is not heeded:\n{warnings}");
                }
                return true;
            }
            Err(error) => self.put_off(candidate, error),
        }
        false
    }

    /// Notes that a good Corefile cannot be served: it is tried again if only its sockets are not to be had.
    pub(super) fn put_off(&mut self, candidate: PendingCorefile, error: SwapError) {
        let (is_retry, is_rendered) = (self.swaps.due().is_some(), candidate.rendered.is_some());
        self.refused.set(is_rendered, true);
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

    /// Listens where HTTP is to be served and is not yet. What cannot be is told, and tried again: DNS is served
    /// without it.
    pub(super) fn listen_http(&mut self) {
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

    pub(super) fn refuse(&self, error: &anyhow::Error, is_rendered: bool) {
        self.reloads.count_failure();
        if is_rendered {
            self.count_configmap();
        }
        self.services.query_stats.set_refused(true, Some(format!("{error:#}")));
        tracing::error!("plugin/reload: the changed Corefile is refused, the one before serves on:\n{error:#}");
    }

    /// Tells in the status what serves now.
    pub(super) fn show_configuration(&self, warnings: &str) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.services.query_stats.set_configuration(ConfigurationReport {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            source: self.configured_path().display().to_string(),
            since_ms: since.as_millis() as u64,
            serves: self.plan.summary.clone(),
            has_warnings: !warnings.is_empty(),
            warnings: Some(warnings.to_owned()).filter(|warnings| !warnings.is_empty()),
            is_refused: false,
            refusal: None,
        });
    }

    /// The Corefile, or the template that it is rendered from.
    pub(super) fn configured_path(&self) -> &Path {
        let rendering = self.files.rendering.as_ref();
        rendering.map_or(self.files.source.path(), |(rendering, _)| rendering.template().base())
    }

    /// Serves the plan of `loaded` and returns it.
    async fn swap(&mut self, loaded: &LoadedCorefile) -> Result<Plan, SwapError> {
        let plan = loaded.config.build(&self.services)?;
        self.report_upstreams();
        let sockets = acquire(&self.server, &plan, &self.options).await?;
        apply(&mut self.server, &plan, sockets, &self.options)?;
        self.verbosity.follow(&loaded.config);
        Ok(plan)
    }

    /// Probes every upstream again, where `loop` does.
    pub(in crate::app) fn probe_upstreams(&self) {
        self.services.reload_state.all::<ChainUpstreams>().iter().for_each(|(_, upstreams)| upstreams.doubt());
    }

    /// Tells the watchdog where queries are sent, if that has changed: also since a host name stands for other
    /// addresses, or the last query of a plan that is gone has been answered.
    pub(super) fn report_upstreams(&mut self) {
        let upstreams = upstreams(&self.services);
        if upstreams != self.upstreams {
            self.options.watchdog.report_upstreams(upstreams.clone());
            self.upstreams = upstreams;
        }
    }
}

/// The sockets of a plan.
pub(super) struct PlanSockets {
    listen: ListenAddresses,
    sockets: Sockets,
}

/// Has the sockets of `plan` from the watchdog.
pub(super) async fn acquire(server: &Server, plan: &Plan, options: &ServiceOptions) -> Result<PlanSockets, SwapError> {
    let (plain, streams): (Vec<_>, Vec<_>) = plan.listeners.iter().partition(|listener| listener.protocol.is_plain());
    let addresses = |listeners: Vec<&Arc<Listener>>| listeners.iter().map(|listener| listener.address).collect();
    let listen = ListenAddresses { dns: addresses(plain), streams: addresses(streams) };
    let sockets = options.watchdog.sockets(&listen, options.workers, server.sockets()).await;
    Ok(PlanSockets { listen, sockets: sockets.map_err(SwapError::Sockets)? })
}

/// Serves `plan`, HTTP where it is listened already. On failure everything is as it was.
pub(super) fn apply(
    server: &mut Server,
    plan: &Plan,
    sockets: PlanSockets,
    options: &ServiceOptions,
) -> Result<(), SwapError> {
    let PlanSockets { listen, sockets } = sockets;
    let applied = server.apply(&plan.listeners, &plan.endpoints, sockets);
    applied.map_err(|error| SwapError::Sockets(vec![error.to_string()]))?;
    let http = plan.endpoints.iter().map(|endpoint| endpoint.address).collect();
    options.watchdog.report_serving(listen, http, plan.lameduck + DRAIN_LIMIT);
    Ok(())
}

/// Where queries are sent, each address once, in their order.
pub(super) fn upstreams(services: &ProcessContext) -> Vec<SocketAddr> {
    let all = services.reload_state.all::<ChainUpstreams>();
    let addresses = all.iter().flat_map(|(_, upstreams)| upstreams.current()).map(|upstream| upstream.address());
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}
