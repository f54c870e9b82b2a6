use super::tally::{Asked, Route};
use super::*;
use crate::message::RecordType;
use std::collections::HashMap;
use std::net::SocketAddr;

const UPSTREAM: &str = "192.0.2.53:53";

fn stats(slots: usize) -> QueryStats {
    QueryStats::new(slots, Registry::new(slots))
}

fn wire(text: &str) -> Vec<u8> {
    Name::parse(text).unwrap().as_wire().to_vec()
}

fn asked(name: &[u8], client: impl Into<IpAddr>) -> Asked<'_> {
    Asked { name, qtype: RecordType::A, client: client.into() }
}

fn miss<'a>(name: &'a [u8], client: [u8; 4], began: Instant, took: Duration, rcode: Option<Rcode>) -> Miss<'a> {
    let upstream: Option<SocketAddr> = UPSTREAM.parse().ok();
    let route = Route { upstream, transport: "udp", tries: 2, is_stale: false };
    Miss { asked: asked(name, client), began, took, rcode, answered_by: "forward", cause: None, route }
}

/// A million hits, recorded as they would be, against their exact counts.
#[test]
fn each_name_with_a_hundredth_of_a_million_hits_is_told_as_exactly_as_is_promised() {
    let (stats, sampler) = (stats(1), Sampler::with_seed(11));
    let mut random = fastrand::Rng::with_seed(12);
    let mut exact: HashMap<usize, u64> = HashMap::new();
    let mut now = Instant::now();
    for number in 0..1_000_000_u32 {
        // Zipf's law over ten thousand names, by inversion of its continuous form.
        let rank = 10_000_f64.powf(random.f64()) as usize;
        *exact.entry(rank).or_default() += 1;
        if sampler.is_due() && sampler.take() {
            let name = wire(&format!("n{rank}.example."));
            stats.record(|recorder| recorder.sample(&asked(&name, [10, 0, 0, 1]), Rcode::NOERROR));
        }
        if number % 180_000 == 179_999 {
            now += STRETCH;
            stats.tick(now);
        }
    }
    let report = stats.report(now, Duration::ZERO, true).minute;
    assert!(report.queries.abs_diff(1_000_000) < 20_000, "{}", report.queries);
    let heavy: Vec<_> = exact.iter().filter(|(_, came)| **came >= 10_000).collect();
    assert!(heavy.len() > 9, "{heavy:?}");
    for (rank, came) in heavy {
        let name = format!("n{rank}.example.");
        let row = report.names.iter().find(|row| row.name.as_deref() == Some(&name)).expect("it is in the list");
        let chance = 3.0 * (f64::from(sampler::MEAN) * *came as f64).sqrt();
        assert!(row.count.abs_diff(*came) as f64 <= chance + row.error as f64, "{name}, {came}: {row:?}");
    }
}

/// How far the counts of one name are off, over many runs, whatever share of the hits it has.
#[test]
fn what_sampling_gets_wrong_is_as_much_as_is_said_and_to_neither_side() {
    const RUNS: u32 = 200;
    const CAME: u32 = 10_000;
    for every in [1, 2, 7, 64, 256] {
        let (mut sum, mut squares) = (0.0, 0.0);
        for seed in 1..=RUNS {
            let sampler = Sampler::with_seed(u64::from(seed) << 32 | 77);
            let mut counted = 0;
            for number in 0..CAME * every {
                if sampler.is_due() && sampler.take() {
                    counted += if number % every == 0 { sampler::MEAN } else { 0 };
                }
            }
            let wrong = f64::from(counted) - f64::from(CAME);
            sum += wrong;
            squares += wrong * wrong;
        }
        let (mean, error) = (sum / f64::from(RUNS), (squares / f64::from(RUNS)).sqrt());
        let said = f64::from(sampler::MEAN * CAME).sqrt();
        assert!(error < said * 1.1, "one of {every}: {error}, not {said}");
        assert!(mean.abs() < 3.0 * said / f64::from(RUNS).sqrt(), "one of {every}: {mean} too much on average");
    }
}

#[test]
fn who_records_while_somebody_takes_it_waits_for_nobody_and_what_is_left_out_is_counted() {
    let stats = stats(1);
    let (name, now) = (wire("a.example."), Instant::now());
    let record = || {
        stats.record(|recorder| recorder.miss(&miss(&name, [10, 0, 0, 1], now, Duration::ZERO, Some(Rcode::NOERROR))));
    };
    let taking = stats.recorders[0].recorder.lock();
    record();
    drop(taking);
    record();
    for _ in 0..2 {
        let window = stats.report(now, Duration::ZERO, true).minute;
        assert_eq!((window.misses, window.not_recorded, window.names[0].count), (1, 1, 1));
    }
}

