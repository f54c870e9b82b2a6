//! Queries over TCP: order, bounds, and clients that misbehave.

use super::*;

#[test]
fn tcp_answers_come_as_they_are_ready() {
    let (rig, address) = rig(Limits::default());
    let mut talk = Talk::to(address);
    talk.say(&[b"m slow", b"h quick"]);
    assert_eq!(talk.hear(), b"\x01h quick");
    rig.gate.add_permits(1);
    assert_eq!(talk.hear(), b"\x01m slow");
    assert_eq!(rig.drain(SOON), 0);
}

#[test]
fn pipelined_queries_in_odd_pieces_are_all_answered() {
    let (_rig, address) = rig(Limits::default());
    let mut talk = Talk::to(address);
    let stream: Vec<u8> =
        (0..1000_u16).flat_map(|number| [&[0, 3, b'h'][..], &number.to_be_bytes()].concat()).collect();
    for piece in stream.chunks(773) {
        talk.0.write_all(piece).unwrap();
        talk.0.flush().unwrap();
    }
    for number in 0..1000_u16 {
        assert_eq!(talk.hear(), [&[1, b'h'][..], &number.to_be_bytes()].concat());
    }
}

#[test]
fn queries_in_flight_on_a_connection_are_bounded_and_the_rest_waits() {
    let (rig, address) = rig(Limits { queries_per_connection: 4, ..Limits::default() });
    let mut talk = Talk::to(address);
    talk.say(&[&b"m"[..]; 10]);
    rig.wait_for("a full connection", |rig| rig.metric("nodelocaldns_queries_in_flight") == 4.0);
    rig.gate.add_permits(10);
    for _ in 0..10 {
        assert_eq!(talk.hear(), b"\x01m");
    }
}

#[test]
fn a_connection_ends_when_it_has_had_as_many_queries_as_it_may() {
    let (mut rig, address) = rig(Limits::default());
    rig.timeouts.max_queries = std::num::NonZeroU32::new(3);
    rig.apply(&[address], 1);
    let mut talk = Talk::to(address);
    // The first is answered last.
    talk.say(&[b"m1", b"h2", b"h3", b"h4"]);
    assert_eq!([talk.hear(), talk.hear()], [b"\x01h2".to_vec(), b"\x01h3".to_vec()]);
    rig.gate.add_permits(1);
    assert_eq!(talk.hear(), b"\x01m1");
    assert!(talk.is_closed());
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answers() {
    let (rig, address) = rig(Limits::default());
    let mut talk = Talk::to(address);
    talk.say(&[b"m1", b"h2", b"m3"]);
    talk.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(talk.hear(), b"\x01h2");
    rig.gate.add_permits(2);
    assert_eq!(HashSet::from([talk.hear(), talk.hear()]), HashSet::from([b"\x01m1".to_vec(), b"\x01m3".to_vec()]));
    assert!(talk.is_closed());
}

#[test]
fn a_reader_that_does_not_read_is_cut_off() {
    let (mut rig, address) = rig(Limits::default());
    rig.timeouts.write = Duration::from_millis(50);
    rig.apply(&[address], 1);
    let mut talk = Talk::to(address);
    // Far more than the kernel's buffers of both sides hold.
    for _ in 0..4 {
        talk.say(&[&b"b"[..]; 64]);
    }
    rig.wait_for("a cut", |rig| rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"slow_reader\"}") == 1.0);
    rig.wait_for("the end of it", |rig| rig.metric("nodelocaldns_tcp_connections") == 0.0);
    assert!(talk.is_closed());
}

#[test]
fn replies_that_clients_do_not_take_have_a_bound_in_common() {
    const LIMIT: usize = 1 << 20;
    // The kernel would keep megabytes of its own accord, on some runs nearly all that is answered here.
    let (rig, address) = rig(Limits { buffer_octets: LIMIT, socket_buffer: Some(8 << 10), ..Limits::default() });
    let mut greedy: Vec<Talk> = (0..4).map(|_| Talk::with_little_room("127.0.0.1", address)).collect();
    for talk in &mut greedy {
        // More than a connection may keep by itself and the kernel's buffers of both sides take.
        talk.say(&[&b"M"[..]; 128]);
    }
    rig.wait_for("all in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 512.0);
    rig.gate.add_permits(512);
    rig.wait_for("the cuts", |rig| {
        assert!(rig.metric("nodelocaldns_tcp_reply_bytes") <= (LIMIT + 5 * 4096) as f64);
        let mut modest = Talk::to(address);
        modest.say(&[b"h"]);
        assert_eq!(modest.hear(), b"\x01h");
        rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"slow_reader\"}") >= 3.0
    });
    drop(greedy);
    rig.wait_for("the end of them", |rig| rig.metric("nodelocaldns_tcp_connections") == 0.0);
    assert_eq!(rig.metric("nodelocaldns_tcp_reply_bytes"), 0.0);
}

