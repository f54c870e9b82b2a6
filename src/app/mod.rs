//! The parts put together: load a Corefile, serve it, swap a changed one in, stop in order.

mod banner;
mod load;
mod log;
mod memory;
mod server_process;
mod service;
mod watchdog_process;

use crate::cli::{Cli, Command, ServeOptions, go_style};
use crate::directives::{ORDER, Support};
use crate::watchdog::ServerEnd;
use clap::Parser;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

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

/// As the watchdog, which starts this program again as the server.
fn serve(options: &ServeOptions) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !options.node.setupinterface && !options.node.setupiptables,
        "this version does not set up the node's interface and rules yet: start it with -setupinterface=false -setupiptables=false"
    );
    // First of all: capabilities are a thread's, and there must be one only.
    match ServerEnd::from_environment()? {
        Some(watchdog) => server_process::serve(options, watchdog),
        None => watchdog_process::guard(options),
    }
}