#[test]
fn nothing_is_told_twice_or_lost_while_stretches_end() {
    const QUERIES: u64 = 30_000;
    let stats = stats(1);
    let begun = Instant::now();
    let told = |now| {
        let hour = stats.report(now, Duration::ZERO, true).hour;
        hour.misses + hour.not_recorded
    };
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            let name = wire("a.example.");
            for _ in 0..QUERIES {
                let query = miss(&name, [10, 0, 0, 1], begun, Duration::ZERO, Some(Rcode::NOERROR));
                stats.record(|recorder| recorder.miss(&query));
            }
        });
        scope.spawn(|| {
            // Less than an hour's.
            for number in 1..=200 {
                stats.tick(begun + STRETCH * number);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut last = 0;
        while !recording.is_finished() {
            let now = told(begun);
            assert!((last..=QUERIES).contains(&now), "{now} after {last}");
            last = now;
        }
    });
    assert_eq!(told(begun + STRETCH * 201), QUERIES);
}

#[test]
fn hostile_names_each_of_another_client_take_two_mebibytes_at_most() {
    let stats = stats(1);
    let mut now = Instant::now();
    let mut random = fastrand::Rng::with_seed(13);
    // Short ones first, which make large tables.
    for stretch in 0..6 * 10 * 6 + 7_u32 {
        for number in 0..700_u32 {
            let octets = if number < 500 { 12 } else { 254 };
            let mut name: Vec<u8> = Vec::new();
            while name.len() < octets {
                let label = (octets - name.len() - 1).min(63);
                name.push(label as u8);
                name.extend((0..label).map(|_| random.u8(..)));
            }
            name.push(0);
            let client: IpAddr = Ipv6Addr::from(random.u128(..)).into();
            let rcode = [Rcode::NXDOMAIN, Rcode::SERVFAIL][(number % 2) as usize];
            let upstream = Some(SocketAddr::new(client, 53));
            let route = Route { upstream, ..Route::default() };
            let took = Duration::from_millis(u64::from(stretch) * 1000 + u64::from(number));
            let cause = "x".repeat(5000);
            let cause = Some(&*cause);
            let asked = asked(&name, client);
            let query = Miss { asked, began: now, took, rcode: Some(rcode), answered_by: "forward", cause, route };
            stats.record(|recorder| recorder.miss(&query));
        }
        if stretch % 60 == 0 {
            assert!(stats.memory() <= 2 << 20, "{} after {stretch} stretches", stats.memory());
        }
        now += STRETCH;
        stats.tick(now);
    }
    let octets = stats.memory();
    assert!((1 << 20..2 << 20).contains(&octets), "{octets}");
    let json = serde_json::to_vec(&stats.report(now, Duration::ZERO, true)).unwrap();
    assert!(json.len() < 2 << 20, "{}", json.len());
}

#[test]
fn what_was_asked_leaves_the_windows_when_their_time_is_over() {
    let stats = stats(2);
    let begun = Instant::now();
    let name = wire("a.example.");
    stats.record(|recorder| {
        recorder.miss(&miss(&name, [10, 0, 0, 1], begun, Duration::from_millis(3), Some(Rcode::NOERROR)));
    });
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    let mut now = begun;
    for second in (0..5000).step_by(10) {
        let report = stats.report(now, Duration::ZERO, true);
        for (window, seen) in [&report.minute, &report.ten_minutes, &report.hour].into_iter().zip(&mut seen) {
            match window.queries {
                0 => assert!(window.names.is_empty() && window.slowest.is_empty() && window.upstreams.is_empty()),
                _ => seen.push(second),
            }
        }
        now += STRETCH;
        stats.tick(now);
    }
    let last = seen.map(|seen| {
        assert!(seen.iter().copied().eq((0..5000).step_by(10).take(seen.len())), "it does not come back");
        *seen.last().unwrap()
    });
    assert_eq!(last, [60, 650, 4190], "a window is up to a part longer than it says");
    let report = stats.report(now, Duration::ZERO, true);
    let seconds = [report.minute, report.ten_minutes, report.hour].map(|window| window.seconds.round() as u32);
    assert_eq!(seconds, [60, 620, 3800]);
}

