use super::reporter::Reporter;
use super::{TraceConfig, parse};
use crate::chain::testing::{Sample, build, configure};
use crate::chain::{Built, OpenSpan, ProcessContext, Tracer};
use crate::message::RecordType;
use serde_json::Value;
use std::any::Any;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn read(text: &str) -> (TraceConfig, String) {
    let (block, said) = configure(parse, text);
    let [part] = <[_; 1]>::try_from(block.parts).unwrap_or_else(|_| panic!("one part"));
    let configured: Box<dyn Any> = part.configured;
    (*configured.downcast().expect("a trace"), said)
}

#[test]
fn endpoints_are_hosts_or_urls() {
    for (text, url, port, path) in [
        ("trace", "http://localhost:9411/api/v2/spans", 9411, "/api/v2/spans"),
        ("trace tracinghost:9253", "http://tracinghost:9253/api/v2/spans", 9253, "/api/v2/spans"),
        ("trace Zipkin [::1]:9253", "http://[::1]:9253/api/v2/spans", 9253, "/api/v2/spans"),
        (
            "trace http://tracinghost/zipkin/api/v2/spans?a",
            "http://tracinghost/zipkin/api/v2/spans?a",
            80,
            "/zipkin/api/v2/spans?a",
        ),
        ("trace https://tracinghost/", "https://tracinghost/", 443, "/"),
    ] {
        let (config, said) = read(text);
        assert_eq!(said, "", "{text}");
        let endpoint = config.endpoint.expect("an endpoint");
        assert_eq!((endpoint.url.as_str(), endpoint.port, endpoint.path.as_str()), (url, port, path));
        assert_eq!(endpoint.tls.is_some(), url.starts_with("https"));
        assert!(!endpoint.host.contains('['), "{}", endpoint.host);
    }
}

#[test]
fn options_have_the_references_defaults_and_the_last_trace_counts() {
    let (config, said) = read("trace");
    assert_eq!((said.as_str(), config.every, config.service.as_str()), ("", 1, "coredns"));
    assert_eq!((config.backlog, config.batch, config.interval), (1000, 100, Duration::from_secs(1)));
    let text = "trace a:1\ntrace b:1 {\n every 100\n service me\n client_server\n zipkin_max_backlog_size 5\n zipkin_max_batch_size 6\n \
                zipkin_max_batch_interval 7ms\n}";
    let (config, said) = read(text);
    assert_eq!((said.as_str(), config.every, config.service.as_str()), ("", 100, "me"));
    assert_eq!((config.backlog, config.batch, config.interval), (5, 6, Duration::from_millis(7)));
    assert_eq!(config.endpoint.expect("an endpoint").host, "b");
    let (config, said) =
        read("trace {\n zipkin_max_backlog_size 0\n zipkin_max_batch_interval 0s\n client_server f\n}");
    assert_eq!((said.as_str(), config.backlog, config.interval), ("", 1000, Duration::from_secs(1)));
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    for (text, place, message) in [
        ("trace datadog localhost:8126", "2:7: error", "OpenTelemetry Collector"),
        ("trace zipkn a:1", "2:7: error", "did you mean `zipkin`?"),
        ("trace otlp a:1", "2:7: error", "'otlp' is not supported"),
        ("trace zipkin a:1 b", "2:18: error", "takes a type and an endpoint"),
        ("trace zipkin", "2:7: warning", "taken for the collector's host name"),
        ("trace http:", "2:7: warning", "no URL of a collector"),
        ("trace {\n every x\n}", "3:8: error", "not a whole number"),
        ("trace {\n every\n}", "3:2: error", "takes 1 argument"),
        ("trace {\n evry 1\n}", "3:2: error", "did you mean `every`?"),
        ("trace {\n client_server maybe\n}", "3:16: error", "neither true nor false"),
        ("trace {\n datadog_analytics_rate 2\n}", "3:25: error", "between 0 and 1"),
        ("trace {\n datadog_analytics_rate 0.5\n}", "3:2: warning", "Datadog alone"),
        ("trace {\n zipkin_max_batch_interval 5\n}", "3:28: error", "has no unit"),
        ("trace {\n zipkin_max_batch_size -1\n}", "3:24: error", "out of range"),
    ] {
        let (_, said) = read(text);
        assert!(said.contains(&format!("Corefile:{place}: ")) && said.contains(message), "{text}: {said}");
    }
}

/// A collector that answers each request as told, and the URL at which it is.
struct Collector {
    listener: TcpListener,
    url: String,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v2/spans", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The next request's spans; it is answered with `status`.
    fn answer(&self, status: &str) -> Vec<Value> {
        let (stream, _) = self.listener.accept().unwrap();
        let (mut stream, spans) = receive(stream);
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        spans
    }
}

fn receive(stream: TcpStream) -> (TcpStream, Vec<Value>) {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (reader.into_inner(), serde_json::from_slice(&body).unwrap())
}

fn trace(text: &str, process: &ProcessContext) -> Built {
    let (block, said) = configure(parse, text);
    assert_eq!(said, "");
    build(&block, process)
}

fn process() -> ProcessContext {
    ProcessContext::new(1, 1 << 20)
}

/// A traced query that waits for `cache` and `forward`.
async fn query(built: &Built, name: &str) -> String {
    let spans = built.tracer.as_ref().expect("a tracer").begin();
    let id = format!("{:016x}", spans.trace_id);
    let work = async {
        let outer = OpenSpan::enter("cache");
        drop(OpenSpan::enter("forward"));
        drop(outer);
        built.observer.as_ref().expect("an observer").observe(&Sample::new(name, RecordType::A).exchange());
    };
    spans.scope(work).await;
    id
}

