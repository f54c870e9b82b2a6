//! A real node, booted: Debian's kernels under qemu, with the program, tools and cases inside (tests/lab/README.md).
//! One program on both sides: what the user runs, and the first process of the machine that it boots.

mod case;
mod cases;
mod channel;
mod container;
mod guest;
mod host;
mod node;

#[allow(dead_code, reason = "the tests of the interception use the rest")]
#[path = "../../interception/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "the fault table uses the rest")]
#[path = "../../faults/kube_dns.rs"]
mod kube_dns;
#[allow(dead_code, reason = "the fault table uses the rest")]
#[path = "../../faults/load.rs"]
mod load;
#[allow(dead_code, reason = "the tests of the manifest use the rest")]
#[path = "../../manifest/objects.rs"]
mod objects;
#[allow(dead_code, reason = "the fault table uses the rest")]
#[path = "../../faults/records.rs"]
mod records;
mod support;
#[allow(dead_code, reason = "the fault table uses the rest")]
#[path = "../../faults/wire.rs"]
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Boots Debian's kernels with the program inside and runs cases there.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cases whose names begin with one of these; without any, all.
    Run {
        beginnings: Vec<String>,
        /// Only those for every change.
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        subject: Subject,
    },
    /// Say which cases there are.
    List,
    /// Give a prompt inside: on the machine of the case whose name begins so.
    Shell { beginning: Option<String> },
    /// Run a case on this machine's kernel, in namespaces, as root.
    Here { name: String },
    /// Run a case in the namespaces that this is in.
    #[command(hide = true)]
    Case { name: String },
}

/// What is tried, if not what the checkout holds.
#[derive(clap::Args)]
struct Subject {
    /// The program, static or linked against libraries of Debian's; else the one that cargo built here.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Objects of Kubernetes in YAML, a DaemonSet among them, as the chart makes them; else manifests/base.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

fn main() -> ExitCode {
    // A case in namespaces is the first process there, too.
    let is_case = std::env::args().nth(1).is_some_and(|first| first == "case");
    if std::process::id() == 1 && !is_case && std::path::Path::new(channel::PLAN).exists() {
        guest::init::run();
    }
    let is_good = match Arguments::parse().command {
        Command::Run { beginnings, quick, subject } => host::run::run(&beginnings, quick, subject),
        Command::List => list(),
        Command::Shell { beginning } => host::run::shell(beginning.as_deref().unwrap_or_default()),
        Command::Here { name } => host::run::here(&name),
        Command::Case { name } => guest::case::run(&name),
    };
    match is_good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<bool> {
    for case in cases::all() {
        let kernels: Vec<String> = case.kernels.iter().map(ToString::to_string).collect();
        println!("{:<60} {}{}", case.name, kernels.join(", "), if case.is_quick { ", quick" } else { "" });
    }
    Ok(true)
}
