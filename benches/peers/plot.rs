//! CPU time per query as an SVG: a panel for each workload, a bar for each server, each panel with a scale of its own.

use crate::measure::{Load, Series, WorkloadResult, median};
use crate::report::Results;
use std::fmt::Write;

const PANEL_WIDTH: f64 = 470.0;
const LABEL_WIDTH: f64 = 105.0;
const BAR_WIDTH: f64 = 290.0;
const ROW: f64 = 22.0;
const TITLE: f64 = 44.0;
const HEADING: f64 = 62.0;
const COLUMNS: usize = 2;

/// A server's bar.
struct Bar<'a> {
    peer: &'a str,
    cpu_us: f64,
}

/// The plot of all workloads that have more than one server; `None` if none has.
pub fn svg(results: &Results) -> Option<String> {
    let panels: Vec<(&WorkloadResult, Vec<Bar<'_>>)> =
        results.workloads.iter().map(|result| (result, bars(result))).filter(|(_, bars)| bars.len() > 1).collect();
    let rows = panels.iter().map(|(_, bars)| bars.len()).max()?;
    let panel_height = TITLE + ROW * rows as f64 + 16.0;
    let (width, height) =
        (PANEL_WIDTH * COLUMNS as f64, HEADING + panel_height * panels.len().div_ceil(COLUMNS) as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#24292f\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"14\" y=\"26\" font-size=\"16\" font-weight=\"bold\">CPU time per query, in microseconds: less is better</text>\n\
         <text x=\"14\" y=\"46\" fill=\"#57606a\">{}</text>\n",
        escape(&results.machine)
    );
    for (index, (result, bars)) in panels.iter().enumerate() {
        let x = PANEL_WIDTH * (index % COLUMNS) as f64 + 14.0;
        let y = HEADING + panel_height * (index / COLUMNS) as f64;
        panel(&mut out, x, y, result, bars);
    }
    Some(out + "</svg>\n")
}

fn panel(out: &mut String, x: f64, y: f64, result: &WorkloadResult, bars: &[Bar<'_>]) {
    let (name, about) = result.about.split_once(": ").unwrap_or((&result.workload, &result.about));
    _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{}</text>",
        y + 16.0,
        escape(name)
    );
    _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" fill=\"#57606a\" font-size=\"10.5\">{}</text>",
        y + 32.0,
        escape(about)
    );
    let longest = bars.iter().map(|bar| bar.cpu_us).fold(0.0, f64::max);
    for (row, Bar { peer, cpu_us }) in bars.iter().enumerate() {
        let y = y + TITLE + ROW * row as f64;
        let color = match *peer {
            "nodelocaldns" => "#0969da",
            "floor" => "#afb8c1",
            _ => "#8c959f",
        };
        let length = BAR_WIDTH * cpu_us / longest;
        let left = x + LABEL_WIDTH;
        _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", left - 6.0, y + 13.0, escape(peer));
        _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{}\" width=\"{length:.1}\" height=\"15\" rx=\"2\" fill=\"{color}\"/>",
            y + 1.0
        );
        _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\">{cpu_us:.1}</text>", left + length + 5.0, y + 13.0);
    }
}

/// Under the load of 64 outstanding.
fn bars(result: &WorkloadResult) -> Vec<Bar<'_>> {
    let is_it = |series: &&Series| series.load == Load::Outstanding(64);
    let bar = |series| {
        let Series { peer, samples, .. }: &Series = series;
        Bar { peer, cpu_us: median(samples, |sample| sample.cpu_us) }
    };
    result.series.iter().filter(is_it).map(bar).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;

    fn series(peer: &str, cpu_us: f64) -> Series {
        let sample = Sample { cpu_us, queries_per_second: 1.0, p50_us: 1.0, p99_us: 1.0, p999_us: 1.0, lost: 0 };
        Series { peer: peer.to_owned(), load: Load::Outstanding(64), samples: vec![sample] }
    }

    #[test]
    fn every_server_has_a_bar_in_proportion() {
        let result = WorkloadResult {
            workload: "cached".to_owned(),
            about: "cached answers: A & B".to_owned(),
            series: vec![series("floor", 2.0), series("nodelocaldns", 4.0)],
            memory: Vec::new(),
        };
        let results = Results { machine: "2 × <CPU>".to_owned(), workloads: vec![result], tables: Vec::new() };
        let svg = svg(&results).unwrap();
        assert!(svg.contains("width=\"145.0\"") && svg.contains("width=\"290.0\""), "{svg}");
        assert!(svg.contains("A &amp; B") && svg.contains("&lt;CPU&gt;"));
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn without_anything_to_compare_there_is_no_plot() {
        assert_eq!(svg(&Results::default()), None);
    }
}