#[test]
fn replies_that_one_client_does_not_take_cost_another_client_none() {
    const LIMIT: usize = 1 << 20;
    let (rig, address) = rig(Limits { buffer_octets: LIMIT, socket_buffer: Some(8 << 10), ..Limits::default() });
    let mut greedy = Vec::new();
    let mut modest = Talk::from("127.0.0.3", address);
    for round in 0..50 {
        for _ in 0..if round == 0 { 20 } else { 2 } {
            let mut talk = Talk::with_little_room("127.0.0.2", address);
            talk.say(&[&b"b"[..]; 100]);
            greedy.push(talk);
        }
        rig.wait_for("much that is not taken", |rig| rig.metric("nodelocaldns_tcp_reply_bytes") >= 900_000.0);
        modest.say(&[b"b"]);
        assert_eq!(modest.hear().len(), 60_000, "round {round}");
    }
    drop((greedy, modest));
    rig.wait_for("the end of them", |rig| rig.metric("nodelocaldns_tcp_connections") == 0.0);
    assert_eq!(rig.metric("nodelocaldns_tcp_reply_bytes"), 0.0);
}

#[test]
fn queries_that_one_client_does_not_finish_cost_another_client_none() {
    let (rig, address) = rig(Limits { buffer_octets: 64 << 10, ..Limits::default() });
    let unfinished = |talk: &mut Talk, of: u16, octets: usize| {
        let message = [&of.to_be_bytes()[..], b"h", &vec![0; usize::from(of)]].concat();
        // With a query before it, whose reply tells that all of it has been read.
        talk.0.write_all(&[&[0, 1, b'h'][..], &message[..octets]].concat()).unwrap();
        message[octets..usize::from(of) + 2].to_vec()
    };
    let mut greedy: Vec<Talk> = (0..40).map(|_| Talk::from("127.0.0.2", address)).collect();
    for talk in &mut greedy {
        unfinished(talk, 3000, 2000);
    }
    rig.wait_for("no room", |rig| rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"crowded\"}") >= 8.0);
    let mut modest = Talk::from("127.0.0.3", address);
    let rest = unfinished(&mut modest, 3000, 2500);
    assert_eq!(modest.hear(), b"\x01h");
    modest.0.write_all(&rest).unwrap();
    assert_eq!(modest.hear().len(), 3001);
}

#[test]
fn idle_and_unfinished_connections_are_closed_in_time() {
    let (mut rig, address) = rig(Limits::default());
    rig.timeouts = Timeouts { idle: Duration::from_millis(50), ..rig.timeouts };
    rig.apply(&[address], 1);
    let mut idle = Talk::to(address);
    let mut served = Talk::to(address);
    let mut waiting = Talk::to(address);
    waiting.say(&[b"m"]);
    served.say(&[b"h"]);
    assert_eq!(served.hear(), b"\x01h");
    assert!(idle.is_closed());
    assert!(served.is_closed());
    rig.gate.add_permits(1);
    assert_eq!(waiting.hear(), b"\x01m", "a query in flight is not idleness");
    assert!(waiting.is_closed());

    rig.timeouts = Timeouts { read: Duration::from_millis(50), idle: SOON * 10, ..rig.timeouts };
    rig.apply(&[address], 1);
    let mut unfinished = Talk::to(address);
    unfinished.0.write_all(&[0, 9, b'h']).unwrap();
    assert!(unfinished.is_closed());
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"slow_sender\"}"), 1.0);
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let (rig, address) = rig(Limits::default());
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0]] {
        let mut talk = Talk::to(address);
        talk.0.write_all(garbage).unwrap();
        assert!(talk.is_closed());
    }
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"malformed\"}"), 2.0);
}

fn ask(talk: &mut Talk) -> Vec<u8> {
    talk.say(&[b"h"]);
    talk.hear()
}

#[test]
fn one_connection_too_many_closes_the_longest_idle_one() {
    let (rig, address) = rig(Limits { tcp_connections: 2, ..Limits::default() });
    let another = || Talk::from("127.0.0.2", address);
    let (mut first, mut second) = (another(), another());
    assert_eq!((ask(&mut first), ask(&mut second)), (b"\x01h".to_vec(), b"\x01h".to_vec()));
    ask(&mut first);
    let mut third = another();
    assert_eq!(ask(&mut third), b"\x01h");
    assert!(second.is_closed());
    assert_eq!(ask(&mut first), b"\x01h");
    // With queries in flight on all, the newcomer goes: its client has most.
    first.say(&[b"m"]);
    third.say(&[b"m"]);
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    assert!(another().is_closed());
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"refused\"}"), 1.0);
    // Another client's does not.
    let mut modest = Talk::from("127.0.0.3", address);
    assert_eq!(ask(&mut modest), b"\x01h");
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"evicted_busy\"}"), 1.0);
    rig.gate.add_permits(2);
    let mut left = [first.0, third.0].into_iter().filter_map(|mut stream| {
        let mut reply = [0; 4];
        stream.read_exact(&mut reply).ok().map(|()| reply)
    });
    assert_eq!((left.next(), left.next()), (Some([0, 2, 1, b'm']), None), "one of the two was closed");
}

