//! Counters, gauges and histograms: the handles through which series are counted.

use super::cells::Cells;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds, ascending, without +Inf. At most 62.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistogramBuckets(pub &'static [f64]);

/// A count that only rises. Cloning shares the series.
#[derive(Clone)]
pub struct Counter(pub(super) Cells);

impl Counter {
    #[inline]
    pub fn increment(&self) {
        self.add(1)
    }
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(0, n);
    }
    pub fn value(&self) -> u64 {
        self.0.total(0)
    }
}

/// A value that rises and falls; set by one writer at a time.
#[derive(Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
    pub fn add(&self, delta: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + delta).to_bits());
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).ok();
    }
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Observations in buckets: a cell for each bound, one for what lies above all, and the sum.
#[derive(Clone)]
pub struct Histogram {
    cells: Cells,
    buckets: HistogramBuckets,
}

impl Histogram {
    pub(super) fn cell_count(buckets: HistogramBuckets) -> usize {
        buckets.0.len() + 2
    }
    pub(super) fn new(cells: Cells, buckets: HistogramBuckets) -> Self {
        Self { cells, buckets }
    }
    #[inline]
    pub fn observe(&self, value: f64) {
        let bounds = self.buckets.0;
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.cells.observe(bucket, bounds.len() + 1, value);
    }
    /// How many observations there were.
    pub fn count(&self) -> u64 {
        (0..=self.buckets.0.len()).map(|bucket| self.cells.total(bucket)).sum()
    }
    /// The sum of what was observed.
    pub fn sum(&self) -> f64 {
        self.cells.total_f64(self.buckets.0.len() + 1)
    }
    /// The bounds, each with the number of observations up to it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.0.iter().enumerate().scan(0_u64, |below, (bucket, bound)| {
            *below += self.cells.total(bucket);
            Some((*bound, *below))
        })
    }
}
