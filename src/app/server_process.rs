//! The server: everything that answers queries, on sockets that the watchdog holds, without any capability.

use super::load::Source;
use super::log;
use super::memory;
use super::service::{Farewell, ORPHAN_DRAIN_LIMIT, Options, Service};
use crate::cli::ServeOptions;
use crate::watchdog::{Order, ServerEnd};
use anyhow::Context;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What `ps` and `top` call it; started through /proc/self/exe it would be `exe`.
const NAME: &std::ffi::CStr = c"nodelocaldns";

/// Serves until told to stop.
pub fn serve(options: &ServeOptions, watchdog: ServerEnd) -> anyhow::Result<ExitCode> {
    // Best effort: only for those who look.
    _ = rustix::thread::set_name(NAME);
    let watchdog = Arc::new(watchdog);
    let outcome = load_and_serve(options, &watchdog);
    if let Err(error) = &outcome {
        watchdog.report_failure(format!("{error:#}"));
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn load_and_serve(options: &ServeOptions, watchdog: &Arc<ServerEnd>) -> anyhow::Result<()> {
    let verbosity = log::start();
    let source = match options.conf.as_ref().or(options.corefile.as_ref()) {
        Some(path) => Source::from_argument(path)?,
        None => Source::BuiltIn,
    };
    let workers = options.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let cache_memory = options.cache_memory.unwrap_or_else(|| memory::default_cache_memory(memory::cgroup_limit()));
    let control =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control runtime")?;
    control.block_on(async {
        let options = Options {
            source,
            default_port: options.dns_port,
            workers,
            cache_memory,
            quiet: options.quiet || !watchdog.is_first(),
            watchdog: watchdog.clone(),
        };
        let signals = Signals::catch().context("cannot catch signals")?;
        let service = Service::start(options, verbosity)?;
        run(service, watchdog, signals).await;
        Ok(())
    })
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    /// The watchdog is gone ([`ServerEnd::from_environment`]).
    orphaned: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
    /// SIGINT and SIGQUIT of a terminal go to the watchdog too, which says when to stop; SIGHUP is ignored, as in the reference.
    _ignored: [tokio::signal::unix::Signal; 3],
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            orphaned: signal(SignalKind::user_defined2())?,
            reload: signal(SignalKind::user_defined1())?,
            _ignored: [signal(SignalKind::interrupt())?, signal(SignalKind::quit())?, signal(SignalKind::hangup())?],
        })
    }
}

/// Serves until the watchdog, its end, or SIGTERM says to stop.
async fn run(mut service: Service, watchdog: &ServerEnd, mut signals: Signals) {
    let farewell = loop {
        tokio::select! {
            order = watchdog.order() => match order {
                Order::Reload => service.reload(),
                Order::Stop => break Farewell::Ordered,
                Order::Orphaned => break Farewell::Orphaned,
            },
            _ = signals.terminate.recv() => break Farewell::Replaced,
            _ = signals.orphaned.recv() => break Farewell::Orphaned,
            _ = signals.reload.recv() => service.reload(),
            () = service.poll_due() => service.reload_if_changed(),
        }
    };
    if farewell == Farewell::Orphaned {
        tracing::warn!("the watchdog is gone, so this server ends");
        return service.stop(farewell).await;
    }
    tokio::select! {
        () = service.stop(farewell) => {}
        () = outlived(watchdog) => tracing::warn!("the watchdog is gone: ending without waiting for more answers"),
    }
}

/// Resolves when the watchdog has been gone for as long as answers are waited for then.
async fn outlived(watchdog: &ServerEnd) {
    while watchdog.order().await != Order::Orphaned {}
    tokio::time::sleep(ORPHAN_DRAIN_LIMIT).await;
}