fn dropped(process: &ProcessContext) -> u64 {
    let text = process.registry.encode();
    let line = text.lines().find(|line| line.starts_with("nodelocaldns_trace_dropped_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

fn names(spans: &[Value]) -> Vec<&str> {
    spans.iter().filter_map(|span| span["tags"]["coredns.io/name"].as_str()).collect()
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_a_query() {
    let (collector, process) = (Collector::start(), process());
    let built =
        trace(&format!("trace {} {{\n service me\n zipkin_max_batch_interval 1ms\n}}", collector.url), &process);
    let id = query(&built, "a.example.").await;
    let spans = collector.answer("202 Accepted");
    assert_eq!(
        spans.iter().map(|span| span["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["servedns", "cache", "forward"]
    );
    assert!(spans.iter().all(|span| span["traceId"] == id.as_str() && span["localEndpoint"]["serviceName"] == "me"));
    assert_eq!((&spans[1]["parentId"], &spans[2]["parentId"]), (&spans[0]["id"], &spans[1]["id"]));
    assert_eq!(spans[0]["localEndpoint"]["ipv4"], "127.0.0.1", "where the block listens");
    assert_eq!(spans[0]["tags"]["coredns.io/remote"], "127.0.0.1");
}

#[tokio::test]
async fn a_collector_that_answers_500_gets_the_same_spans_again_and_one_that_refuses_them_does_not() {
    let (collector, process) = (Collector::start(), process());
    let built = trace(&format!("trace {} {{\n zipkin_max_batch_interval 1ms\n}}", collector.url), &process);
    query(&built, "a.example.").await;
    assert_eq!(names(&collector.answer("500 Internal Server Error")), ["a.example."]);
    assert_eq!(names(&collector.answer("400 Bad Request")), ["a.example."]);
    query(&built, "b.example.").await;
    assert_eq!(names(&collector.answer("200 OK")), ["b.example."]);
    assert_eq!(dropped(&process), 3);
}

#[tokio::test]
async fn a_backlog_is_bounded_and_the_oldest_make_room() {
    let process = process();
    let collector = Collector::start();
    let text = format!(
        "trace {} {{\n zipkin_max_backlog_size 9\n zipkin_max_batch_interval 1h\n zipkin_max_batch_size 100\n}}",
        collector.url
    );
    let built = trace(&text, &process);
    for number in 0..10 {
        query(&built, &format!("{number}.example.")).await;
    }
    assert_eq!(dropped(&process), 7 * 3);
    // The last are sent when nobody traces any longer.
    drop(built);
    assert_eq!(names(&collector.answer("200 OK")), ["7.example.", "8.example.", "9.example."]);
}

#[tokio::test]
async fn a_full_batch_is_sent_before_its_time_and_an_end_waits_for_what_is_left() {
    let process = process();
    let collector = Collector::start();
    let text = format!("trace {} {{\n zipkin_max_batch_interval 1h\n zipkin_max_batch_size 6\n}}", collector.url);
    let built = trace(&text, &process);
    query(&built, "a.example.").await;
    query(&built, "b.example.").await;
    assert_eq!(names(&collector.answer("200 OK")), ["a.example.", "b.example."]);
    query(&built, "c.example.").await;
    let at_stop = process.at_stop.clone();
    let flushing = std::thread::spawn(move || at_stop.flush(Instant::now() + LONG));
    assert_eq!(names(&collector.answer("200 OK")), ["c.example."]);
    flushing.join().unwrap();
}

#[tokio::test]
async fn what_comes_while_a_batch_is_sent_is_sent_at_the_end_too() {
    let (collector, process) = (Collector::start(), process());
    let text = format!("trace {} {{\n zipkin_max_batch_interval 1h\n zipkin_max_batch_size 3\n}}", collector.url);
    let built = trace(&text, &process);
    query(&built, "a.example.").await;
    let (mut first, _) = receive(collector.listener.accept().unwrap().0);
    query(&built, "b.example.").await;
    // Asked for, and not waited for.
    process.at_stop.flush(Instant::now());
    first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(names(&collector.answer("200 OK")), ["b.example."]);
}

#[tokio::test]
async fn a_collector_that_is_silent_or_away_costs_no_query() {
    let process = process();
    let collector = Collector::start();
    let text = format!("trace {} {{\n zipkin_max_batch_interval 1ms\n zipkin_max_backlog_size 30\n}}", collector.url);
    let built = trace(&text, &process);
    query(&built, "a.example.").await;
    // It never answers.
    let (_silent, _) = receive(collector.listener.accept().unwrap().0);
    for _ in 0..1000 {
        query(&built, "b.example.").await;
    }
    assert_eq!(dropped(&process), 2970, "what waits is bounded");
}

#[test]
fn one_of_so_many_is_traced_and_of_0_none() {
    let process = process();
    let sampled = |text: &str| {
        let built = trace(text, &process);
        let tracer: Arc<dyn Tracer> = built.tracer?;
        Some((0..10).map(|_| u8::from(tracer.is_sampled())).collect::<Vec<u8>>())
    };
    assert_eq!(sampled("trace {\n every 3\n}"), Some(vec![0, 0, 1, 0, 0, 1, 0, 0, 1, 0]));
    assert_eq!(sampled("trace"), Some(vec![1; 10]));
    assert_eq!(sampled("trace {\n every 0\n}"), None);
    assert!(process.reload_state.all::<Reporter>().is_empty(), "what nobody uses is gone");
}