#[test]
fn a_report_has_who_asked_what_failed_and_what_was_slow_and_names_only_if_they_are_wanted() {
    let stats = stats(1);
    let now = Instant::now();
    let hostile = [b"\x03\x1b[2\x07example".as_slice(), &[0]].concat();
    let fast = miss(&hostile, [10, 0, 0, 9], now, Duration::from_millis(1), Some(Rcode::NXDOMAIN));
    let slow = Duration::from_millis(1500);
    let (failing, root) = (wire("b.example."), wire("."));
    let failing = Miss {
        cause: Some("timeout of b.example."),
        ..miss(&failing, [10, 0, 0, 1], now, slow, Some(Rcode::SERVFAIL))
    };
    stats.record(|recorder| {
        (0..3).for_each(|_| recorder.miss(&fast));
        recorder.miss(&failing);
        recorder.sample(&asked(&hostile, Ipv6Addr::LOCALHOST), Rcode::NOERROR);
        recorder.failure(&asked(&hostile, [10, 0, 0, 2]), now, None, "acl: dropped");
        recorder.failure(&asked(&root, [10, 0, 0, 3]), now, Some(Rcode::SERVFAIL), "kept");
    });
    let time = Duration::from_secs(1_800_000_000);
    let report = stats.report(now + slow, time, true);
    let window = &report.minute;
    assert_eq!((window.queries, window.hits, window.misses), (262, 257, 4));
    assert_eq!((window.rejected, window.malformed, window.failures), (1, 0, 3));
    let rows = |rows: &[Row]| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        rows.iter().map(|row| format!("{} {} {}", text(&row.client), text(&row.name), row.count)).collect::<Vec<_>>()
    };
    let shown = "\\027[2.example.";
    assert_eq!(rows(&window.names), [format!(" {shown} 260"), " . 1".to_owned(), " b.example. 1".to_owned()]);
    assert_eq!(rows(&window.clients), ["::1  256", "10.0.0.9  3", "10.0.0.1  1", "10.0.0.2  1", "10.0.0.3  1"]);
    assert_eq!(rows(&window.clients_and_names)[..2], [format!("::1 {shown} 256"), format!("10.0.0.9 {shown} 3")]);
    assert_eq!(rows(&window.nxdomain_names), [format!(" {shown} 3")]);
    assert_eq!(rows(&window.failed_names), [" . 1".to_owned(), " b.example. 1".to_owned(), format!(" {shown} 1")]);
    let slowest = &window.slowest[0];
    assert_eq!((slowest.name.as_deref(), slowest.ms, slowest.tries), (Some("b.example."), 1500.0, 2));
    assert_eq!((slowest.upstream.as_deref(), &*slowest.transport), (Some(UPSTREAM), "udp"));
    assert_eq!(window.upstreams[0].longest_ms, 1500.0);
    assert_eq!((window.upstreams[0].queries, window.upstreams[0].failures), (4, 1));
    let failures: Vec<_> = report.failures.iter().map(|failed| (failed.time_ms, failed.reason.as_deref())).collect();
    let at = 1_800_000_000_000;
    let early = at - 1500;
    let expected = [(at, Some("forward: timeout of b.example.")), (early, Some("acl: dropped")), (early, Some("kept"))];
    assert_eq!(failures, expected);

    let hidden = stats.report(now + slow, time, false);
    let json = serde_json::to_string(&hidden).unwrap();
    assert!(!json.contains("example") && !json.contains("10.0.0."), "{json}");
    assert_eq!(hidden.minute.names[0].count, 260);
    let read: Report = serde_json::from_slice(&serde_json::to_vec(&report).unwrap()).unwrap();
    // Not the times, of which the last digit may be another.
    assert_eq!((read.minute.names, read.hour.slowest), (report.minute.names, report.hour.slowest));
    assert_eq!(read.failures, report.failures);
}

