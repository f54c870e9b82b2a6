//! What is not one load put to every server in turn: memory, start, idle connections, workers, and how cost grows.

mod idle;
mod memory;
mod scaling;
mod start;
mod workers;

use crate::generator::End;
use crate::lab::{Lab, Server};
use crate::questions::Questions;
use crate::report::Table;
use anyhow::Result;
use std::time::Duration;

/// One of them, by the name that `--workload` knows it by.
pub struct Experiment {
    pub name: &'static str,
    pub run: fn(&Lab<'_>) -> Result<Vec<Table>>,
}

/// In the order of the report.
pub const EXPERIMENTS: &[Experiment] = &[
    Experiment { name: "idle", run: idle::run },
    Experiment { name: "memory", run: memory::run },
    Experiment { name: "start", run: start::run },
    Experiment { name: "workers", run: workers::run },
    Experiment { name: "scaling", run: scaling::run },
];

/// Queries outstanding where the number is not what is looked at.
const OUTSTANDING: usize = 64;

/// The median CPU time of a query, in microseconds, over the rounds of the options.
fn cpu_per_query(lab: &Lab<'_>, server: &mut Server, mut questions: Box<dyn Questions>) -> Result<f64> {
    let mut figures = Vec::new();
    // The first one only settles.
    for _ in 0..=lab.options.rounds() {
        let (outcome, cpu) = server.cpu_time_of(|server| {
            server.generator.closed_loop(&mut *questions, OUTSTANDING, End::After(lab.options.duration()))
        })?;
        server.check_answers(&outcome)?;
        figures.push(microseconds(cpu) / outcome.answered as f64);
    }
    Ok(median(figures.split_off(1)))
}

/// 0 of nothing.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}
