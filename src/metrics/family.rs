//! A metric family: its type, its labels and its series.

use super::cells::Arena;
use super::series::{Counter, Gauge, Histogram, HistogramBuckets};
use std::collections::BTreeMap;

pub(super) struct Family {
    pub(super) help: &'static str,
    pub(super) kind: MetricKind,
    /// As they are asked for.
    pub(super) label_names: Vec<&'static str>,
    /// Indices of `label_names`, by name: the order that labels are written in, as the reference's client library does.
    pub(super) order: Vec<usize>,
    /// By label values in that order, which is the order that series are written in.
    pub(super) series: BTreeMap<Vec<String>, Series>,
}

impl Family {
    pub(super) fn new(help: &'static str, kind: MetricKind, label_names: Vec<&'static str>) -> Self {
        let mut order: Vec<usize> = (0..label_names.len()).collect();
        order.sort_by_key(|index| label_names[*index]);
        Self { help, kind, label_names, order, series: BTreeMap::new() }
    }

    /// A label's value in those of a series.
    pub(super) fn value(&self, values: &[String], label: &str) -> Option<String> {
        values.get(self.sorted_names().position(|name| name == label)?).cloned()
    }

    /// The label names in the order that they are written in.
    pub(super) fn sorted_names(&self) -> impl Iterator<Item = &'static str> {
        self.order.iter().map(|index| self.label_names[*index])
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MetricKind {
    Counter,
    /// A counter whose count is kept elsewhere: its series are gauges.
    ExternalCounter,
    Gauge,
    Histogram(HistogramBuckets),
}

#[derive(Clone)]
pub(super) enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Series {
    pub(super) fn new(kind: MetricKind, arena: &mut Arena) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter(Counter(arena.take(1))),
            MetricKind::ExternalCounter | MetricKind::Gauge => Self::Gauge(Gauge::default()),
            MetricKind::Histogram(buckets) => {
                Self::Histogram(Histogram::new(arena.take(Histogram::cell_count(buckets)), buckets))
            }
        }
    }
}
