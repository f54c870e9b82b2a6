//! What a client may ask of the whole program, and what it gets of it.

mod support;

use support::client::{PATIENCE, exchange_tcp, exchange_udp, loopback, query};
use support::ports::free_port;
use support::server::Server;
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

    // Not kept, for the upstream's answer over UDP is truncated; then from the cache, and as replies that are given again.
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
