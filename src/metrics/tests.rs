use super::{Counter, Gauge, Histogram, HistogramBuckets, Registry, SIZE_BUCKETS, TIME_BUCKETS, enter_worker_slot};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const BUCKETS: HistogramBuckets = HistogramBuckets(&[0.5, 1.0]);

#[test]
fn a_series_asked_for_again_goes_on_counting() {
    let registry = Registry::new(2);
    registry.counter("a_total", "A.", &[("zone", "."), ("type", "A")]).add(3);
    let again = registry.counter("a_total", "A.", &[("zone", "."), ("type", "A")]);
    again.increment();
    assert_eq!(again.value(), 4);
    assert_eq!(registry.counter("a_total", "A.", &[("zone", "."), ("type", "AAAA")]).value(), 0);
    registry.gauge("b", "B.", &[]).set(1.5);
    registry.gauge("b", "B.", &[]).add(-2.0);
    assert_eq!(registry.gauge("b", "B.", &[]).value(), -0.5);
    registry.histogram("c", "C.", BUCKETS, &[]).observe(1.0);
    assert_eq!(registry.histogram("c", "C.", BUCKETS, &[]).count(), 1);
}

#[test]
fn threads_that_ask_for_a_series_at_once_get_the_same() {
    let registry = Registry::new(5);
    thread::scope(|scope| {
        for slot in 1..5 {
            let registry = &registry;
            scope.spawn(move || {
                enter_worker_slot(slot);
                for name in 0..100 {
                    registry.counter("a_total", "A.", &[("name", &name.to_string())]).add(slot as u64);
                }
            });
        }
    });
    assert!(
        (0..100).all(|name| registry.counter("a_total", "A.", &[("name", &name.to_string())]).value() == 1 + 2 + 3 + 4)
    );
}

#[test]
fn the_exposition_is_sorted_and_escaped() {
    let registry = Registry::new(2);
    registry.counter("z_total", "Last.", &[]).add(12_345_678_901_234);
    let help = "Back\\slash and\nnew line, \"quotes\" stay.";
    registry.counter("a_total", help, &[("zone", "x\\\"\n."), ("server", "dns://[::1]:53")]).increment();
    registry.counter("a_total", help, &[("zone", "."), ("server", "dns://10.0.0.1:53")]).add(2);
    registry.gauge("g", "Gauge.", &[]).set(0.25);
    registry.external_counter("x_total", "Kept elsewhere.", &[]).set(2.38);
    assert_eq!(
        registry.encode(),
        r#"# HELP a_total Back\\slash and\nnew line, "quotes" stay.
# TYPE a_total counter
a_total{server="dns://10.0.0.1:53",zone="."} 2
a_total{server="dns://[::1]:53",zone="x\\\"\n."} 1
# HELP g Gauge.
# TYPE g gauge
g 0.25
# HELP x_total Kept elsewhere.
# TYPE x_total counter
x_total 2.38
# HELP z_total Last.
# TYPE z_total counter
z_total 12345678901234
"#
    );
}

#[test]
fn a_histogram_shows_cumulative_buckets_count_and_sum() {
    let registry = Registry::new(2);
    let histogram = registry.histogram("h_seconds", "H.", BUCKETS, &[("zone", ".")]);
    // A bound belongs to its bucket.
    for value in [0.25, 0.5, 0.75, 8.0] {
        histogram.observe(value);
    }
    assert_eq!(
        registry.encode(),
        r#"# HELP h_seconds H.
# TYPE h_seconds histogram
h_seconds_bucket{zone=".",le="0.5"} 2
h_seconds_bucket{zone=".",le="1"} 3
h_seconds_bucket{zone=".",le="+Inf"} 4
h_seconds_sum{zone="."} 9.5
h_seconds_count{zone="."} 4
"#
    );
}

#[test]
fn time_buckets_double_from_a_quarter_of_a_millisecond() {
    let expected: Vec<f64> = (0..16).map(|n| 0.00025 * f64::from(1 << n)).collect();
    assert_eq!(TIME_BUCKETS.0, expected);
}

#[test]
fn dropped_series_are_not_shown_and_their_handles_stay_harmless() {
    let registry = Registry::new(2);
    let dropped = registry.counter("a_total", "A.", &[("to", "10.0.0.1:53"), ("proto", "udp")]);
    registry.counter("a_total", "A.", &[("to", "10.0.0.2:53"), ("proto", "udp")]).add(5);
    registry.retain("a_total", |values| values == ["10.0.0.2:53", "udp"]);
    registry.retain("unknown_total", |_| false);
    dropped.increment();
    let newcomer = registry.counter("a_total", "A.", &[("to", "10.0.0.1:53"), ("proto", "udp")]);
    assert_eq!((dropped.value(), newcomer.value()), (1, 0));
    registry.retain("a_total", |_| false);
    assert_eq!(registry.encode(), "", "a family without series is not shown");
}

