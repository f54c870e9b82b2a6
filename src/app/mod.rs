//! The commands of the program, made of the modules above: serve, check, fmt, render, doctor, teardown, top, cache,
//! explain, queries, log-level.

mod admin;
mod banner;
mod cache_handover;
mod check;
mod configuration_files;
mod configuration_parts;
mod corefile_template;
mod doctor;
mod explain;
mod fallback_plan;
#[doc(hidden)]
pub mod files;
mod format;
#[doc(hidden)]
pub mod host;
mod interceptor;
mod load;
mod log;
mod memory;
mod pidfile;
mod predecessor;
mod queries;
mod render;
mod rendering;
mod served_record;
mod server_process;
mod service;
mod setup_errors;
mod top;
mod watchdog_process;

use crate::chain::LineSink;
use crate::cli::{Invocation, ServeOptions, Shell};
use crate::deadline;
use crate::directives::{ORDER, Support};
use crate::node::{self, Fallback, NodeSpec};
use crate::plan::DEFAULT_PORT;
use crate::watchdog::ControlClient;
use load::Strictness;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long wrong usage is told of, should nobody read it.
const COMPLAINT_LIMIT: Duration = Duration::from_secs(2);

/// The whole program: reads the command line and does what it says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let invocation = match Invocation::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            // 0 for --help, 2 for wrong usage.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            // Fails only when nobody reads; the status tells the rest. Help is waited for, since a pager reads it as it
            // is turned.
            let print = move || _ = error.print();
            if status == 0 {
                print();
            } else {
                _ = deadline::within(COMPLAINT_LIMIT, print);
            }
            return ExitCode::from(status);
        }
    };
    let _flush = log::FlushOnDrop;
    let outcome = match invocation {
        Invocation::Check { files, is_strict, is_portable } => check(&files, Strictness { is_strict, is_portable }),
        Invocation::Format { files, how } => format::format(&files, how),
        Invocation::Render(flags) => render::render(&flags),
        Invocation::Teardown { local_addresses, interface } => tear_down(local_addresses, interface),
        Invocation::Sleep { time } => {
            std::thread::sleep(time);
            Ok(ExitCode::SUCCESS)
        }
        Invocation::Doctor(doctor) => doctor::examine(*doctor),
        Invocation::Completions(shell) => print_completions(shell),
        Invocation::Top { how, from } => top::run(how, &from),
        Invocation::Cache { request, socket } => admin::ask_cache(&request, &socket),
        Invocation::Explain(command) => explain::explain(&command),
        Invocation::LogLevel { request, socket } => admin::log_level(request, &socket),
        Invocation::Queries(command) => queries::watch(&command),
        Invocation::ListDirectives => print_directives(),
        Invocation::Version => print_version(),
        Invocation::Serve(options) => serve(options),
    };
    outcome.unwrap_or_else(|error| {
        log::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn check(files: &[impl AsRef<Path>], how: Strictness) -> anyhow::Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    let mut out = io::stdout().lock();
    for file in files {
        let (text, is_good) = check::check(file.as_ref(), DEFAULT_PORT, how);
        out.write_all(text.as_bytes())?;
        if !is_good {
            status = ExitCode::FAILURE;
        }
    }
    Ok(status)
}

/// Every error is told; what can be removed is.
fn tear_down(addresses: Vec<IpAddr>, interface: String) -> anyhow::Result<ExitCode> {
    log::start()?;
    // Ports and mark do not matter: rules are known by their comments.
    let fallback = Fallback::default();
    let spec =
        NodeSpec { addresses, port: DEFAULT_PORT, health_port: 0, interface: Some(interface), probe_mark: 1, fallback };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let errors = runtime.block_on(node::teardown(&spec));
    for error in &errors {
        tracing::error!("{error}");
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_completions(shell: Shell) -> anyhow::Result<ExitCode> {
    io::stdout().lock().write_all(shell.script().as_bytes())?;
    Ok(ExitCode::SUCCESS)
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

/// As the watchdog, which starts this program again as the server.
fn serve(options: ServeOptions) -> anyhow::Result<ExitCode> {
    LineSink::set_format(options.log_format);
    // First of all: capabilities are a thread's, and there must be one only.
    match ControlClient::from_environment()? {
        Some(watchdog) => server_process::serve(options, watchdog),
        None => watchdog_process::guard(options),
    }
}
