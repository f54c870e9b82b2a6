//! The figures as text and as JSON.

use crate::measure::{Load, Sample, Series, WorkloadResult, median};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Everything that a run gave.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Processor and kernel.
    pub machine: String,
    pub workloads: Vec<WorkloadResult>,
    pub tables: Vec<Table>,
}

/// Processor and kernel of this machine, as far as /proc tells.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let models: Vec<&str> = processors
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|it| it.1)
        .collect();
    let model = models.first().copied().unwrap_or(std::env::consts::ARCH);
    format!("{} × {model}, Linux {}", models.len().max(1), read("/proc/sys/kernel/osrelease").trim())
}

/// Figures of an experiment: a row for each server, or size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub about: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub label: String,
    pub cells: Vec<f64>,
}

impl Table {
    pub fn new(name: &str, about: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { name: name.to_owned(), about: about.to_owned(), columns, rows: Vec::new() }
    }

    /// As text.
    pub fn print(&self) -> String {
        let mut out = format!("\n{} ({})\n", self.about, self.name);
        let width = |column: &String| column.chars().count().max(10) + 2;
        let first = self.rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0).max(14);
        _ = write!(out, "{:first$}", "");
        for column in &self.columns {
            _ = write!(out, "{column:>0$}", width(column));
        }
        for row in &self.rows {
            _ = write!(out, "\n{:first$}", row.label);
            for (cell, column) in row.cells.iter().zip(&self.columns) {
                let digits = if *cell >= 1000.0 { 0 } else { 2 };
                _ = write!(out, "{cell:>0$.digits$}", width(column));
            }
        }
        out + "\n"
    }
}

impl Row {
    pub fn new(label: &str, cells: &[f64]) -> Self {
        Self { label: label.to_owned(), cells: cells.to_vec() }
    }
}

/// A workload's table.
pub fn table(result: &WorkloadResult) -> String {
    let mut out = format!("\n{} ({})\n", result.about, result.workload);
    _ = writeln!(
        out,
        "{:<14}{:>16}{:>16}{:>9}{:>12}{:>10}{:>10}{:>10}{:>7}",
        "server", "load", "CPU µs/query", "× floor", "queries/s", "p50 µs", "p99 µs", "p99.9 µs", "lost"
    );
    for series in &result.series {
        let Series { peer, load, samples } = series;
        let cpu = |series: &Series| median(&series.samples, |sample| sample.cpu_us);
        let floor = result.series.iter().find(|other| other.peer == "floor" && other.load == *load).map(cpu);
        let ratio = floor.map_or(String::new(), |floor| format!("{:.2}", cpu(series) / floor));
        let load = match load {
            Load::Outstanding(count) => format!("{count} outstanding"),
            Load::Rate(rate) => format!("{rate}/s"),
        };
        let median = |figure: fn(&Sample) -> f64| median(samples, figure);
        _ = writeln!(
            out,
            "{peer:<14}{load:>16}{:>16}{ratio:>9}{:>12.0}{:>10.1}{:>10.1}{:>10.1}{:>7}",
            format!("{:.2} ±{:.2}", cpu(series), spread(samples, |sample| sample.cpu_us)),
            median(|sample| sample.queries_per_second),
            median(|sample| sample.p50_us),
            median(|sample| sample.p99_us),
            median(|sample| sample.p999_us),
            samples.iter().map(|sample| sample.lost).sum::<u64>(),
        );
    }
    for (peer, memory) in &result.memory {
        let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
        _ = writeln!(
            out,
            "{peer:<14} resident {:.1} MiB, proportional {:.1} MiB",
            mib(memory.rss_octets),
            mib(memory.pss_octets)
        );
    }
    out
}

/// Half of the distance between the quartiles.
fn spread(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let at = |share: usize| figures.get(figures.len() * share / 4).or(figures.last()).copied().unwrap_or(0.0);
    (at(3) - at(1)) / 2.0
}
