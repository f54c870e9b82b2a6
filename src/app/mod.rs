//! The parts put together: load a Corefile, serve it, swap a changed one in, stop in order.

mod banner;
mod load;
mod log;
mod memory;
mod rendering;
mod service;
mod setup_errors;

use crate::cli::{Agent, Corefile, Invocation, Mode, Process, ServeOptions};
use crate::corefile::SystemLoader;
use crate::directives::{ORDER, Support};
use crate::kube_dns::render::{ServiceAddress, Values};
use crate::kube_dns::{Target, Template};
use crate::plan::DEFAULT_PORT;
use anyhow::Context;
use load::Source;
use rendering::Rendering;
use service::{Options, Origin, Service};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Where the kube-dns ConfigMap is mounted if nobody says otherwise.
const DEFAULT_KUBE_DNS: &str = "/etc/kube-dns";

/// The whole program: reads the command line and does what it says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let invocation = match Invocation::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Fails only when nobody reads; the exit status tells the rest. 0 for --help, 2 for wrong usage.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match invocation {
        Invocation::Check { files } => check(&files, DEFAULT_PORT),
        Invocation::ListDirectives => print_directives(),
        Invocation::Version => print_version(),
        Invocation::Serve(options) => serve(options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn check(files: &[impl AsRef<Path>], default_port: u16) -> anyhow::Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    let mut out = io::stdout().lock();
    for file in files {
        let (text, is_good) = load::check(file.as_ref(), default_port);
        out.write_all(text.as_bytes())?;
        if !is_good {
            status = ExitCode::FAILURE;
        }
    }
    Ok(status)
}

fn print_directives() -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for keyword in ORDER.iter().filter(|keyword| matches!(keyword.support, Support::Here { .. })) {
        writeln!(out, "{}", keyword.name)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// In the reference's shape: name and version, then what it was built for and from.
fn print_version() -> anyhow::Result<ExitCode> {
    // As Go, and container images, name them.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let revision = option_env!("NODELOCALDNS_REVISION").map(|revision| format!(", {revision}")).unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(out, "nodelocaldns-{}\n{}/{architecture}{revision}", env!("CARGO_PKG_VERSION"), std::env::consts::OS)?;
    Ok(ExitCode::SUCCESS)
}

fn serve(options: ServeOptions) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(options.process == Process::First, "--server-child is for the watchdog's use: start it without");
    if let Mode::Agent(agent) = &options.mode {
        anyhow::ensure!(
            agent.interface.is_none() && agent.interception.is_none(),
            "this version does not set up the node's interface and rules yet: start it with -setupinterface=false -setupiptables=false"
        );
    }
    let verbosity = log::start();
    // Each TCP client and each upstream socket takes a descriptor; where the limit cannot be raised we serve within it.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
    let origin = match options.mode {
        Mode::Plain(Corefile::BuiltIn) => Origin::Source(Source::built_in()),
        Mode::Plain(Corefile::Stdin) => Origin::Source(Source::stdin()?),
        Mode::Plain(Corefile::File(path)) => Origin::Source(Source::file(&path)?),
        Mode::Agent(agent) => Origin::Rendering(Box::new(rendering(*agent, options.dns_port))),
    };
    let workers = options.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let cache_memory = options.cache_memory.unwrap_or_else(|| memory::default_cache_memory(memory::cgroup_limit()));
    if let Some(path) = &options.pidfile {
        let pid = std::process::id();
        std::fs::write(path, format!("{pid}\n")).with_context(|| format!("cannot write the process ID to {}", path.display()))?;
    }
    let control =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the control runtime")?;
    control.block_on(async {
        let options = Options {
            default_port: options.dns_port,
            workers,
            cache_memory,
            node_metrics: options.metrics_listen_address,
            quiet: options.quiet,
        };
        let service = Service::start(origin, options, verbosity)?;
        run(service).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How the agent's Corefile comes about.
fn rendering(agent: Agent, default_port: u16) -> Rendering {
    let values = Values {
        local_addresses: agent.local_addresses,
        port: default_port,
        cluster_dns: ServiceAddress::read(&agent.upstream_service, &SystemLoader),
        prometheus: agent.prometheus_listen_address,
    };
    let default_kube_dns = || Some(PathBuf::from(DEFAULT_KUBE_DNS)).filter(|folder| folder.exists());
    let template = Template::new(agent.template.clone(), agent.kube_dns.or_else(default_kube_dns), values);
    Rendering::new(template, Target::new(agent.conf, agent.template), default_port)
}

/// Serves until a signal says to stop: SIGTERM, SIGINT and SIGQUIT end it in order, SIGUSR1 looks for a changed Corefile. SIGHUP is ignored, as
/// in the reference.
async fn run(mut service: Service) -> anyhow::Result<()> {
    let catch = |kind| signal(kind).context("cannot catch signals");
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    let mut quit = catch(SignalKind::quit())?;
    let mut reload = catch(SignalKind::user_defined1())?;
    let _hangup = catch(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = quit.recv() => break,
            _ = reload.recv() => service.reload(),
            () = service.look_due() => service.reload_if_changed(),
        }
    }
    tokio::select! {
        () = service.stop() => {}
        _ = interrupt.recv() => tracing::warn!("interrupted again: ending without waiting for answers"),
    }
    Ok(())
}
