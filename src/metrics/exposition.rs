//! The Prometheus text format, version 0.0.4, written by the `prometheus` crate's encoder.

use super::registry::{Family, Kind, Series};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Appends a family that has series.
pub(super) fn append(family: MetricFamily, text: &mut String) {
    TextEncoder::new().encode_utf8(&[family], text).expect("a String takes every write, and the family has a name and series");
}

/// A family as it stands.
pub(super) fn to_proto(name: &str, family: &Family) -> MetricFamily {
    let mut proto = MetricFamily::default();
    proto.set_name(name.to_owned());
    proto.set_help(family.help.to_owned());
    proto.set_field_type(match family.kind {
        Kind::Counter | Kind::ExternalCounter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    let mut metrics: Vec<(Vec<(&str, &str)>, Metric)> = family
        .series
        .iter()
        .map(|(values, series)| {
            // By name, as the reference's client library writes them.
            let mut labels: Vec<_> = family.label_names.iter().copied().zip(values.iter().map(String::as_str)).collect();
            labels.sort_unstable();
            let metric = to_metric(&labels, series, family.kind);
            (labels, metric)
        })
        .collect();
    metrics.sort_by(|(left, _), (right, _)| left.cmp(right));
    proto.set_metric(metrics.into_iter().map(|(_, metric)| metric).collect());
    proto
}

fn to_metric(labels: &[(&str, &str)], series: &Series, kind: Kind) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    match series {
        Series::Counter(counter) => metric.set_counter(to_counter(counter.value() as f64)),
        Series::Gauge(gauge) if kind == Kind::ExternalCounter => metric.set_counter(to_counter(gauge.value())),
        Series::Gauge(gauge) => {
            let mut proto = Gauge::default();
            proto.set_value(gauge.value());
            metric.set_gauge(proto);
        }
        Series::Histogram(histogram) => metric.set_histogram(to_histogram(histogram)),
    }
    metric
}

fn to_counter(value: f64) -> Counter {
    let mut proto = Counter::default();
    proto.set_value(value);
    proto
}

fn to_histogram(histogram: &super::Histogram) -> Histogram {
    let buckets: Vec<Bucket> = histogram
        .cumulative()
        .map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        })
        .collect();
    // Workers count on while this is read: the total must not be less than what the last bucket said.
    let up_to_last_bound = buckets.last().map_or(0, Bucket::cumulative_count);
    let mut proto = Histogram::default();
    proto.set_sample_count(histogram.count().max(up_to_last_bound));
    proto.set_sample_sum(histogram.sum());
    proto.set_bucket(buckets);
    proto
}
