//! Plans swapped, sockets handed over, and the end.

use super::*;

#[test]
fn swaps_under_load_lose_nothing() {
    let mut rig = Rig::new(2, Limits::default());
    let (lasting, coming) = (free("127.0.0.1"), free("127.0.0.1"));
    rig.apply(&[lasting], 0);
    rig.gate.add_permits(1 << 20);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let udp = |kind: u8| {
            let is_over = &is_over;
            move || {
                // Of several ports, so that both workers' sockets have their share.
                let clients: Vec<_> = (0..8).map(|_| client("127.0.0.1")).collect();
                let mut asked = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    for client in &clients {
                        client.send_to(&[&[kind][..], &asked.to_be_bytes()].concat(), lasting).unwrap();
                    }
                    for client in &clients {
                        assert_eq!(receive(client).0[1..], [&[kind][..], &asked.to_be_bytes()].concat());
                    }
                    asked += 1;
                }
                asked
            }
        };
        let quick = scope.spawn(udp(b'h'));
        let slow = scope.spawn(udp(b'm'));
        let tcp = scope.spawn(|| {
            let mut talk = Talk::to(lasting);
            while !is_over.load(Ordering::Relaxed) {
                talk.say(&[b"m", b"h"]);
                let (first, second) = (talk.hear(), talk.hear());
                assert_eq!(HashSet::from([first[1], second[1]]), HashSet::from([b'm', b'h']));
            }
        });
        let mut steady = Talk::to(lasting);
        for version in 1..=20_u8 {
            let addresses = [lasting, coming];
            rig.apply(&addresses[..1 + usize::from(version % 2)], version);
            steady.say(&[b"h"]);
            assert_eq!(steady.hear(), [version, b'h'], "an established connection is served by the new plan");
            // Every other plan serves one address more.
            if version % 2 == 1 {
                let client = client("127.0.0.1");
                client.send_to(b"h", coming).unwrap();
                assert_eq!(receive(&client).0, [version, b'h']);
            }
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(quick.join().unwrap() > 1);
        assert!(slow.join().unwrap() > 1);
        tcp.join().unwrap();
    });
    for reason in ["overload", "unsendable", "oversize"] {
        assert_eq!(rig.metric(&format!("nodelocaldns_queries_dropped_total{{reason=\"{reason}\"}}")), 0.0);
    }
}

/// How a client's connections fared.
#[derive(Default, Debug)]
struct Connections {
    made: u32,
    lost: Vec<std::io::ErrorKind>,
}

/// Makes one connection after the other until told, and asks one question on each.
fn connect_and_ask(address: SocketAddr, is_over: &AtomicBool) -> Connections {
    let mut connections = Connections::default();
    while !is_over.load(Ordering::Relaxed) {
        let ask = || {
            let mut stream = TcpStream::connect(address)?;
            // No TIME_WAIT, which would keep thousands of ports from other tests.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(b"\0\x01h")?;
            stream.read_exact(&mut [0; 4])
        };
        connections.made += 1;
        connections.lost.extend(ask().map_err(|error: std::io::Error| error.kind()).err());
    }
    connections
}

#[test]
fn a_connection_that_is_made_while_its_listener_ends_is_answered() {
    let mut rig = Rig::new(2, Limits::default());
    let one = free("127.0.0.1");
    let all = SocketAddr::new("0.0.0.0".parse().unwrap(), one.port());
    rig.apply(&[all], 0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| connect_and_ask(one, &is_over))).collect();
        for version in 1..=60_u8 {
            rig.apply(&[if version % 2 == 1 { one } else { all }], version);
            thread::sleep(Duration::from_millis(30));
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let connections = client.join().unwrap();
            assert!(connections.lost.is_empty() && connections.made > 60, "{connections:?}");
        }
    });
}

