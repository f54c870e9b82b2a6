//! The watchdog's process, which the user starts.

use super::files::FileServer;
use super::interceptor::NodeInterceptor;
use super::log;
use super::pidfile::Pidfile;
use crate::cli::{AdminSocket, CorefileArgument, Mode, ServeOptions};
use crate::corefile;
use crate::deadline;
use crate::threads;
use crate::watchdog::child::{ServerProgram, SpawnHandle};
use crate::watchdog::state::Timing;
use crate::watchdog::{NoopInterceptor, WatchdogSettings, run};
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// How long the end waits for a server that is just being started.
const START_LIMIT: Duration = Duration::from_secs(1);

/// Guards the server until told to stop.
pub(super) fn guard(options: ServeOptions) -> anyhow::Result<ExitCode> {
    let verbosity = log::start().context("cannot start the thread that writes log lines")?;
    // For the server, which inherits it and may not raise it: each TCP client and each upstream socket takes a
    // descriptor.
    if let Err(error) = raise_open_files_limit() {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
    // Removed at whichever end of this function.
    let _pidfile = options.pidfile.map(Pidfile::write).transpose()?;
    let runtime = new_runtime().context("cannot start the runtime")?;
    let reads_stdin = options.mode == Mode::Plain(CorefileArgument::Stdin);
    let input = match reads_stdin {
        false => None,
        true => match runtime.block_on(read_stdin())? {
            Some(input) => Some(input),
            None => return Ok(ExitCode::SUCCESS),
        },
    };
    let mut program = ServerProgram::new(std::env::args_os().collect());
    program.shield_from_oom();
    let file_server = Arc::new(FileServer::new(options.mode.clone(), options.dns_port, input));
    let agent = match options.mode {
        Mode::Agent(agent) => Some(*agent),
        Mode::Plain(_) => None,
    };
    let (spawner, spawn_loop) = SpawnHandle::new(program);
    let settings = WatchdogSettings {
        spawner,
        files: Box::new(move |channel| file_server.serve(channel)),
        timing: Timing::default(),
        keep_node: agent.as_ref().is_some_and(|agent| agent.skip_teardown),
        probe_mark: agent.as_ref().filter(|agent| !agent.interception.is_none()).map(|agent| agent.probe_mark),
        addresses: agent.as_ref().map(|agent| agent.local_addresses.clone()).unwrap_or_default(),
        handover: options.handover,
        metrics_address: options.metrics_listen_address,
        status_page: options.status_page,
        set_log_level: Box::new(move |level| verbosity.set(level, "watchdog")),
        admin_label: match options.admin_socket {
            AdminSocket::Off => None,
            AdminSocket::Label(label) => Some(label),
            AdminSocket::Own => Some(match agent.as_ref().and_then(|agent| agent.local_addresses.first()) {
                Some(address) => address.to_string(),
                None => format!("pid-{}", std::process::id()),
            }),
        },
    };
    // This thread, the main one, starts servers; all else is on another, which nothing that a start may wait for holds
    // up.
    drop(runtime);
    let guard = async move {
        match agent.filter(|agent| agent.interface.is_some() || !agent.interception.is_none()) {
            Some(agent) => {
                let interceptor = NodeInterceptor::new(&agent, options.dns_port);
                run(settings, interceptor).await
            }
            None => run(settings, NoopInterceptor).await,
        }
    };
    let (end, ended) = mpsc::channel();
    let (handle, _guarding) = threads::spawn_with_runtime("watchdog", None, new_runtime, move |runtime| {
        let status = runtime.block_on(guard);
        // Nothing that it may still wait for keeps this process.
        runtime.shutdown_background();
        let exit = status.as_ref().map_or(1, |status| i32::from(*status));
        if end.send(status).is_ok() {
            std::thread::sleep(START_LIMIT);
        }
        // The main thread still waits for a start.
        drop(log::FlushOnDrop);
        std::process::exit(exit);
    })?;
    spawn_loop.serve(&handle);
    Ok(ExitCode::from(ended.recv().context("the watchdog's thread has ended before its time: please report this")??))
}

/// Allows this process as many open files as it may have.
fn raise_open_files_limit() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
}

fn new_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// All that standard input has, as soon as that ends. None if this process is told to end first: whoever writes it may
/// hang.
async fn read_stdin() -> anyhow::Result<Option<Vec<u8>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let read = deadline::begin(|| corefile::read_at_most(io::stdin()))?;
    tokio::select! {
        input = read => Ok(Some(input?.context("cannot read the Corefile from standard input")?)),
        _ = terminate.recv() => Ok(None),
        _ = interrupt.recv() => Ok(None),
    }
}
