//! The command `doctor`: collects findings, makes a diagnosis of them, prints it.

use super::interceptor::spec;
use crate::cli::{Doctor, Invocation, Mode, OutputFormat, ServeOptions};
use crate::doctor::{Expectation, agents, collect, diagnose};
use anyhow::Context;
use std::io::{self, Write};
use std::process::ExitCode;

/// Wrong usage, as clap's own errors.
const USAGE: u8 = 2;

/// Examines this node; the exit status is that of the diagnosis.
pub(super) fn examine(doctor: Doctor) -> anyhow::Result<ExitCode> {
    let (output, name) = (doctor.output, doctor.name.clone());
    let Some((options, agent)) = doctor.completed(running()) else {
        writeln!(
            io::stderr(),
            "no agent is seen here whose -localip could be taken over: add the addresses it serves, such as -localip 169.254.20.10,10.96.0.10"
        )?;
        return Ok(ExitCode::from(USAGE));
    };
    let expected = Expectation {
        spec: spec(&agent, options.dns_port),
        backend: agent.interception,
        metrics_address: options.metrics_listen_address,
        name,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let findings = runtime.block_on(collect(&expected));
    // What was given up on is not waited for.
    runtime.shutdown_background();
    let diagnosis = diagnose(&expected, &findings);
    let mut out = io::stdout().lock();
    match output {
        OutputFormat::Text => write!(out, "{diagnosis}")?,
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut out, &diagnosis)?;
            writeln!(out)?;
        }
    }
    Ok(ExitCode::from(diagnosis.verdict.exit_status()))
}

/// What the agent that runs here was told, if one is seen.
fn running() -> Option<ServeOptions> {
    let told = agents().into_iter().filter(|agent| !agent.is_server);
    let options = told.filter_map(|agent| match Invocation::parse(agent.arguments.into_iter().map(Into::into)) {
        Ok(Invocation::Serve(options)) => Some(options),
        _ => None,
    });
    options.into_iter().find(|options| matches!(options.mode, Mode::Agent(_)))
}
