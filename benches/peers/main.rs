//! `make bench`: nodelocaldns beside other DNS caches, in one run on one machine. README.md beside this folder says
//! what is measured and how to read it.

mod corefiles;
mod datagrams;
mod experiments;
mod floor;
mod generator;
mod hit_path;
mod hits;
mod instructions;
mod lab;
mod libraries;
mod measure;
mod message;
mod options;
mod peers;
mod plot;
mod process;
mod questions;
mod report;
mod tcp;
mod upstream;
mod upstream_tls;
mod workloads;
mod zone;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use experiments::EXPERIMENTS;
use options::{Options, Role};
use report::Results;
use std::path::Path;
use std::process::ExitCode;
use workloads::WORKLOADS;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.role {
        Some(Role::Instructions { update, folder }) => instructions::run(folder, *update),
        Some(Role::HitPath { kind }) => hit_path::run(*kind),
        Some(Role::Floor { address }) => floor::serve(*address).with_context(|| format!("cannot serve {address}")),
        Some(Role::Libraries { address, upstream, entries }) => {
            libraries::serve(*address, *upstream, *entries).with_context(|| format!("cannot serve {address}"))
        }
        Some(Role::Upstream { address, certificate }) => upstream_tls::start(*address, certificate)
            .and_then(|()| upstream::serve((*address).into()).with_context(|| format!("cannot serve {address}"))),
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
    let names: Vec<&str> =
        WORKLOADS.iter().map(|workload| workload.name).chain(EXPERIMENTS.iter().map(|it| it.name)).collect();
    for name in &options.workloads {
        ensure!(names.contains(&name.as_str()), "there is no workload {name}; there are {}", names.join(", "));
    }
    let is_chosen = |name: &str| options.workloads.is_empty() || options.workloads.iter().any(|chosen| chosen == name);
    process::pin_to(lab::GENERATOR_CORE)?;
    process::raise_open_files();
    let lab = lab::Lab::start(options)?;
    let mut results = Results { machine: report::machine(), ..Results::default() };
    for workload in WORKLOADS.iter().filter(|workload| is_chosen(workload.name)) {
        let result = lab.run(workload)?;
        print!("{}", report::table(&result));
        results.workloads.push(result);
    }
    for experiment in EXPERIMENTS.iter().filter(|experiment| is_chosen(experiment.name)) {
        for table in (experiment.run)(&lab)? {
            print!("{}", table.print());
            results.tables.push(table);
        }
    }
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&options.json, serde_json::to_string_pretty(&results)? + "\n")?;
    if let Some(plot) = plot::svg(&results) {
        write(&options.svg, plot)?;
    }
    Ok(())
}
