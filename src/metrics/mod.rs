//! Counters, gauges and histograms, their registry, and its exposition in the Prometheus text format 0.0.4. Counting
//! writes only to the calling worker's own cache lines; a scrape adds the slots up.

mod cells;
mod exposition;
mod family;
pub(crate) mod process;
mod registry;
mod series;
#[cfg(test)]
mod tests;
mod union;
mod worker_slot;

pub use registry::Registry;
pub(crate) use series::{Counter, Gauge, Histogram, HistogramBuckets};
pub(crate) use union::union;
pub use worker_slot::enter_worker_slot;
pub(crate) use worker_slot::slot;

/// Series that a directive counts in and `query_stats` reads.
pub(crate) const REQUESTS: &str = "coredns_dns_requests_total";
pub(crate) const UPSTREAM_DURATION: &str = "coredns_proxy_request_duration_seconds";

/// The `zone` of requests that no server block takes (REFUSED). It has no final dot, so it is no zone's name.
pub(crate) const UNSERVED_ZONE: &str = "dropped";

/// The buckets of `coredns_dns_request_duration_seconds` and its kin: 0.00025 s × 2ⁿ, n = 0 to 15.
pub const TIME_BUCKETS: HistogramBuckets = HistogramBuckets(&[
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
]);

/// The buckets of `coredns_dns_{request,response}_size_bytes`.
pub const SIZE_BUCKETS: HistogramBuckets =
    HistogramBuckets(&[0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3]);

/// The media type of text format 0.0.4, as Go's client library states it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
