//! The server's process. It answers queries on sockets that the watchdog holds, without any capability.

use super::configuration_files::CorefileOrigin;
use super::files::FileClient;
use super::log;
use super::memory;
use super::rendering::Rendering;
use super::service::{Service, ServiceOptions, StopReason};
use crate::admin::{self, AdminCommand};
use crate::cli::{Mode, ServeOptions};
use crate::query_stats::{QueryStats, STRETCH};
use crate::sandbox::MissingLayer;
use crate::watchdog::{ControlClient, ServerCommand};
use anyhow::Context;
use rustix::process::{Resource, getrlimit};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What `ps` and `top` call it; started through /proc/self/exe it would be `exe`.
const NAME: &std::ffi::CStr = c"nodelocaldns";

/// Serves until told to stop.
pub(super) fn serve(options: ServeOptions, watchdog: ControlClient) -> anyhow::Result<ExitCode> {
    // Best effort: only for those who look.
    _ = rustix::thread::set_name(NAME);
    let watchdog = Arc::new(watchdog);
    let outcome = load_and_serve(options, &watchdog);
    if let Err(error) = &outcome {
        watchdog.report_failure(format!("{error:#}"));
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn load_and_serve(options: ServeOptions, watchdog: &Arc<ControlClient>) -> anyhow::Result<()> {
    let verbosity = log::start().context("cannot start the thread that writes log lines")?;
    log_missing_layers(watchdog);
    let files =
        watchdog.take_files().context("the watchdog has passed nothing to read files with: please report this")?;
    let files =
        Arc::new(FileClient::new(files).context("what the watchdog has passed to read files with cannot be used")?);
    let origin = match options.mode {
        Mode::Plain(corefile) => CorefileOrigin::Plain(corefile),
        Mode::Agent(agent) => {
            CorefileOrigin::Rendering(Box::new(Rendering::new(&agent, options.dns_port, files.clone())))
        }
    };
    let workers =
        options.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let cgroup_limit = memory::cgroup_limit();
    let cache_memory = options.cache_memory.unwrap_or_else(|| memory::default_cache_memory(cgroup_limit));
    // The watchdog has raised it.
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    control.block_on(async {
        let options = ServiceOptions {
            default_port: options.dns_port,
            workers,
            cache_memory,
            limits: memory::client_limits(cgroup_limit, workers, open_files),
            quiet: options.quiet || !watchdog.is_first(),
            files,
            watchdog: watchdog.clone(),
        };
        let signals = ServerSignals::catch().context("cannot catch signals")?;
        let service = Service::start(origin, options, verbosity).await?;
        tokio::spawn(sum_up(service.query_stats()));
        tokio::spawn(memory::watch(service.cache_memory(), service.capacity(), workers, open_files));
        let (commands, wanted) = mpsc::unbounded_channel();
        if let Some(socket) = watchdog.take_admin()
            && let Err(error) = admin::serve(socket, service.admin_context(commands))
        {
            tracing::warn!("the admin socket is not served: {error}");
        }
        run(service, watchdog, signals, wanted).await;
        Ok(())
    })
}

/// Says once what the sandbox lacks.
fn log_missing_layers(watchdog: &ControlClient) {
    let missing_layers = watchdog.missing_layers();
    let text = missing_layers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; without ");
    match watchdog.is_first() && !missing_layers.iter().all(MissingLayer::is_expected) {
        true => tracing::info!("sandbox: the server runs without {text}"),
        false if !missing_layers.is_empty() => tracing::debug!("sandbox: the server runs without {text}"),
        false => {}
    }
}

/// Ends a stretch of what is recorded after the other.
async fn sum_up(stats: Arc<QueryStats>) {
    loop {
        tokio::time::sleep(STRETCH).await;
        stats.tick(Instant::now());
    }
}

struct ServerSignals {
    terminate: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
    /// SIGINT and SIGQUIT of a terminal go to the watchdog too, which says when to stop; SIGHUP is ignored, as in the
    /// reference.
    _ignored: [tokio::signal::unix::Signal; 3],
}

impl ServerSignals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            reload: signal(SignalKind::user_defined1())?,
            _ignored: [signal(SignalKind::interrupt())?, signal(SignalKind::quit())?, signal(SignalKind::hangup())?],
        })
    }
}

/// Serves until the watchdog, its end, or SIGTERM says to stop.
async fn run(
    mut service: Service,
    watchdog: &ControlClient,
    mut signals: ServerSignals,
    mut wanted: mpsc::UnboundedReceiver<AdminCommand>,
) {
    let reason = loop {
        tokio::select! {
            command = watchdog.next_command() => match command {
                ServerCommand::Reload => service.reload_now(),
                ServerCommand::ProbeUpstreams => service.probe_upstreams(),
                ServerCommand::ExportCache => service.export_cache(),
                ServerCommand::Yield { is_on } => service.yield_to_successor(is_on),
                ServerCommand::LogLevel { level } => service.set_log_level(level),
                ServerCommand::Stop { leave: false } => break StopReason::Shutdown,
                ServerCommand::Stop { leave: true } => break StopReason::HandedOver,
                ServerCommand::Orphaned => return end_orphaned(),
            },
            _ = signals.terminate.recv() => break StopReason::Restart,
            _ = signals.reload.recv() => service.reload_now(),
            Some(command) = wanted.recv() => service.obey(command),
            event = service.next_event() => service.handle(event).await,
        }
    };
    tokio::select! {
        () = service.stop(reason) => {}
        () = orphaned(watchdog) => end_orphaned(),
    }
}

/// As the kernel is about to end this process, should that not be so already: rules first, then sockets. In any order
/// of our own queries would meet rules without sockets, or answers be sent without rules.
fn end_orphaned() {
    tracing::warn!("the watchdog is gone, so this server ends at once");
    // Fails for no process that there is.
    _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

async fn orphaned(watchdog: &ControlClient) {
    while watchdog.next_command().await != ServerCommand::Orphaned {}
}
