use super::{HistogramBuckets, Registry, TIME_BUCKETS, enter_lane};
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
        for lane in 1..5 {
            let registry = &registry;
            scope.spawn(move || {
                enter_lane(lane);
                for name in 0..100 {
                    registry.counter("a_total", "A.", &[("name", &name.to_string())]).add(lane as u64);
                }
            });
        }
    });
    assert!((0..100).all(|name| registry.counter("a_total", "A.", &[("name", &name.to_string())]).value() == 1 + 2 + 3 + 4));
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
