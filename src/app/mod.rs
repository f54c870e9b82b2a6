//! The parts put together: load a Corefile, serve it, swap a changed one in, stop in order.

mod banner;
mod load;
mod log;
mod memory;
mod service;

use crate::cli::{Cli, Command, ServeOptions, go_style};
use crate::directives::{ORDER, Support};
use anyhow::Context;
use clap::Parser;
use load::Source;
use service::{Options, Service};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The whole program: reads the command line and does what it says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(go_style(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // Fails only when nobody reads; the exit status tells the rest. 0 for --help and --version, 2 for wrong usage.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match cli.command {
        Some(Command::Check { files }) => check(&files, cli.serve.dns_port),
        None if cli.serve.plugins => print_directives(),
        None => serve(&cli.serve),
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

fn serve(options: &ServeOptions) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !options.node.setupinterface && !options.node.setupiptables,
        "this version does not set up the node's interface and rules yet: start it with -setupinterface=false -setupiptables=false"
    );
    let verbosity = log::start();
    // Each TCP client and each upstream socket takes a descriptor; where the limit cannot be raised we serve within it.
    let open_files = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        tracing::debug!("the limit of open files stays as it is: {error}");
        rlimit::Resource::NOFILE.get_soft()
    });
    let source = match options.conf.as_ref().or(options.corefile.as_ref()) {
        Some(path) => Source::from_argument(path)?,
        None => Source::BuiltIn,
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
            source,
            default_port: options.dns_port,
            workers,
            cache_memory,
            limits: service::limits(open_files.unwrap_or(u64::MAX)),
            node_metrics: options.node.metrics_listen_address,
            quiet: options.quiet,
        };
        let service = Service::start(options, verbosity)?;
        run(service).await
    })?;
    Ok(ExitCode::SUCCESS)
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
            () = service.poll_due() => service.reload_if_changed(),
        }
    }
    tokio::select! {
        () = service.stop() => {}
        _ = interrupt.recv() => tracing::warn!("interrupted again: ending without waiting for answers"),
    }
    Ok(())
}
