//! The watchdog: the process that the user starts.

use super::interceptor::NodeInterceptor;
use super::log;
use crate::cli::{Corefile, Mode, ServeOptions};
use crate::watchdog::child::Program;
use crate::watchdog::state::Timing;
use crate::watchdog::{Idle, Settings, run};
use anyhow::Context;
use std::io::Read;
use std::process::ExitCode;

/// Guards the server until told to stop.
pub fn guard(options: ServeOptions) -> anyhow::Result<ExitCode> {
    log::start();
    // For the server, which inherits it and may not raise it: each TCP client and each upstream socket takes a descriptor.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
    if let Some(path) = &options.pidfile {
        let pid = std::process::id();
        std::fs::write(path, format!("{pid}\n")).with_context(|| format!("cannot write the process ID to {}", path.display()))?;
    }
    let mut stdin = std::io::stdin();
    let reads_stdin = options.mode == Mode::Plain(Corefile::Stdin);
    let input = reads_stdin.then_some(&mut stdin as &mut dyn Read);
    let mut program =
        Program::new(std::env::args_os().collect(), input).context("cannot keep the Corefile from standard input")?;
    program.shield_from_oom();
    let agent = match options.mode {
        Mode::Agent(agent) => Some(*agent),
        Mode::Plain(_) => None,
    };
    let settings = Settings {
        program,
        timing: Timing::default(),
        keep_node: agent.as_ref().is_some_and(|agent| agent.skip_teardown),
        probe_mark: agent.as_ref().and_then(|agent| agent.interception.map(|_| agent.probe_mark)),
        addresses: agent.as_ref().map(|agent| agent.local_addresses.clone()).unwrap_or_default(),
        handover: options.handover,
        metrics_address: options.metrics_listen_address,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let status = runtime.block_on(async {
        match agent.filter(|agent| agent.interface.is_some() || agent.interception.is_some()) {
            Some(agent) => {
                let interceptor = NodeInterceptor::new(&agent, options.dns_port);
                run(settings, || async { interceptor }).await
            }
            None => run(settings, || async { Idle }).await,
        }
    })?;
    Ok(ExitCode::from(status))
}
