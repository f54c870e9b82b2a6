//! What the whole program, in its sandbox, serves over HTTP beside text: profiles, as whoever reads them decodes them,
//! and compressed metrics.

mod support;

use flate2::read::GzDecoder;
use nodelocaldns::directives::pprof::Profile;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::{ask, loopback};
use support::ports::free_port;
use support::server::{Server, wait_until};

const SOON: Duration = Duration::from_secs(30);

struct Scene {
    server: Server,
    dns: u16,
    http: u16,
    metrics: u16,
}

impl Scene {
    fn start() -> Self {
        let (dns, http, metrics) = (free_port(), free_port(), free_port());
        let corefile = format!(
            ".:{dns} {{\n bind 127.0.0.1\n whoami\n pprof 127.0.0.1:{http}\n prometheus 127.0.0.1:{metrics}\n}}\n\
             other.example:{dns} {{\n bind 127.0.0.1\n whoami\n pprof 127.0.0.1:{http}\n}}\n"
        );
        let scene = Self { server: Server::start(&corefile, dns), dns, http, metrics };
        assert!(wait_until(SOON, || TcpStream::connect(loopback(http)).is_ok()), "{}", scene.server.tail(20));
        scene
    }

    fn get(&self, path: &str) -> minreq::Response {
        let request = minreq::get(format!("http://127.0.0.1:{}/debug/pprof{path}", self.http)).with_timeout(120);
        request.send().unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.server.tail(20)))
    }

    fn profile(&self, path: &str) -> Profile {
        let answer = self.get(path);
        assert_eq!(answer.status_code, 200, "{:?}", answer.as_str());
        let mut message = Vec::new();
        GzDecoder::new(answer.as_bytes()).read_to_end(&mut message).expect("it is gzip");
        Profile::decode(&message[..]).expect("it is a profile")
    }
}

fn text(profile: &Profile, number: i64) -> &str {
    &profile.string_table[usize::try_from(number).expect("a place in the table")]
}

/// Names of all functions that a profile's samples went through.
fn functions(profile: &Profile) -> HashSet<&str> {
    let names: HashMap<u64, &str> =
        profile.function.iter().map(|function| (function.id, text(profile, function.name))).collect();
    let locations: HashMap<u64, _> = profile.location.iter().map(|location| (location.id, location)).collect();
    let all = profile.sample.iter().flat_map(|sample| &sample.location_id);
    all.flat_map(|location| &locations[location].line).map(|line| names[&line.function_id]).collect()
}

#[test]
fn a_profile_says_what_the_server_used_its_time_for() {
    let scene = Scene::start();
    let is_over = AtomicBool::new(false);
    let profile = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Lost on a machine that is too busy, perhaps: it is about the load.
                _ = ask(loopback(scene.dns), "a.example.", "A");
            }
        });
        let profile = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.profile("/profile?seconds=2")));
        is_over.store(true, Ordering::Relaxed);
        profile.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let types: Vec<_> =
        profile.sample_type.iter().map(|kind| (text(&profile, kind.r#type), text(&profile, kind.unit))).collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert!(profile.duration_nanos >= 2_000_000_000, "{}", profile.duration_nanos);
    let samples: i64 = profile.sample.iter().map(|sample| sample.value[0]).sum();
    assert!(samples > 0, "no samples: {profile:?}");
    assert!(profile.sample.iter().all(|sample| sample.value[1] == sample.value[0] * profile.period));
    let functions = functions(&profile);
    assert!(functions.iter().any(|name| name.starts_with("nodelocaldns::")), "{functions:?}");
    assert!(profile.sample.iter().any(|sample| sample.location_id.len() > 5), "stacks are whole: {functions:?}");
    let of_program = |file: &str| file.rsplit('/').next() == Some("nodelocaldns");
    assert!(
        profile.mapping.iter().any(|mapping| of_program(text(&profile, mapping.filename))),
        "{:?}",
        profile.mapping
    );
    assert!(ask(loopback(scene.dns), "a.example.", "A").is_some(), "it serves on:\n{}", scene.server.tail(20));
}

#[test]
fn one_profile_is_made_at_a_time_and_it_ends_with_its_client() {
    let scene = Scene::start();
    let mut first = TcpStream::connect(loopback(scene.http)).expect("it is listened on");
    first.write_all(b"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: here\r\n\r\n").expect("it is taken");
    let mut said = String::new();
    let is_busy = wait_until(SOON, || {
        let answer = scene.get("/profile?seconds=1");
        said = String::from_utf8_lossy(answer.as_bytes()).into_owned();
        answer.status_code == 500
    });
    assert!(is_busy && said.contains("Could not enable CPU profiling") && said.contains("taken already"), "{said}");
    drop(first);
    let is_free = wait_until(SOON, || scene.get("/profile?seconds=1").status_code == 200);
    assert!(is_free, "the first is never given up:\n{}", scene.server.tail(20));
}

#[test]
fn the_heap_the_command_line_and_the_index_are_served() {
    let scene = Scene::start();
    let profile = scene.profile("/heap");
    assert_eq!(functions(&profile), HashSet::from(["answers in the caches", "everything else"]));
    let octets: i64 = profile.sample.iter().map(|sample| sample.value[0]).sum();
    assert!(octets > 100_000, "{octets}");
    let heap = scene.get("/heap?debug=1");
    assert!(heap.as_str().is_ok_and(|text| text.contains("\n# uordblks = ")), "{:?}", heap.as_str());
    let command_line = scene.get("/cmdline");
    assert!(
        command_line.as_str().is_ok_and(|text| text.split('\0').any(|argument| argument == "-localip")),
        "{:?}",
        command_line.as_str()
    );
    for path in ["", "/"] {
        assert!(scene.get(path).as_str().is_ok_and(|text| text.contains("href=\"/debug/pprof/profile\"")));
    }
    assert_eq!(scene.get("/goroutine").status_code, 404);
}

#[test]
fn metrics_are_compressed_for_whoever_takes_gzip() {
    let scene = Scene::start();
    let get = |encoding: &str| {
        let request = minreq::get(format!("http://127.0.0.1:{}/metrics", scene.metrics)).with_timeout(30);
        request.with_header("Accept-Encoding", encoding).send().expect("an answer")
    };
    let coding = |answer: &minreq::Response| {
        let mut headers = answer.headers.iter();
        headers.find(|(name, _)| name.eq_ignore_ascii_case("content-encoding")).map(|(_, value)| value.clone())
    };
    let compressed = get("gzip");
    assert_eq!(coding(&compressed).as_deref(), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(compressed.as_bytes()).read_to_string(&mut text).expect("it is gzip");
    assert!(text.contains("\ncoredns_build_info{") && text.len() > 2 * compressed.as_bytes().len(), "{text}");
    let plain = get("identity");
    assert_eq!(coding(&plain), None);
    assert!(plain.as_str().is_ok_and(|text| text.contains("\ncoredns_build_info{")));
}
