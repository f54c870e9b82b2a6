//! What a client may ask of the whole program, and what it gets of it.

mod support;

use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use support::client::{PATIENCE, exchange_tcp, exchange_udp, http, loopback, query};
use support::ports::free_port;
use support::server::{Server, wait_until};
use support::upstream::Upstream;

/// A query for a TXT set of 2.6 KiB that offers to take 65,535 octets over UDP.
fn greedy(name: &str) -> Vec<u8> {
    let mut wire = query(name, "TXT").to_vec().unwrap();
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    wire
}

fn is_truncated(reply: &[u8]) -> bool {
    reply[2] & 2 != 0
}

#[test]
fn no_reply_over_udp_is_larger_than_1232_octets_whatever_is_offered_unless_bufsize_says_so() {
    let upstream = Upstream::of_list("basic");
    let (port, wide) = (free_port(), free_port());
    let block = |port: u16, more: &str| {
        format!(".:{port} {{\n bind 127.0.0.1\n {more}\n cache\n forward . 127.0.0.1:{}\n}}\n", upstream.port)
    };
    let _server = Server::start(&(block(port, "") + &block(wide, "bufsize 4096")), port);
    let query = greedy("big.example.");
    let over_udp = |port| exchange_udp(loopback(port), &query, PATIENCE).expect("a reply over UDP");
    let over_tcp = |port| exchange_tcp(loopback(port), &query, PATIENCE).expect("a reply over TCP");

    // Not kept, for the upstream's answer over UDP is truncated; then from the cache, and as replies that are given
    // again.
    for round in 0..5 {
        let reply = over_udp(port);
        assert!(reply.len() <= 1232 && is_truncated(&reply), "round {round}: {} octets", reply.len());
        let whole = over_tcp(port);
        assert!(whole.len() > 2000 && !is_truncated(&whole), "round {round}: {} octets over TCP", whole.len());
    }
    for round in 0..4 {
        let reply = over_udp(wide);
        assert!(reply.len() > 2000 && !is_truncated(&reply), "round {round}: {} octets with bufsize 4096", reply.len());
    }
}

/// Connections from 127.0.0.2 to `port` that say `words` and read nothing; some end at once, as the server closes them.
fn crowd(port: u16, count: usize, words: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("127.0.0.2 is this machine");
        socket.connect_timeout(&loopback(port).into(), PATIENCE).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        _ = stream.write_all(words);
        Some(stream)
    };
    (0..count).filter_map(connect).collect()
}

#[test]
fn a_pod_that_opens_connections_keeps_no_probe_and_no_scrape_from_its_answer() {
    let (port, health, metrics) = (free_port(), free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n health 127.0.0.1:{health}\n prometheus 127.0.0.1:{metrics}\n whoami\n}}\n"
    );
    let _server = Server::start(&corefile, port);
    let probed = || http(&format!("{health}/health")).map(|(status, _)| status);
    let scraped = || http(&format!("{metrics}/metrics")).map(|(status, _)| status);
    assert!(wait_until(PATIENCE, || probed() == Some(200) && scraped() == Some(200)));
    let mut held = Vec::new();
    for _ in 0..10 {
        held.extend(crowd(health, 50, b"GET /health HTTP/1.1\r\nX: "));
        held.extend(crowd(health, 20, b""));
        held.extend(crowd(metrics, 20, &b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)));
        assert_eq!((probed(), scraped()), (Some(200), Some(200)), "with {} connections of somebody else's", held.len());
    }
}

#[test]
fn a_header_without_an_end_costs_the_sender_its_connection_and_nobody_else_an_answer() {
    let (port, health) = (free_port(), free_port());
    let corefile = format!(".:{port} {{\n bind 127.0.0.1\n health 127.0.0.1:{health}\n whoami\n}}\n");
    let _server = Server::start(&corefile, port);
    let probed = || http(&format!("{health}/health")).map(|(status, _)| status);
    assert!(wait_until(PATIENCE, || probed() == Some(200)));
    for mut stream in crowd(health, 5, &[b"GET /health HTTP/1.1\r\nX: ", &[b'a'; 100_000][..]].concat()) {
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Reset, if what it sent was not all read.
        _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(probed(), Some(200));
}
