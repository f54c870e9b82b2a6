//! Upstreams that die, come back, hang, break their connections, or lead back to us, with the whole program in front of
//! them.

mod support;

use hickory_proto::op::{Message, ResponseCode};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use support::client::{PATIENCE, ask, exchange_udp, loopback, metric, query};
use support::ports::free_port;
use support::server::{Server, wait_until};
use support::steady::SteadyClient;
use support::upstream::{Reply, Upstream, address_rule};

/// Well under the read timeout, which whoever waits for an upstream in vain takes.
const AT_ONCE: Duration = Duration::from_secs(1);

fn rcode_of(port: u16, name: &str) -> Option<ResponseCode> {
    ask(loopback(port), name, "A").map(|answer| answer.metadata.response_code)
}

fn address_of(port: u16, name: &str) -> Option<String> {
    ask(loopback(port), name, "A")?.answers.first().map(|record| record.data.to_string())
}

// --- gone and back

fn corefile(port: u16, upstream: u16, option: &str) -> String {
    format!(
        ".:{port} {{\n bind 127.0.0.1\n cache 30\n forward . 127.0.0.1:{upstream} {{\n  {option}\n  read_timeout 500ms\n }}\n}}\n"
    )
}

/// Asks all the while, until the upstream counts as down.
fn fail_for_a_while(port: u16) {
    let start = Instant::now();
    let mut wire = query("other.example.", "A");
    let socket = UdpSocket::bind(loopback(0)).expect("a socket");
    while start.elapsed() < Duration::from_secs(3) {
        wire.metadata.id = wire.metadata.id.wrapping_add(1);
        let _nobody_waits = socket.send_to(&wire.to_vec().expect("a query of ours encodes"), loopback(port));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_first_query_after_a_dead_upstream_is_back_is_answered() {
    for option in ["prefer_udp", "force_tcp"] {
        let rules = [address_rule("a.example.", 0, "192.0.2.1"), address_rule("other.example.", 0, "192.0.2.2")];
        let upstream = Upstream::start(rules.to_vec(), None);
        let (port, upstream_port) = (free_port(), upstream.port);
        let _server = Server::start(&corefile(port, upstream_port, option), port);
        assert_eq!(address_of(port, "a.example.").as_deref(), Some("192.0.2.1"), "{option}");

        drop(upstream);
        fail_for_a_while(port);
        let _back = Upstream::start_at(upstream_port, &rules, None).expect("its port is still free");
        let asked = Instant::now();
        assert_eq!(address_of(port, "a.example.").as_deref(), Some("192.0.2.1"), "{option}");
        assert!(asked.elapsed() < AT_ONCE, "{option}: {:?}", asked.elapsed());
    }
}

#[test]
fn the_first_query_after_a_hanging_upstream_goes_on_is_answered() {
    for option in ["prefer_udp", "force_tcp"] {
        let rules = vec![address_rule("a.example.", 0, "192.0.2.1"), address_rule("other.example.", 0, "192.0.2.2")];
        let upstream = Upstream::start(rules, None);
        let port = free_port();
        let _server = Server::start(&corefile(port, upstream.port, option), port);
        assert_eq!(address_of(port, "a.example.").as_deref(), Some("192.0.2.1"), "{option}");

        upstream.set_down(true);
        fail_for_a_while(port);
        upstream.set_down(false);
        let asked = Instant::now();
        assert_eq!(address_of(port, "a.example.").as_deref(), Some("192.0.2.1"), "{option}");
        assert!(asked.elapsed() < AT_ONCE, "{option}: {:?}", asked.elapsed());
    }
}

// --- connections that break

#[test]
fn no_query_is_lost_when_every_connection_is_reset_ten_times_a_second() {
    let slow = Reply { delay: 0.03, ..Reply::default() };
    let upstream = Upstream::start(Vec::new(), Some(slow));
    let (port, metrics) = (free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n forward . 127.0.0.1:{} {{\n  force_tcp\n }}\n}}\n",
        upstream.port
    );
    let _server = Server::start(&corefile, port);
    let client = SteadyClient::start(port);
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(100));
        upstream.reset_connections();
    }
    client.finish();
    let retries = metric(metrics, "nodelocaldns_forward_retries_total");
    assert!(retries > Some(40.0), "the resets must have met queries: {retries:?}");
}

// --- stopped while queries wait

