//! Taps of the whole program, read by fstrm_capture and dnstap-read.

mod support;

use std::path::Path;
use std::time::Duration;
use support::client::{ask, exchange_tcp, loopback, metric, query};
use support::dnstap::{Capture, count};
use support::ports::free_port;
use support::server::{Server, reference_command, scratch, wait_until, write_corefile};
use support::upstream::{Upstream, address_rule};

const SOON: Duration = Duration::from_secs(20);

/// A server with these lines in its block, in a folder where a socket may be.
struct Scene {
    server: Server,
    dns: u16,
    metrics: u16,
    _upstream: Upstream,
}

impl Scene {
    fn start(lines: impl Fn(&Path) -> String) -> (Self, Capture) {
        let folder = scratch();
        let capture = Capture::start(&["-u", path(folder.path(), "s").as_str()], folder.path(), "first");
        let (dns, metrics) = (free_port(), free_port());
        let upstream = Upstream::start(vec![address_rule("a.example.", 300, "192.0.2.1")], None);
        let corefile = format!(
            ".:{dns} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n cache\n forward . 127.0.0.1:{}\n{}}}\n",
            upstream.port,
            lines(folder.path())
        );
        let corefile = write_corefile(folder.path(), &corefile);
        let mut server = Server::spawn(reference_command(&corefile, free_port()), folder);
        server.wait_ready(dns).unwrap_or_else(|e| panic!("{e}"));
        (Self { server, dns, metrics, _upstream: upstream }, capture)
    }

    fn ask(&self) {
        assert!(ask(loopback(self.dns), "a.example.", "A").is_some(), "{}", self.server.tail(20));
    }

    fn total(&self, name: &str) -> f64 {
        metric(self.metrics, name).unwrap_or(0.0)
    }

    fn stop(&mut self) {
        self.server.signal(libc::SIGTERM);
        assert!(self.server.wait_exit(SOON).is_some(), "it does not end");
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[test]
fn clients_and_upstreams_messages_are_told_those_of_the_caches_included() {
    let (mut scene, capture) = Scene::start(|at| format!(" dnstap {} full\n", path(at, "s")));
    // The first is forwarded, the second may be kept as a packet, the others may come from there.
    for _ in 0..5 {
        scene.ask();
    }
    let wire = query("a.example.", "A").to_vec().expect("a query of ours encodes");
    exchange_tcp(loopback(scene.dns), &wire, SOON).expect("an answer over TCP");
    scene.stop();
    let told = capture.finish();
    let kinds = ["CQ", "CR", "FQ", "FR"].map(|kind| count(&told, kind));
    assert_eq!(kinds, [6, 6, 1, 1], "{}", told.join("\n"));
    assert!(told.iter().all(|line| line.ends_with(" a.example/IN/A")), "{}", told.join("\n"));
    let client = format!("-> 127.0.0.1:{} UDP", scene.dns);
    assert_eq!(
        told.iter().filter(|line| line.contains("CQ") && line.contains(&client)).count(),
        5,
        "{}",
        told.join("\n")
    );
    assert_eq!(told.iter().filter(|line| line.contains(" TCP ")).count(), 2, "{}", told.join("\n"));
}

#[test]
fn a_reader_that_stands_still_costs_no_query_and_one_that_restarts_is_found_again() {
    let (mut scene, capture) = Scene::start(|at| format!(" dnstap {}\n", path(at, "s")));
    scene.ask();
    assert!(wait_until(SOON, || scene.total("nodelocaldns_dnstap_readers") == 1.0), "{}", scene.server.tail(20));
    capture.signal(libc::SIGSTOP);
    for _ in 0..200 {
        scene.ask();
    }
    drop(capture);
    assert!(wait_until(SOON, || scene.total("nodelocaldns_dnstap_readers") == 0.0), "{}", scene.server.tail(20));
    for _ in 0..10 {
        scene.ask();
    }
    let folder = scene.server.folder.path().to_owned();
    std::fs::remove_file(folder.join("s")).expect("it is left behind");
    let capture = Capture::start(&["-u", path(&folder, "s").as_str()], &folder, "second");
    assert!(wait_until(SOON, || scene.total("nodelocaldns_dnstap_readers") == 1.0), "{}", scene.server.tail(20));
    assert_eq!(scene.total("nodelocaldns_dnstap_dropped_total"), 0.0);
    scene.stop();
    let told = capture.finish();
    assert!(count(&told, "CQ") >= 10, "what was asked meanwhile has waited: {}", told.len());
}

#[test]
fn several_readers_get_their_own_messages_by_path_and_over_tcp() {
    let port = free_port();
    let folder = scratch();
    let over_tcp = Capture::start(&["-a", "127.0.0.1", "-p", &port.to_string()], folder.path(), "tcp");
    let (mut scene, capture) =
        Scene::start(|at| format!(" dnstap {}\n dnstap tcp://127.0.0.1:{port} full\n", path(at, "s")));
    for _ in 0..3 {
        scene.ask();
    }
    scene.stop();
    let (bare, full) = (capture.finish(), over_tcp.finish());
    assert_eq!([count(&bare, "CR"), count(&full, "CR")], [3, 3]);
    assert!(full.iter().all(|line| line.ends_with("a.example/IN/A")), "{}", full.join("\n"));
    assert!(!bare.iter().any(|line| line.contains("a.example")), "{}", bare.join("\n"));
}
