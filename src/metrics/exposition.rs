//! The Prometheus text format, version 0.0.4. Written here, not by the `prometheus` crate's encoder (against which the
//! tests hold it): that wants every series as a tree of owned strings first, which took 54 ms with a thousand zones
//! instead of 11, and several times the text's memory.

use super::family::{Family, MetricKind, Series};
use super::series::Histogram;
use std::fmt::Write;

/// Integers up to here are numbers of 64-bit floating point too, and look the same.
const EXACT: u64 = 1 << 53;

/// Writes the samples of one family.
pub(super) struct FamilyWriter {
    name: &'static str,
    is_started: bool,
    /// How the line of each bucket goes on after the labels.
    buckets: Vec<String>,
    /// The labels of a series as they are written, without braces.
    labels: String,
}

impl FamilyWriter {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, is_started: false, buckets: Vec::new(), labels: String::new() }
    }

    /// Appends one series, the first one after the family's head.
    pub(super) fn append(&mut self, family: &Family, values: &[String], series: &Series, text: &mut String) {
        if !self.is_started {
            self.is_started = true;
            self.start(family, text);
        }
        self.labels.clear();
        for (name, value) in family.sorted_names().zip(values) {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(name);
            self.labels.push_str("=\"");
            escape(value, true, &mut self.labels);
            self.labels.push('"');
        }
        match series {
            Series::Counter(counter) => self.sample("", text, |text| append_count(counter.value(), text)),
            Series::Gauge(gauge) => self.sample("", text, |text| append_number(gauge.value(), text)),
            Series::Histogram(histogram) => self.append_histogram(histogram, text),
        }
    }

    fn start(&mut self, family: &Family, text: &mut String) {
        let kind = match family.kind {
            MetricKind::Counter | MetricKind::ExternalCounter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(buckets) => {
                self.buckets = buckets.0.iter().map(|bound| format!("le=\"{bound}\"}} ")).collect();
                "histogram"
            }
        };
        for part in ["# HELP ", self.name, " "] {
            text.push_str(part);
        }
        escape(family.help, false, text);
        for part in ["\n# TYPE ", self.name, " ", kind, "\n"] {
            text.push_str(part);
        }
    }

    fn sample(&self, suffix: &str, text: &mut String, value: impl FnOnce(&mut String)) {
        text.push_str(self.name);
        text.push_str(suffix);
        if !self.labels.is_empty() {
            text.push('{');
            text.push_str(&self.labels);
            text.push('}');
        }
        text.push(' ');
        value(text);
        text.push('\n');
    }

    fn append_histogram(&self, histogram: &Histogram, text: &mut String) {
        let mut up_to_last_bound = 0;
        for (bucket, (_, count)) in self.buckets.iter().zip(histogram.cumulative()) {
            up_to_last_bound = count;
            self.bucket(bucket, count, text);
        }
        // Workers count on while this is read: the total must not be less than what the last bucket said.
        let count = histogram.count().max(up_to_last_bound);
        self.bucket("le=\"+Inf\"} ", count, text);
        self.sample("_sum", text, |text| append_number(histogram.sum(), text));
        self.sample("_count", text, |text| append_count(count, text));
    }

    fn bucket(&self, bound: &str, count: u64, text: &mut String) {
        text.push_str(self.name);
        text.push_str("_bucket{");
        if !self.labels.is_empty() {
            text.push_str(&self.labels);
            text.push(',');
        }
        text.push_str(bound);
        append_count(count, text);
        text.push('\n');
    }
}

/// All values of the format are floating point.
fn append_count(count: u64, text: &mut String) {
    if count < EXACT {
        text.push_str(itoa::Buffer::new().format(count));
    } else {
        append_number(count as f64, text);
    }
}

fn append_number(number: f64, text: &mut String) {
    // Fails for no String.
    _ = write!(text, "{number}");
}

/// Help texts have quotes as they are.
fn escape(value: &str, with_quotes: bool, text: &mut String) {
    let is_special = |octet: u8| matches!(octet, b'\\' | b'\n') || (with_quotes && octet == b'"');
    if !value.bytes().any(is_special) {
        return text.push_str(value);
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if with_quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}
