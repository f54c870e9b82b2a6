//! Traces of the whole program, which a scripted collector decodes.

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::client::{ask, http, loopback};
use support::ports::free_port;
use support::server::Server;
use support::upstream::{Upstream, address_rule};

const SOON: Duration = Duration::from_secs(20);

/// Collects spans; answers each request with `status`, or never where that is empty.
struct Collector {
    port: u16,
    spans: Receiver<Value>,
}

impl Collector {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of its own");
        let port = listener.local_addr().expect("it is bound").port();
        let (collected, spans) = channel();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                let (mut stream, batch) = receive(stream);
                if status.is_empty() {
                    silent.push(stream);
                    continue;
                }
                for span in batch {
                    if collected.send(span).is_err() {
                        return;
                    }
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _the_server_may_have_ended = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, spans }
    }

    /// The next spans.
    fn next(&self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.spans.recv_timeout(SOON).expect("a span comes")).collect()
    }
}

/// The spans of a request.
fn receive(stream: TcpStream) -> (TcpStream, Vec<Value>) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a number");
        }
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    (reader.into_inner(), serde_json::from_slice(&body).expect("JSON"))
}

fn start(collector: &Collector, options: &str, more: &str) -> (Server, u16, Upstream) {
    let dns = free_port();
    let upstream = Upstream::start(vec![address_rule("a.example.", 300, "192.0.2.1")], None);
    let corefile = format!(
        ".:{dns} {{\n bind 127.0.0.1\n trace zipkin 127.0.0.1:{} {{\n  zipkin_max_batch_interval 10ms\n{options} }}\n cache\n \
         forward . 127.0.0.1:{}\n{more}}}\n",
        collector.port, upstream.port
    );
    (Server::start(&corefile, dns), dns, upstream)
}

fn names(spans: &[Value]) -> Vec<&str> {
    spans.iter().filter_map(|span| span["name"].as_str()).collect()
}

#[test]
fn a_query_has_a_span_for_each_directive_and_upstream_that_it_waited_for() {
    let collector = Collector::start("202 Accepted");
    let (server, dns, upstream) = start(&collector, "", " log . \"id={/trace/traceid}\"\n");
    assert!(ask(loopback(dns), "a.example.", "A").is_some());
    let missed = collector.next(4);
    assert_eq!(names(&missed), ["servedns", "cache", "forward", "connect"]);
    for (index, span) in missed.iter().enumerate().skip(1) {
        assert_eq!(span["parentId"], missed[index - 1]["id"]);
    }
    assert_eq!(missed[3]["tags"]["peer.address"], format!("127.0.0.1:{}", upstream.port));
    let tags = &missed[0]["tags"];
    assert_eq!((&tags["coredns.io/name"], &tags["coredns.io/rcode"]), (&"a.example.".into(), &"NOERROR".into()));
    server.wait_output(&format!("id={}", missed[0]["traceId"].as_str().expect("an ID")), SOON);
    // Hits are traced too, those that a packet would be kept of among them.
    for _ in 0..4 {
        assert!(ask(loopback(dns), "a.example.", "A").is_some());
        assert_eq!(names(&collector.next(2)), ["servedns", "cache"]);
    }
}

#[test]
fn one_of_so_many_queries_is_traced_hits_of_the_packet_cache_included() {
    let collector = Collector::start("200 OK");
    let (mut server, dns, _upstream) = start(&collector, "  every 5\n", "");
    for _ in 0..50 {
        assert!(ask(loopback(dns), "a.example.", "A").is_some());
    }
    server.signal(libc::SIGTERM);
    assert!(server.wait_exit(SOON).is_some(), "it does not end");
    // What is left was sent before that.
    let spans: Vec<Value> = collector.spans.try_iter().collect();
    assert_eq!(names(&spans).iter().filter(|name| **name == "servedns").count(), 10);
}

#[test]
fn a_collector_that_fails_is_silent_or_away_costs_no_query() {
    for status in ["500 Internal Server Error", "", "away"] {
        let mut collector = Collector::start(if status == "away" { "200 OK" } else { status });
        if status == "away" {
            collector.port = free_port();
        }
        let metrics = free_port();
        let more = format!(" prometheus 127.0.0.1:{metrics}\n");
        let (server, dns, _upstream) = start(&collector, "  zipkin_max_backlog_size 20\n", &more);
        for _ in 0..200 {
            assert!(ask(loopback(dns), "a.example.", "A").is_some(), "{status}: {}", server.tail(20));
        }
        server.wait_output("spans are not taken by", SOON);
        let (_, text) = http(&format!("{metrics}/metrics")).expect("metrics");
        let dropped =
            text.lines().find_map(|line| line.strip_prefix("nodelocaldns_trace_dropped_total")?.rsplit(' ').next());
        let dropped: f64 = dropped.and_then(|value| value.parse().ok()).expect("a counter");
        assert!(dropped > 0.0, "{status}");
    }
}