#[test]
fn blocks_and_upstreams_are_told_from_what_is_counted_already() {
    let registry = Registry::new(1);
    let stats = QueryStats::new(1, registry.clone());
    let count = |zone: &str, queries| {
        let labels = &[("server", "dns://:53"), ("zone", zone), ("type", "A")];
        registry.counter(REQUESTS, "Help.", labels).add(queries);
    };
    let now = stats.past.lock().since;
    let told = |now| {
        let report = stats.report(now, Duration::ZERO, false);
        let blocks = report.blocks.into_iter().map(|block| (block.zone, block.queries_per_second));
        (blocks.collect::<Vec<_>>(), report.unmatched_per_second)
    };
    count(".", 7);
    let (blocks, unmatched) = told(now + Duration::from_secs(1));
    assert_eq!((blocks, unmatched), (vec![(".".to_owned(), 7.0)], 0.0));
    assert!(unmatched.is_sign_positive(), "it is written as 0");
    for number in 0..7 {
        stats.tick(now + STRETCH * number);
    }
    let now = now + STRETCH * 6;
    count(".", 120);
    count("a.", 240);
    count("dropped", 420);
    for (seconds, rcode) in [(0.004, "NOERROR"), (0.02, "NXDOMAIN"), (0.5, "NOERROR"), (100.0, "NOERROR")] {
        let labels = &[("proxy_name", "forward"), ("to", UPSTREAM), ("rcode", rcode)];
        registry.histogram(UPSTREAM_DURATION, "Help.", crate::metrics::TIME_BUCKETS, labels).observe(seconds);
    }
    let expected = (vec![("a.".to_owned(), 4.0), (".".to_owned(), 2.0)], 7.0);
    assert_eq!(told(now), expected, "over the last minute");
    let report = stats.report(now, Duration::ZERO, false);
    let [upstream] = report.upstreams.as_slice() else { panic!("one upstream: {:?}", report.upstreams) };
    assert_eq!((&*upstream.upstream, upstream.answers, upstream.p99_ms), (UPSTREAM, 4, None));
    assert!(upstream.p50_ms.is_some_and(|ms| (20.0..64.0).contains(&ms)), "{upstream:?}");
}

#[test]
fn the_timeline_has_a_point_for_each_stretch_of_the_last_ten_minutes() {
    let stats = stats(1);
    let began = Instant::now();
    let name = wire("slow.example.");
    for number in 1..=POINTS as u32 + 3 {
        let now = began + STRETCH * number;
        for milliseconds in [10, 30] {
            let took = Duration::from_millis(milliseconds);
            let rcode = (milliseconds == 10 || number % 2 == 0).then_some(Rcode::NOERROR);
            stats.record(|recorder| recorder.miss(&miss(&name, [10, 0, 0, 1], now - took, took, rcode)));
        }
        stats.tick(now);
    }
    stats.tick(began + STRETCH * (POINTS as u32 + 4));
    let now = began + STRETCH * (POINTS as u32 + 4) + Duration::from_secs(1);
    let points = stats.report(now, Duration::from_secs(100_000), false).timeline;
    assert_eq!(points.len(), POINTS);
    let last = points.last().unwrap();
    assert_eq!((last.queries, last.mean_ms, last.longest_ms), (0, None, None), "nothing was asked");
    assert_eq!(last.time_ms, 99_999_000);
    let before = &points[POINTS - 2];
    assert_eq!((before.time_ms, before.queries, before.hits, before.failures), (99_989_000, 2, 0, 1));
    assert_eq!((before.mean_ms, before.longest_ms), (Some(20.0), Some(30.0)));
    assert!((before.seconds - STRETCH.as_secs_f64()).abs() < 1e-6, "{before:?}");
}

#[test]
fn the_configuration_tells_its_warnings_to_who_sees_names() {
    let stats = stats(1);
    let told = |shows_names| stats.report(Instant::now(), Duration::ZERO, shows_names).configuration;
    let warnings = Some("ü".repeat(99_999));
    stats.set_configuration(ConfigurationReport { has_warnings: true, warnings, ..ConfigurationReport::default() });
    assert_eq!(told(true).warnings.map(|text| text.chars().count()), Some(MOST_TEXT));
    assert_eq!((told(false).has_warnings, told(false).warnings), (true, None));
    stats.set_refused(true, Some("line 7".to_owned()));
    stats.set_refused(true, None);
    assert_eq!((told(true).is_refused, told(true).refusal.as_deref()), (true, Some("line 7")));
    assert_eq!((told(false).is_refused, told(false).refusal), (true, None));
    // Another serves; whether the one that is configured does is said after that.
    stats.set_configuration(ConfigurationReport::default());
    assert_eq!((told(true).is_refused, told(true).refusal.as_deref()), (true, Some("line 7")));
    stats.set_refused(false, Some("not heeded".to_owned()));
    assert_eq!((told(true).is_refused, told(true).refusal), (false, None));
}
