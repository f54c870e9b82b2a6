//! The service's end, and what its caches hold for the next one.

use super::{DRAIN_LIMIT, Service, StopReason};
use crate::app::cache_handover;
use crate::threads;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::sync::oneshot;

/// The same where a successor waits for our end to read on: an upstream that lives has answered by then, and the
/// watchdog has not yet taken us, who answer no probe, for hanging.
const HASTY_DRAIN_LIMIT: Duration = Duration::from_millis(200);

/// How long directives may then take to write what they still hold to whoever reads it.
const WRITE_LIMIT: Duration = Duration::from_millis(500);

impl Service {
    /// Has what the caches hold written down for another server, beside everything else.
    pub(in crate::app) fn export_cache(&self) {
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
    pub(in crate::app) async fn stop(self, reason: StopReason) {
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
        self.services.at_stop.flush(std::time::Instant::now() + WRITE_LIMIT);
        self.lines.flush(Duration::from_secs(1));
    }
}
