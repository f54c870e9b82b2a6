//! `make bench`: nodelocaldns beside other DNS caches, in one run on one machine. README.md beside this folder says what is measured
//! and how to read it.

mod datagrams;
mod floor;
mod generator;
mod measure;
mod message;
mod options;
mod peers;
mod process;
mod questions;
mod report;
mod upstream;
mod workloads;
mod zone;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use options::{Options, Role};
use std::process::ExitCode;
use workloads::WORKLOADS;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match options.role {
        Some(Role::Floor { address }) => floor::serve(address).with_context(|| format!("cannot serve {address}")),
        Some(Role::Upstream { address }) => upstream::serve(address).with_context(|| format!("cannot serve {address}")),
        None => run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    for name in &options.workloads {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        ensure!(names.contains(&name.as_str()), "there is no workload {name}; there are {}", names.join(", "));
    }
    process::pin_to(measure::GENERATOR_CORE)?;
    let bench = measure::Bench::start(options)?;
    let mut results = Vec::new();
    for workload in WORKLOADS {
        if options.workloads.is_empty() || options.workloads.iter().any(|name| name == workload.name) {
            let result = bench.run(workload)?;
            print!("{}", report::table(&result));
            results.push(result);
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