#[test]
fn all_ipv4_addresses_give_way_to_all_addresses_which_are_served_over_ipv6_too() {
    let mut rig = Rig::new(1, Limits::default());
    let one = free("127.0.0.1");
    for (version, (all, asked)) in
        [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1"), ("0.0.0.0", "127.0.0.1")].into_iter().enumerate()
    {
        let version = u8::try_from(version).unwrap();
        rig.apply(&[SocketAddr::new(all.parse().unwrap(), one.port())], version);
        // What was listened on has ended by then.
        thread::sleep(Duration::from_millis(50));
        let one = SocketAddr::new(asked.parse().unwrap(), one.port());
        let client = client(asked);
        client.send_to(b"h", one).unwrap();
        assert_eq!(receive(&client).0, [version, b'h'], "{asked} at {all}");
        let mut talk = Talk::to(one);
        talk.say(&[b"h"]);
        assert_eq!(talk.hear(), [version, b'h'], "{asked} at {all}");
    }
}

#[test]
fn a_swap_that_cannot_be_made_changes_nothing() {
    let (mut rig, address) = rig(Limits::default());
    let other = free("127.0.0.1");
    let sockets = Sockets::bind(&[address].into_iter().collect(), 1, rig.server.sockets()).unwrap();
    let toys = rig.toys(&[address, other], 2);
    assert!(matches!(rig.server.apply(&toys, &[], sockets), Err(SocketError::NotBound(missing)) if missing == other));
    let client = client("127.0.0.1");
    client.send_to(b"h", address).unwrap();
    assert_eq!(receive(&client).0, b"\x01h");
}

#[test]
fn a_removed_address_answers_what_it_has_received_and_is_free_again() {
    let (mut rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    let mut talk = Talk::to(address);
    client.send_to(b"m udp", address).unwrap();
    talk.say(&[b"m tcp"]);
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    rig.apply(&[], 2);
    // While the old sockets still have answers to send, new ones have the address.
    rig.apply(&[address], 3);
    client.send_to(b"h", address).unwrap();
    assert_eq!(receive(&client).0, b"\x03h");
    rig.gate.add_permits(2);
    assert_eq!(receive(&client).0, b"\x01m udp");
    assert_eq!(talk.hear(), b"\x01m tcp");
    assert!(talk.is_closed());
}

#[test]
fn draining_answers_what_was_received_and_nothing_after() {
    let (rig, address) = rig(Limits::default());
    let (udp, late) = (client("127.0.0.1"), client("127.0.0.1"));
    let mut talk = Talk::to(address);
    let idle = Talk::to(address);
    for number in 0..50_u8 {
        udp.send_to(&[b'm', number], address).unwrap();
    }
    talk.say(&[b"m", b"h"]);
    assert_eq!(talk.hear(), b"\x01h");
    let gate = rig.gate.clone();
    let draining = thread::spawn(move || rig.drain(SOON));
    let mut idle = idle;
    assert!(idle.is_closed(), "an idle connection does not hold the drain up");
    late.send_to(b"h", address).unwrap();
    gate.add_permits(51);
    let answers: HashSet<_> = (0..50).map(|_| receive(&udp).0).collect();
    assert_eq!(answers, (0..50_u8).map(|number| vec![1, b'm', number]).collect());
    assert_eq!(talk.hear(), b"\x01m");
    assert!(talk.is_closed());
    assert_eq!(draining.join().unwrap(), 0);
    late.set_nonblocking(true).unwrap();
    assert!(late.recv(&mut [0; 8]).is_err());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn draining_answers_what_waits_in_the_sockets() {
    let (rig, address) = rig(Limits::default());
    let udp = client("127.0.0.1");
    let mut established = Talk::to(address);
    established.say(&[b"h"]);
    established.hear();
    // While the worker is held up, everything stays in the kernel; when it goes on it is to stop first of all.
    udp.send_to(b"w", address).unwrap();
    rig.wait_for("a blocked worker", |rig| rig.blocked.load(Ordering::Relaxed) == 1);
    for number in 0..100_u8 {
        udp.send_to(&[b'h', number], address).unwrap();
    }
    established.say(&[&b"h"[..]; 3]);
    let mut unaccepted = Talk::to(address);
    unaccepted.say(&[b"h"]);
    let gate = rig.gate.clone();
    // The worker goes on once it has been told to stop.
    let draining = thread::spawn(move || rig.drain_and(SOON, || gate.add_permits(1)));
    let answers: HashSet<_> = (0..=100).map(|_| receive(&udp).0).collect();
    assert_eq!(answers.len(), 101);
    for _ in 0..3 {
        assert_eq!(established.hear(), b"\x01h");
    }
    assert_eq!(unaccepted.hear(), b"\x01h");
    assert!(established.is_closed() && unaccepted.is_closed());
    assert_eq!(draining.join().unwrap(), 0);
}

#[test]
fn draining_ends_in_time_and_tells_what_is_left() {
    let (rig, address) = rig(Limits::default());
    let client = client("127.0.0.1");
    client.send_to(b"m", address).unwrap();
    client.send_to(b"m", address).unwrap();
    rig.wait_for("two queries in flight", |rig| rig.metric("nodelocaldns_queries_in_flight") == 2.0);
    assert_eq!(rig.drain(Duration::from_millis(20)), 2);
}

#[test]
fn sockets_passed_by_another_process_are_served_and_outlive_the_server() {
    let address = free("127.0.0.1");
    let held = Sockets::bind(&[address].into_iter().collect(), 3, &Sockets::default()).unwrap();
    let pass = || Sockets::from_fds(held.fds().map(|fd| fd.as_fd().try_clone_to_owned().unwrap())).unwrap();
    let clients: Vec<_> = (0..32).map(|_| client("127.0.0.1")).collect();
    for version in 1..=2 {
        // Sent while nobody serves. Two workers, three sockets: each has to be read by someone.
        for client in &clients {
            client.send_to(b"h", address).unwrap();
        }
        let mut talk = Talk::to(address);
        talk.say(&[b"h"]);
        let mut rig = Rig::new(2, Limits::default());
        let toys = rig.toys(&[address], version);
        let sockets = Sockets::bind(&[address].into_iter().collect(), 2, &pass()).unwrap();
        rig.server.apply(&toys, &[], sockets).unwrap();
        for client in &clients {
            assert_eq!(receive(client).0, [version, b'h']);
        }
        assert_eq!(talk.hear(), [version, b'h']);
        assert_eq!(rig.drain(SOON), 0);
    }
}

#[test]
fn http_endpoints_are_swapped_with_the_plan_and_keep_their_address() {
    let mut rig = Rig::new(1, Limits::default());
    let address = free("127.0.0.1");
    let endpoint =
        |path: &'static str, body: &'static str| Endpoint::shared(address, path, move || HttpAnswer::text(200, body));
    let request = |stream: &mut TcpStream, request: &str| {
        write!(stream, "{request} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut text = Vec::new();
        let mut octet = [0];
        while !text.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut octet).unwrap();
            text.push(octet[0]);
        }
        let head = String::from_utf8(text).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; if request.starts_with("HEAD") { 0 } else { length }];
        stream.read_exact(&mut body).unwrap();
        format!("{} {}", &head[9..12], String::from_utf8(body).unwrap())
    };
    let serve = |rig: &mut Rig, endpoints: &[Endpoint]| {
        rig.server.apply(&[], endpoints, Sockets::default()).unwrap();
        assert!(rig.server.listen_http().is_empty());
    };
    serve(&mut rig, &[endpoint("/health", "OK"), endpoint("/metrics", "one")]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(request(&mut stream, "GET /health?x=1"), "200 OK");
    assert_eq!(request(&mut stream, "HEAD /metrics"), "200 ");
    assert_eq!(request(&mut stream, "POST /metrics").split(' ').next(), Some("405"));
    assert_eq!(request(&mut stream, "GET /").split(' ').next(), Some("404"));
    serve(&mut rig, &[endpoint("/metrics", "two")]);
    assert_eq!(request(&mut stream, "GET /metrics"), "200 two");
    assert_eq!(request(&mut stream, "GET /health").split(' ').next(), Some("404"));
    serve(&mut rig, &[]);
    rig.wait_for("the address is free", |_| TcpStream::connect(address).is_err());
}

#[test]
fn idle_sockets_of_a_removed_address_are_given_up_at_once() {
    let mut rig = Rig::new(2, Limits::default());
    let address = free("127.0.0.1");
    let toys = rig.toys(&[address], 1);
    let dispatcher = Arc::downgrade(&toys[0]);
    let sockets = Sockets::bind(&[address].into_iter().collect(), 2, &Sockets::default()).unwrap();
    rig.server.apply(&toys, &[], sockets).unwrap();
    drop(toys);
    let client = client("127.0.0.1");
    client.send_to(b"h", address).unwrap();
    assert_eq!(receive(&client).0, b"\x01h");
    rig.apply(&[], 2);
    rig.wait_for("nobody to hold the dispatcher", |_| dispatcher.upgrade().is_none());
}