#[test]
fn queries_of_tcp_clients_give_way_as_those_of_udp_clients_and_are_told() {
    let (rig, address) = rig(Limits { queries_per_worker: 3, ..Limits::default() });
    let mut greedy = Talk::from("127.0.0.2", address);
    greedy.say(&[b"m1", b"m2", b"m3", b"m4"]);
    assert_eq!(greedy.hear(), b"!\x01m4");
    let modest = client("127.0.0.3");
    modest.send_to(b"m", address).unwrap();
    assert_eq!(greedy.hear(), b"!\x01m1");
    rig.gate.add_permits(3);
    assert_eq!(receive(&modest).0, b"\x01m");
    assert_eq!(HashSet::from([greedy.hear(), greedy.hear()]), HashSet::from([b"\x01m2".to_vec(), b"\x01m3".to_vec()]));
}

#[test]
fn who_comes_from_the_nodes_own_address_as_probes_do_is_answered_once_when_all_places_are_taken() {
    let (rig, address) = rig(Limits { tcp_connections: 2, ..Limits::default() });
    let mut held: Vec<Talk> = (0..2).map(|_| Talk::to(address)).collect();
    for talk in &mut held {
        talk.say(&[b"m"]);
    }
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    let silent: Vec<Talk> = (0..100).map(|_| Talk::to(address)).collect();
    for _ in 0..100 {
        let mut probe = Talk::to(address);
        assert_eq!(ask(&mut probe), b"\x01h");
        assert!(probe.is_closed(), "it has had its reply");
    }
    let mut slow = Talk::to(address);
    slow.say(&[b"m"]);
    assert_eq!(slow.hear(), b"!\x01m", "nothing is asked for it");
    drop((silent, slow));
    rig.gate.add_permits(2);
    assert!(held.iter_mut().all(|talk| talk.hear() == b"\x01m"));
}

#[test]
fn long_queries_that_are_not_finished_have_a_bound_in_common() {
    let (rig, address) = rig(Limits { buffer_octets: 8 << 10, ..Limits::default() });
    let begin = |length: u16, octets: usize| {
        let mut talk = Talk::to(address);
        talk.0.write_all(&[&length.to_be_bytes()[..], &vec![b'h'; octets]].concat()).unwrap();
        talk
    };
    let _held: Vec<Talk> = (0..3).map(|_| begin(4000, 3000)).collect();
    let crowded = |rig: &Rig| rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"crowded\"}");
    rig.wait_for("a cut", |rig| crowded(rig) == 1.0);
    let mut short = begin(500, 400);
    let mut modest = Talk::to(address);
    assert_eq!(ask(&mut modest), b"\x01h");
    short.0.write_all(&[b'h'; 100]).unwrap();
    assert_eq!(short.hear().len(), 501, "a begun query of usual length is waited for");
    assert_eq!(crowded(&rig), 1.0);
}

#[test]
fn udp_and_new_connections_are_served_when_descriptors_run_out() {
    let address = free("127.0.0.1");
    // The limit is a process's, so the server has one of its own.
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" --ignored --exact server::tests::tcp::serve_with_few_descriptors"])
        .arg(std::env::current_exe().unwrap())
        .env("NODELOCALDNS_TEST_ADDRESS", address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let client = client("127.0.0.1");
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let ask = || {
        let end = Instant::now() + SOON;
        while client.send_to(b"h", address).is_err() || client.recv(&mut [0; 8]).is_err() {
            assert!(Instant::now() < end, "no answer over UDP");
        }
    };
    ask();
    let mut talks = Vec::new();
    for _ in 0..60 {
        let mut talk = Talk::to(address);
        talk.say(&[b"h"]);
        assert_eq!(talk.hear(), b"\x01h");
        talks.push(talk);
        ask();
    }
    assert!(talks[0].is_closed(), "the limit was never reached");
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

#[test]
#[ignore = "run by the test above, in a process with few descriptors"]
fn serve_with_few_descriptors() {
    let mut rig = Rig::new(1, Limits::default());
    rig.apply(&[std::env::var("NODELOCALDNS_TEST_ADDRESS").unwrap().parse().unwrap()], 1);
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
