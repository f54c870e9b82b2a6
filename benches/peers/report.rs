//! The figures as text and as JSON.

use crate::measure::{Load, Sample, Series, WorkloadResult, median};
use std::fmt::Write;

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
