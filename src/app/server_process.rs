//! The server: everything that answers queries, on sockets that the watchdog holds, without any capability.

use super::log;
use super::look::Origin;
use super::memory;
use super::rendering::Rendering;
use super::service::{Farewell, Options, Service};
use crate::cli::{Agent, Mode, ServeOptions};
use crate::corefile::SystemLoader;
use crate::deadline;
use crate::kube_dns::render::{ServiceAddress, Values};
use crate::kube_dns::{Target, Template};
use crate::watchdog::{Order, ServerEnd};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Where the kube-dns ConfigMap is mounted if nobody says otherwise.
const DEFAULT_KUBE_DNS: &str = "/etc/kube-dns";

/// How long the start waits to know whether it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `ps` and `top` call it; started through /proc/self/exe it would be `exe`.
const NAME: &std::ffi::CStr = c"nodelocaldns";

/// Serves until told to stop.
pub fn serve(options: ServeOptions, watchdog: ServerEnd) -> anyhow::Result<ExitCode> {
    // Best effort: only for those who look.
    _ = rustix::thread::set_name(NAME);
    let watchdog = Arc::new(watchdog);
    let outcome = load_and_serve(options, &watchdog);
    if let Err(error) = &outcome {
        watchdog.report_failure(format!("{error:#}"));
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn load_and_serve(options: ServeOptions, watchdog: &Arc<ServerEnd>) -> anyhow::Result<()> {
    let verbosity = log::start().context("cannot start the thread that writes log lines")?;
    let origin = match options.mode {
        Mode::Plain(corefile) => Origin::Plain(corefile),
        Mode::Agent(agent) => Origin::Rendering(Box::new(rendering(*agent, options.dns_port))),
    };
    let workers = options.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let cgroup_limit = memory::cgroup_limit();
    let cache_memory = options.cache_memory.unwrap_or_else(|| memory::default_cache_memory(cgroup_limit));
    // The watchdog has raised it.
    let open_files = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
    let control =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control runtime")?;
    control.block_on(async {
        let options = Options {
            default_port: options.dns_port,
            workers,
            cache_memory,
            limits: memory::client_limits(cgroup_limit, workers, open_files),
            quiet: options.quiet || !watchdog.is_first(),
            watchdog: watchdog.clone(),
        };
        let signals = Signals::catch().context("cannot catch signals")?;
        let service = Service::start(origin, options, verbosity).await?;
        tokio::spawn(memory::watch(service.cache_memory(), service.capacity(), workers, open_files));
        run(service, watchdog, signals).await;
        Ok(())
    })
}

/// How the agent's Corefile comes about.
fn rendering(agent: Agent, default_port: u16) -> Rendering {
    let values = Values {
        local_addresses: agent.local_addresses,
        port: default_port,
        cluster_dns: ServiceAddress::read(&agent.upstream_service, &SystemLoader),
        prometheus: agent.prometheus_listen_address,
    };
    // A file system that does not answer is there, and is waited for where it is read.
    let exists = || deadline::within(PATIENCE, || Path::new(DEFAULT_KUBE_DNS).exists()).unwrap_or(true);
    let default_kube_dns = || exists().then(|| PathBuf::from(DEFAULT_KUBE_DNS));
    let template = Template::new(agent.template.clone(), agent.kube_dns.or_else(default_kube_dns), values);
    Rendering::new(template, Target::new(agent.conf, agent.template), default_port)
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
    /// SIGINT and SIGQUIT of a terminal go to the watchdog too, which says when to stop; SIGHUP is ignored, as in the reference.
    _ignored: [tokio::signal::unix::Signal; 3],
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
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
                Order::ProbeUpstreams => service.probe_upstreams(),
                Order::ExportCache => service.export_cache(),
                Order::Stop { leave: false } => break Farewell::Ordered,
                Order::Stop { leave: true } => break Farewell::Succeeded,
                Order::Orphaned => return end_orphaned(),
            },
            _ = signals.terminate.recv() => break Farewell::Replaced,
            _ = signals.reload.recv() => service.reload(),
            due = service.due() => service.perform(due).await,
        }
    };
    tokio::select! {
        () = service.stop(farewell) => {}
        () = orphaned(watchdog) => end_orphaned(),
    }
}

/// As the kernel is about to end this process, should that not be so already: rules first, then sockets. In any order of our own queries would
/// meet rules without sockets, or answers be sent without rules.
fn end_orphaned() {
    tracing::warn!("the watchdog is gone, so this server ends at once");
    // Fails for no process that there is.
    _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

async fn orphaned(watchdog: &ServerEnd) {
    while watchdog.order().await != Order::Orphaned {}
}