#[test]
fn sigterm_answers_hundreds_of_queries_that_wait_for_the_upstream() {
    for option in ["prefer_udp", "force_tcp"] {
        let slow = Reply { delay: 1.0, ..Reply::default() };
        let upstream = Upstream::start(Vec::new(), Some(slow));
        let port = free_port();
        let corefile =
            format!(".:{port} {{\n bind 127.0.0.1\n forward . 127.0.0.1:{} {{\n  {option}\n }}\n}}\n", upstream.port);
        let mut server = Server::start(&corefile, port);
        let socket = UdpSocket::bind(loopback(0)).expect("a socket");
        socket.connect(loopback(port)).expect("loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        // All replies may come before this thread has its turn, and 277 fill an ordinary buffer.
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20).expect("a socket's buffer can be set");
        for id in 0..300 {
            let mut message = query(&format!("n{id}.example."), "A");
            message.metadata.id = id;
            socket.send(&message.to_vec().expect("a query of ours encodes")).expect("loopback");
        }
        let mut arrived = 0;
        let all_wait = wait_until(PATIENCE, || {
            arrived += upstream.take_seen().len();
            arrived >= 300
        });
        assert!(all_wait, "{option}: only {arrived} of 300 queries reached the upstream");
        server.signal(libc::SIGTERM);
        let mut buffer = [0; 512];
        for answered in 0..300 {
            let length =
                socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{option}: {answered} of 300 answered, then {e}"));
            let answer = Message::from_vec(&buffer[..length]).expect("the answer is well-formed");
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{option}");
        }
        let status = server.wait_exit(Duration::from_secs(5));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{option}: {status:?}");
    }
}

// --- loops

/// A server that forwards to itself, and perhaps to others; other.example. does not.
fn looping_corefile(port: u16, metrics: u16, others: &str) -> String {
    format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n loop\n prometheus 127.0.0.1:{metrics}\n forward . 127.0.0.1:{port} {others}\n}}\n\
         other.example:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"
    )
}

fn wait_detected(server: &Server, metrics: u16, upstream: u16) {
    let series = format!("nodelocaldns_loop_detected{{to=\"127.0.0.1:{upstream}\",zone=\".\"}}");
    let detected = wait_until(Duration::from_secs(5), || metric(metrics, &series) == Some(1.0));
    assert!(detected, "{series} is {:?}:\n{}", metric(metrics, &series), server.tail(12));
    server.wait_output(&format!("127.0.0.1:{upstream} come back"), Duration::from_secs(5));
    let output = server.output();
    assert!(
        output.lines().any(|line| line.contains("loop:") && line.contains("come back")),
        "the loop is not named:\n{output}"
    );
}

#[test]
fn a_forward_to_itself_is_named_and_left_out_and_the_rest_serves_on() {
    let (port, metrics) = (free_port(), free_port());
    let mut server = Server::start(&looping_corefile(port, metrics, ""), port);
    wait_detected(&server, metrics, port);
    let asked = Instant::now();
    assert_eq!(rcode_of(port, "a.example."), Some(ResponseCode::ServFail));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert_eq!(rcode_of(port, "x.other.example."), Some(ResponseCode::NoError));
    server.wait_output("every upstream leads back to us", Duration::from_secs(5));
    assert_eq!(server.exit_status(), None, "it serves on");
}

#[test]
fn beside_an_upstream_that_leads_back_the_good_one_answers_every_query() {
    let answer = vec!["steady.example. 0 IN A 192.0.2.1".to_owned()];
    let good = Upstream::start(Vec::new(), Some(Reply { answer, ..Reply::default() }));
    let (port, metrics) = (free_port(), free_port());
    let server = Server::start(&looping_corefile(port, metrics, &format!("127.0.0.1:{}", good.port)), port);
    wait_detected(&server, metrics, port);
    assert_eq!(metric(metrics, &format!("nodelocaldns_loop_detected{{to=\"127.0.0.1:{}\"}}", good.port)), Some(0.0));
    let asked = Instant::now();
    for number in 0..50 {
        assert_eq!(rcode_of(port, &format!("n{number}.example.")), Some(ResponseCode::NoError));
    }
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

#[test]
fn a_loop_through_another_server_is_found_there_is_no_storm_and_it_ends_with_the_loop() {
    let (port, metrics, other_port, other_metrics) = (free_port(), free_port(), free_port(), free_port());
    let other_corefile = format!(
        ".:{other_port} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{other_metrics}\n forward . 127.0.0.1:{port} {{\n  force_tcp\n }}\n}}\n"
    );
    let _other = Server::start(&other_corefile, other_port);
    let ours = |directive: &str| {
        format!(
            ".:{port} {{\n bind 127.0.0.1\n {directive}\n prometheus 127.0.0.1:{metrics}\n forward . 127.0.0.1:{other_port}\n}}\n"
        )
    };
    let server = Server::start(&ours("loop"), port);
    wait_detected(&server, metrics, other_port);
    assert_eq!(rcode_of(other_port, "a.example."), Some(ResponseCode::ServFail));
    let asked = metric(other_metrics, "coredns_dns_requests_total").unwrap_or_default();
    assert!(asked < 10.0, "{asked} queries went round");

    // Without `loop` nobody looks after the mark, so it must not stay.
    std::fs::write(server.corefile(), ours("")).expect("the scratch folder can be written");
    server.signal(libc::SIGUSR1);
    let forwarded = || metric(metrics, &format!("coredns_forward_requests_total{{to=\"127.0.0.1:{other_port}\"}}"));
    let before = forwarded();
    let wire = query("b.example.", "A").to_vec().expect("a query of ours encodes");
    let used = wait_until(Duration::from_secs(5), || {
        let _it_goes_round = exchange_udp(loopback(port), &wire, Duration::from_millis(100));
        forwarded() > before
    });
    assert!(used, "the upstream is still left out:\n{}", server.tail(12));
}
