//! Queries over UDP.

use super::*;

#[test]
fn every_datagram_of_a_burst_is_answered() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    for number in 0..200_u8 {
        client.send_to(&[b'h', number], address).unwrap();
    }
    let answers: HashSet<_> = (0..200).map(|_| receive(&client)).collect();
    assert_eq!(answers, (0..200_u8).map(|number| (vec![1, b'h', number], address)).collect());
    assert_eq!(rig.drain(SOON), 0);
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    for (listen, asked) in [("0.0.0.0", "127.0.0.2"), ("::", "::1"), ("::", "127.0.0.3")] {
        let mut rig = Rig::new(2, Limits::default());
        let listen = free(listen);
        rig.apply(&[listen], 1);
        let asked = SocketAddr::new(asked.parse().unwrap(), listen.port());
        let client = client(if asked.is_ipv6() { "::1" } else { "127.0.0.1" });
        client.send_to(b"a", asked).unwrap();
        let expected = format!("\u{1}a {} {asked} udp", client.local_addr().unwrap());
        assert_eq!(receive(&client), (expected.into_bytes(), asked));
        // The slow path answers from there too.
        rig.gate.add_permits(1);
        client.send_to(b"m", asked).unwrap();
        assert_eq!(receive(&client), (b"\x01m".to_vec(), asked));
        let mut talk = Talk::to(asked);
        talk.say(&[b"a"]);
        let expected = format!("\u{1}a {} {asked} tcp", talk.0.local_addr().unwrap());
        assert_eq!(talk.hear(), expected.into_bytes());
    }
}

#[test]
fn a_query_that_cannot_be_answered_costs_the_others_nothing() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    for query in [&b"h1"[..], b"silence", b"", &[b'h'; 5000], b"h2"] {
        client.send_to(query, address).unwrap();
    }
    assert_eq!(receive(&client).0, b"\x01h1");
    assert_eq!(receive(&client).0, b"\x01h2");
    assert_eq!(rig.metric("nodelocaldns_queries_dropped_total{reason=\"oversize\"}"), 1.0);
}

#[test]
fn a_refresh_runs_behind_its_reply_and_says_nothing() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    client.send_to(b"r", address).unwrap();
    assert_eq!(receive(&client).0, b"\x01r");
    let mut talk = Talk::to(address);
    talk.say(&[b"r", b"h"]);
    assert_eq!((talk.hear(), talk.hear()), (b"\x01r".to_vec(), b"\x01h".to_vec()));
    rig.wait_for("both refreshes", |rig| rig.refreshed.load(Ordering::Relaxed) == 2);
}

/// What the toy says to those whose query it does not run to its end.
fn refusal(query: &[u8]) -> Vec<u8> {
    [b"!\x01", query].concat()
}

#[test]
fn queries_in_flight_on_a_worker_are_bounded_and_what_is_refused_is_told() {
    let (rig, address) = rig(Limits { queries_per_worker: 3, ..Limits::default() });
    let client = client("127.0.0.1");
    for _ in 0..5 {
        client.send_to(b"m", address).unwrap();
    }
    client.send_to(b"h", address).unwrap();
    let said: Vec<_> = (0..3).map(|_| receive(&client).0).collect();
    assert_eq!(
        said,
        [refusal(b"m"), refusal(b"m"), b"\x01h".to_vec()],
        "what needs no flight is answered all the same"
    );
    assert_eq!(rig.metric("nodelocaldns_queries_dropped_total{reason=\"overload\"}"), 2.0);
    assert_eq!(rig.metric("nodelocaldns_queries_in_flight"), 3.0);
    rig.gate.add_permits(3);
    for _ in 0..3 {
        assert_eq!(receive(&client).0, b"\x01m");
    }
    rig.wait_for("an empty flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 0.0);
}

#[test]
fn the_client_with_most_queries_in_flight_gives_way_to_others_and_is_told() {
    let (rig, address) = rig(Limits { queries_per_worker: 8, ..Limits::default() });
    let (greedy, modest) = (client("127.0.0.2"), client("127.0.0.3"));
    for number in 0..8_u8 {
        greedy.send_to(&[b'm', number], address).unwrap();
    }
    rig.wait_for("a full flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 8.0);
    for number in 0..3_u8 {
        modest.send_to(&[b'm', number], address).unwrap();
        assert_eq!(receive(&greedy).0, refusal(&[b'm', number]), "the oldest");
    }
    greedy.send_to(&[b'm', 8], address).unwrap();
    assert_eq!(receive(&greedy).0, refusal(&[b'm', 8]), "who has most gets no more");
    let dropped = |reason: &str| rig.metric(&format!("nodelocaldns_queries_dropped_total{{reason=\"{reason}\"}}"));
    assert_eq!((dropped("evicted"), dropped("overload")), (3.0, 1.0));
    rig.gate.add_permits(8);
    for number in 0..3_u8 {
        assert_eq!(receive(&modest).0, [1, b'm', number]);
    }
    for number in 3..8_u8 {
        assert_eq!(receive(&greedy).0, [1, b'm', number]);
    }
    rig.wait_for("an empty flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 0.0);
}

#[test]
fn a_pods_hits_are_never_limited_by_its_misses() {
    let (rig, address) = rig(Limits { queries_per_worker: 2, ..Limits::default() });
    let (client, other) = (client("127.0.0.2"), client("127.0.0.3"));
    client.send_to(b"m", address).unwrap();
    other.send_to(b"m", address).unwrap();
    rig.wait_for("a full flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    for _ in 0..100 {
        for client in [&client, &other] {
            client.send_to(b"h", address).unwrap();
            assert_eq!(receive(client).0, b"\x01h");
        }
    }
    assert_eq!(rig.metric("nodelocaldns_queries_in_flight"), 2.0, "no hit takes a place");
}

#[test]
fn places_that_are_taken_away_while_a_server_runs_are_those_of_who_has_most() {
    let (rig, address) = rig(Limits::default());
    let (greedy, modest) = (client("127.0.0.2"), client("127.0.0.3"));
    for _ in 0..6 {
        greedy.send_to(b"m", address).unwrap();
    }
    modest.send_to(b"m", address).unwrap();
    rig.wait_for("all in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 7.0);
    let capacity = rig.server.capacity();
    assert_eq!(capacity.load(), crate::server::capacity::Load { queries: 7, connections: 0 });
    capacity.set(Limits { queries_per_worker: 3, ..Limits::default() });
    for _ in 0..4 {
        assert_eq!(receive(&greedy).0, refusal(b"m"));
    }
    assert_eq!(capacity.load().queries, 3);
    rig.gate.add_permits(3);
    assert_eq!(receive(&modest).0, b"\x01m");
}
