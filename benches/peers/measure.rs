//! Rounds: every server in turn under the same load, again and again, so that what disturbs the machine for a while
//! disturbs all.

use crate::generator::{End, Outcome};
use crate::lab::{Lab, Server, Setup};
use crate::peers::Peer;
use crate::process::Memory;
use crate::questions::Questions;
use crate::tcp;
use crate::workloads::{Over, Workload};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a server was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// A closed loop with so many queries outstanding.
    Outstanding(usize),
    /// So many queries a second.
    Rate(u32),
}

/// What one round of one server gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// CPU time of all its processes, in microseconds a query.
    pub cpu_us: f64,
    pub queries_per_second: f64,
    /// Latency in microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub lost: u64,
}

/// All rounds of one server under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Series {
    pub peer: String,
    pub load: Load,
    pub samples: Vec<Sample>,
}

/// What a workload gave.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadResult {
    pub workload: String,
    pub about: String,
    pub series: Vec<Series>,
    /// At the end of all rounds.
    pub memory: Vec<(String, Memory)>,
}

impl Lab<'_> {
    /// Measures one workload.
    pub fn run(&self, workload: &Workload) -> Result<WorkloadResult> {
        let setup = Setup::new(workload.name, workload.service);
        let mut servers = Vec::new();
        for peer in self.options.peers() {
            if (peer != Peer::Floor || workload.has_floor)
                && let Some(mut server) = self.server(peer, &setup)?
            {
                server
                    .ask_each((workload.warm)())
                    .with_context(|| format!("{} under {}", peer.name(), workload.name))?;
                servers.push(server);
            }
        }
        let mut series = Vec::new();
        let mut run = 0;
        for outstanding in workload.outstanding {
            let load = Load::Outstanding(*outstanding);
            series.extend(self.rounds(workload, &mut servers, load, &mut run)?);
        }
        if workload.at_fixed_rate {
            let load = Load::Rate(self.options.rate.unwrap_or_else(|| half_of_the_slowest(&series)));
            series.extend(self.rounds(workload, &mut servers, load, &mut run)?);
        }
        let memory = servers
            .iter()
            .map(|server| Ok((server.peer.name().to_owned(), server.process.memory()?)))
            .collect::<Result<_>>()?;
        Ok(WorkloadResult { workload: workload.name.to_owned(), about: workload.about.to_owned(), series, memory })
    }

    fn rounds(&self, workload: &Workload, servers: &mut [Server], load: Load, run: &mut u32) -> Result<Vec<Series>> {
        let mut all: Vec<Series> = servers
            .iter()
            .map(|server| Series { peer: server.peer.name().to_owned(), load, samples: Vec::new() })
            .collect();
        for round in 0..=self.options.rounds() {
            for (server, series) in servers.iter_mut().zip(&mut all) {
                *run += 1;
                let mut questions = server.questions((workload.questions)(*run));
                // The first one only settles.
                let settle = Duration::from_secs_f64(workload.settle);
                let duration = if round > 0 || self.options.check { self.options.duration() } else { settle };
                let sample =
                    server.measure(&mut *questions, workload.over, load, duration, !self.options.check).with_context(
                        || format!("{} under the workload {}, {load:?}", server.peer.name(), workload.name),
                    )?;
                if round > 0 {
                    series.samples.push(sample);
                }
            }
        }
        Ok(all)
    }
}

impl Server {
    /// One round.
    pub fn measure(
        &mut self,
        questions: &mut dyn Questions,
        over: Over,
        load: Load,
        duration: Duration,
        heeds_loss: bool,
    ) -> Result<Sample> {
        let (outcome, cpu) = self.cpu_time_of(|server| match (load, over) {
            (Load::Outstanding(outstanding), Over::Udp) => {
                server.generator.closed_loop(questions, outstanding, End::After(duration))
            }
            (Load::Outstanding(outstanding), Over::Tcp { connections }) => {
                tcp::closed_loop(server.address.into(), questions, connections, outstanding, duration)
            }
            (Load::Rate(rate), _) => server.generator.fixed_rate(questions, f64::from(rate), duration),
        })?;
        self.check_answers(&outcome)?;
        if heeds_loss {
            outcome.check_loss()?;
        }
        Ok(sample(outcome, cpu))
    }
}

fn sample(mut outcome: Outcome, cpu: Duration) -> Sample {
    outcome.latencies.sort_unstable();
    let percentile = |share: f64| {
        let index = (share * outcome.latencies.len() as f64) as usize;
        outcome.latencies.get(index.min(outcome.latencies.len() - 1)).map_or(0.0, |latency| f64::from(*latency) / 1e3)
    };
    Sample {
        cpu_us: cpu.as_secs_f64() * 1e6 / outcome.answered as f64,
        queries_per_second: outcome.answered as f64 / outcome.elapsed.as_secs_f64(),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        p999_us: percentile(0.999),
        lost: outcome.lost,
    }
}

/// A rate that every server can hold: half of what the slowest answers in its best closed loop.
fn half_of_the_slowest(series: &[Series]) -> u32 {
    let best = |peer: &str| {
        let of_peer = series.iter().filter(|series| series.peer == peer);
        of_peer.map(|series| median(&series.samples, |sample| sample.queries_per_second)).fold(0.0, f64::max)
    };
    let slowest = series.iter().map(|series| best(&series.peer)).fold(f64::INFINITY, f64::min);
    (slowest / 2.0 / 1000.0).floor().max(1.0) as u32 * 1000
}

/// The median of a figure over samples; 0 without any.
pub fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    match (figures.len(), figures.len() / 2) {
        (0, _) => 0.0,
        (count, middle) if count % 2 == 1 => figures[middle],
        (_, middle) => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}