#[test]
fn refreshes_run_before_each_exposition_until_their_owner_is_gone() {
    let registry = Registry::new(2);
    let scrapes = AtomicU64::new(0);
    let from_refresh = registry.clone();
    let refresh: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        let scrape = scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        from_refresh.gauge("scrapes", "Scrapes.", &[]).set(scrape as f64);
    });
    registry.before_scrape(Arc::downgrade(&refresh));
    assert!(registry.encode().ends_with("scrapes 1\n"));
    assert!(registry.encode().ends_with("scrapes 2\n"));
    drop(refresh);
    assert!(registry.encode().ends_with("scrapes 2\n"));
}

/// What the `prometheus` crate makes of the same counts.
#[derive(Default)]
struct Reference(Vec<MetricFamily>);

impl Reference {
    fn family(&mut self, name: &str, help: &str, kind: MetricType) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        self.0.push(family);
    }
    /// One more series of the last family.
    fn add(&mut self, labels: &[(&'static str, &str)], set: impl FnOnce(&mut Metric)) {
        let mut sorted = labels.to_vec();
        sorted.sort_unstable();
        let pair = |(name, value): (&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        let mut metric = Metric::from_label(sorted.into_iter().map(pair).collect());
        set(&mut metric);
        self.0.last_mut().unwrap().mut_metric().push(metric);
    }
    fn text(mut self) -> String {
        self.0.sort_by(|one, other| one.name().cmp(other.name()));
        for family in &mut self.0 {
            let labels = |metric: &Metric| -> Vec<(String, String)> {
                metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect()
            };
            family.mut_metric().sort_by_key(labels);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

#[test]
fn the_exposition_is_to_the_octet_that_of_the_prometheus_crate() {
    let registry = Registry::new(2);
    let mut reference = Reference::default();
    let mut random = fastrand::Rng::with_seed(1);
    // More than are written at once.
    let zones: Vec<String> =
        (0..300).map(|number| format!("z{}.\"\\\n example{}.", number * 7919 % 300, number % 3)).collect();
    let values =
        [0.0, -0.5, 2.38, 1e-9, 1e21, 18_446_744_073_709_551_615.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];

    reference.family("requests_total", "Quotes \" stay, \\ and\nlines do not.", MetricType::COUNTER);
    for zone in &zones {
        let labels = [("zone", zone.as_str()), ("server", "dns://:53"), ("view", "")];
        let count = random.u64(..) >> random.u32(0..64);
        let counter: Counter = registry.counter("requests_total", "Quotes \" stay, \\ and\nlines do not.", &labels);
        counter.add(count);
        reference.add(&labels, |metric| {
            let mut proto = proto::Counter::default();
            proto.set_value(counter.value() as f64);
            metric.set_counter(proto);
        });
    }
    reference.family("a_gauge", "G.", MetricType::GAUGE);
    for (number, value) in values.into_iter().enumerate() {
        let labels = [("name", &*number.to_string())];
        let gauge: Gauge = registry.gauge("a_gauge", "G.", &labels);
        gauge.set(value);
        reference.add(&labels, |metric| {
            let mut proto = proto::Gauge::default();
            proto.set_value(gauge.value());
            metric.set_gauge(proto);
        });
    }
    reference.family("outside_total", "Kept elsewhere.", MetricType::COUNTER);
    registry.external_counter("outside_total", "Kept elsewhere.", &[]).set(1.5);
    reference.add(&[], |metric| {
        let mut proto = proto::Counter::default();
        proto.set_value(1.5);
        metric.set_counter(proto);
    });
    for (name, buckets, zones) in [("seconds", TIME_BUCKETS, &zones[..70]), ("size_bytes", SIZE_BUCKETS, &[])] {
        reference.family(name, "H.", MetricType::HISTOGRAM);
        let with_zone: Vec<_> = zones.iter().map(|zone| vec![("zone", zone.as_str())]).collect();
        let without = [Vec::new()];
        for labels in if zones.is_empty() { &without[..] } else { &with_zone } {
            let histogram: Histogram = registry.histogram(name, "H.", buckets, labels);
            for _ in 0..random.usize(0..20) {
                histogram.observe(random.f64() * 10_f64.powi(random.i32(-5..6)));
            }
            reference.add(labels, |metric| metric.set_histogram(to_proto(&histogram)));
        }
    }
    assert_eq!(registry.encode(), reference.text());
}

fn to_proto(histogram: &Histogram) -> proto::Histogram {
    let bucket = |(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut proto = proto::Histogram::default();
    proto.set_bucket(histogram.cumulative().map(bucket).collect());
    proto.set_sample_count(histogram.count());
    proto.set_sample_sum(histogram.sum());
    proto
}
