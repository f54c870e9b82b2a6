//! The watchdog: the process that the user starts.

use super::log;
use crate::cli::ServeOptions;
use crate::watchdog::child::Program;
use crate::watchdog::state::Timing;
use crate::watchdog::{Idle, Settings, run};
use anyhow::Context;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// Guards the server until told to stop.
pub fn guard(options: &ServeOptions) -> anyhow::Result<ExitCode> {
    log::start();
    // For the server, which inherits it and may not raise it: each TCP client and each upstream socket takes a descriptor.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
    if let Some(path) = &options.pidfile {
        let pid = std::process::id();
        std::fs::write(path, format!("{pid}\n")).with_context(|| format!("cannot write the process ID to {}", path.display()))?;
    }
    let reads_stdin = options.conf.as_ref().or(options.corefile.as_ref()).is_some_and(|path| path == Path::new("stdin"));
    let mut stdin = std::io::stdin();
    let input = reads_stdin.then_some(&mut stdin as &mut dyn Read);
    let mut program =
        Program::new(std::env::args_os().collect(), input).context("cannot keep the Corefile from standard input")?;
    program.shield_from_oom();
    let settings = Settings {
        program,
        timing: Timing::default(),
        keep_node: options.node.skipteardown,
        probe_mark: None,
        metrics_address: options.node.metrics_listen_address,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let status = runtime.block_on(run(settings, || async { Idle }))?;
    Ok(ExitCode::from(status))
}
