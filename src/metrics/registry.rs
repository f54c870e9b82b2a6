//! Families and their series. Asking for a series that exists returns it, so that counters go on over a reload.

use std::sync::Arc;

/// Upper bounds, ascending, without +Inf.
#[derive(Clone, Copy, Debug)]
pub struct HistogramBuckets(pub &'static [f64]);

/// All families of a process. Cloning shares it.
#[derive(Clone)]
pub struct Registry(Arc<()>);

/// A count that only rises. Cloning shares the series.
#[derive(Clone)]
pub struct Counter;
/// A value that rises and falls; set by one writer at a time.
#[derive(Clone)]
pub struct Gauge;
/// Observations in buckets.
#[derive(Clone)]
pub struct Histogram;

/// Label names and values of one series, in the family's order.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Registry {
    /// `lanes` is the number of workers plus one.
    pub fn new(lanes: usize) -> Self {
        todo!()
    }
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        todo!()
    }
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        todo!()
    }
    pub fn histogram(&self, name: &'static str, help: &'static str, buckets: HistogramBuckets, labels: Labels<'_>) -> Histogram {
        todo!()
    }
    /// Drops the series of a family for which `keep` is false, given its label values in order.
    pub fn retain(&self, name: &str, keep: impl Fn(&[String]) -> bool) {
        todo!()
    }
    /// Calls `refresh` before each exposition, to set gauges from state held elsewhere. Kept until its `Weak` is dead.
    pub fn before_scrape(&self, refresh: std::sync::Weak<dyn Fn() + Send + Sync>) {
        todo!()
    }
    /// The whole registry in text format 0.0.4, families sorted by name, series by labels.
    pub fn encode(&self) -> String {
        todo!()
    }
}

impl Counter {
    #[inline]
    pub fn increment(&self) {
        self.add(1)
    }
    #[inline]
    pub fn add(&self, n: u64) {
        todo!()
    }
    pub fn value(&self) -> u64 {
        todo!()
    }
}
impl Gauge {
    pub fn set(&self, value: f64) {
        todo!()
    }
    pub fn add(&self, delta: f64) {
        todo!()
    }
    pub fn value(&self) -> f64 {
        todo!()
    }
}
impl Histogram {
    #[inline]
    pub fn observe(&self, value: f64) {
        todo!()
    }
}
