//! Clients that tell their subnets (RFC 7871), before an upstream that makes its answers for them.

mod support;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::client::{PATIENCE, exchange_tcp, exchange_udp, loopback};
use support::ports::free_port;
use support::server::Server;

const TXT: u16 = 16;
const FORMERR: u8 = 1;

/// An IPv4 network: address and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subnet(u32, u8);

impl Subnet {
    fn new(address: u32, bits: u8) -> Self {
        Self(address & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0), bits)
    }
    fn cut(self, bits: u8) -> Self {
        Self::new(self.0, bits.min(self.1))
    }
    fn contains(self, other: Self) -> bool {
        other.1 >= self.1 && other.cut(self.1) == self
    }
    fn option(self, scope: u8) -> Vec<u8> {
        let octets = usize::from(self.1).div_ceil(8);
        [&[0, 8, 0, 4 + octets as u8, 0, 1, self.1, scope], &self.0.to_be_bytes()[..octets]].concat()
    }
    /// The one in the OPT record that ends a message, and its scope.
    fn at_end_of(message: &[u8], opt: usize) -> Option<(Self, u8)> {
        let data = message.get(opt + 11..)?;
        let [0, 8, _, _, 0, 1, bits, scope, octets @ ..] = data else { return None };
        let mut address = [0; 4];
        address[..octets.len()].copy_from_slice(octets);
        Some((Self(u32::from_be_bytes(address), *bits), *scope))
    }
}

/// A query for TXT records, with an OPT record where there are options or none but that.
fn query(id: u16, name: &[u8], opt: Option<&[u8]>) -> Vec<u8> {
    let mut wire = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, opt.is_some().into()], name].concat();
    wire.extend([0, TXT as u8, 0, 1]);
    if let Some(options) = opt {
        wire.extend([&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, options.len() as u8], options].concat());
    }
    wire
}

/// Answers each query with what it saw of it: the subnet, and the scope that it gives the answer, which is a matter of
/// chance.
struct Tailor {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Tailor {
    fn start(records: usize) -> Self {
        let socket = UdpSocket::bind(loopback(0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let (port, stop) = (socket.local_addr().expect("an address").port(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let (mut asked, mut buffer, mut random) = (0, [0; 512], fastrand::Rng::with_seed(7));
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    asked += 1;
                    // Others come meanwhile.
                    std::thread::sleep(Duration::from_micros(random.u64(0..2000)));
                    let answer = tailored(&buffer[..length], records, &mut random);
                    _ = socket.send_to(&answer, from);
                }
                asked
            }
        });
        Self { port, stop, thread: Some(thread) }
    }

    /// How many queries it was sent.
    fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().expect("it does not panic")).unwrap_or_default()
    }
}

fn tailored(query: &[u8], records: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let question_end = 12 + query[12..].iter().position(|octet| *octet == 0).expect("a name") + 5;
    let seen = if query[11] == 1 { Subnet::at_end_of(query, question_end) } else { None };
    // Not said, for a network around it, for it alone, and a wish to know more; of some names also for all. By UDP what
    // is not said is for it alone.
    let scopes = [None, Some(8), Some(15), Some(16), Some(20), Some(24), Some(32), Some(0)];
    let is_for_all = query[14].is_multiple_of(4);
    let scope = seen.and_then(|_| random.choice(&scopes[..if is_for_all { 8 } else { 7 }]).copied().flatten());
    // 33: it does not say.
    let text = match seen {
        Some((Subnet(address, bits), _)) => format!("{address} {bits} {}", scope.unwrap_or(33)),
        None => "none".to_owned(),
    };
    let mut answer =
        [&query[..2], &[0x81, 0x80, 0, 1, 0, records as u8, 0, 0, 0, query[11]], &query[12..question_end]].concat();
    for _ in 0..records {
        let data = [&[text.len() as u8], text.as_bytes()].concat();
        answer.extend([&[0xc0, 12, 0, TXT as u8, 0, 1, 0, 0, 0, 60, 0, data.len() as u8][..], &data].concat());
    }
    if query[11] == 1 {
        let options = seen.zip(scope).map(|((subnet, _), scope)| subnet.option(scope)).unwrap_or_default();
        answer.extend([&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, options.len() as u8][..], &options].concat());
    }
    answer
}

/// What a reply says: for whom the upstream made it and the scope that it had (`None`: it saw no subnet), and the
/// option in it.
struct Told {
    made_for: Option<(Subnet, u8)>,
    option: Option<(Subnet, u8)>,
}

fn read(reply: &[u8]) -> Told {
    assert_eq!((reply[3] & 15, reply[7]), (0, 1), "{reply:?}");
    let question_end = 12 + reply[12..].iter().position(|octet| *octet == 0).expect("a name") + 5;
    let data = question_end + 12;
    let end = data + 1 + usize::from(reply[data]);
    let text = std::str::from_utf8(&reply[data + 1..end]).expect("text");
    let numbers: Vec<u32> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    let made_for = match numbers[..] {
        [address, bits, scope] => Some((Subnet(address, bits as u8), scope as u8)),
        _ => None,
    };
    Told { made_for, option: if reply[11] == 1 { Subnet::at_end_of(reply, end) } else { None } }
}

/// Whether an answer may be given to a client that says this of itself (RFC 7871 section 7.3.1).
fn is_right_for(client: Option<Subnet>, made_for: Option<(Subnet, u8)>) -> bool {
    match (client, made_for) {
        // What was drawn without a subnet is for those who name none.
        (client, None) => client.is_none(),
        // Who wants none made for it: its like alone.
        (client, Some((Subnet(_, 0), _))) => client.is_some_and(|client| client.1 == 0),
        (_, Some((_, 0))) => true,
        // What was too short to choose by, or did not say, is for those who asked the same.
        (Some(client), Some((subnet, scope))) if scope > subnet.1 => subnet == client.cut(24),
        (Some(client), Some((subnet, scope))) => subnet.cut(scope).contains(client.cut(24)),
        (None, Some(_)) => false,
    }
}

const NAME: &[u8] = b"\x02aa\x01t\0";

#[test]
fn no_client_is_given_an_answer_made_for_a_subnet_that_it_is_not_in() {
    let (upstream, port) = (Tailor::start(1), free_port());
    let corefile =
        format!(".:{port} {{\n bind 127.0.0.1\n client_subnet\n cache\n forward . 127.0.0.1:{}\n}}\n", upstream.port);
    let _server = Server::start(&corefile, port);
    let mut random = fastrand::Rng::with_seed(1);
    let socket = UdpSocket::bind(loopback(0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut asked, mut shared, mut id) = (0, 0, 0);
    for _ in 0..500 {
        // Several at once, so that one question is in flight for many.
        let mut waiting = BTreeMap::new();
        for _ in 0..random.usize(1..8) {
            id += 1;
            let address =
                u32::from_be_bytes([10, 1 + random.u8(0..2), random.choice([0, 1, 0x10, 0x80, 0xff]).unwrap_or(0), 7]);
            let bits = random.choice([
                None,
                Some(None),
                Some(Some(0)),
                Some(Some(8)),
                Some(Some(16)),
                Some(Some(20)),
                Some(Some(24)),
                Some(Some(32)),
            ]);
            let client = bits.flatten().flatten().map(|bits| Subnet::new(address, bits));
            let options = client.map(|client| client.option(0)).unwrap_or_default();
            let name = [2, b'a', b'a' + random.u8(0..26), 1, b't', 0];
            let wire = query(id, &name, bits.flatten().map(|_| options.as_slice()));
            socket.send_to(&wire, loopback(port)).expect("it is sent");
            waiting.insert(id, client);
        }
        while !waiting.is_empty() {
            let mut buffer = [0; 1500];
            let length = socket.recv(&mut buffer).expect("every query is answered");
            let client = waiting.remove(&u16::from_be_bytes([buffer[0], buffer[1]])).expect("it was asked");
            let Told { made_for, option } = read(&buffer[..length]);
            assert!(is_right_for(client, made_for), "{client:?} is given what was made for {made_for:?}");
            assert_eq!(option.map(|(subnet, _)| subnet), client, "the subnet comes back as it was sent, and no other");
            if let (Some((_, said)), Some((subnet, scope))) = (option, made_for) {
                let unstated = client.map_or(0, |client| client.1);
                // Who wants no answer made for it is told that none was.
                let expected = if subnet.1 == 0 { 0 } else { scope };
                assert_eq!(
                    said,
                    if expected > 32 { unstated } else { expected },
                    "the scope is the answer's, asked with {subnet:?}"
                );
            }
            asked += 1;
            let is_shared =
                |(subnet, scope): &(Subnet, u8)| *scope > 0 && client.is_some_and(|client| *subnet != client.cut(24));
            shared += usize::from(made_for.as_ref().is_some_and(is_shared));
        }
    }
    let upstream_asked = upstream.finish();
    assert!(
        shared > 20 && upstream_asked * 2 < asked,
        "{shared} of {asked} had what was made for their network, {upstream_asked} went upstream"
    );
}

#[test]
fn a_malformed_subnet_is_formerr_where_subnets_are_kept_and_is_ignored_where_they_are_stripped() {
    let (upstream, kept, stripped) = (Tailor::start(1), free_port(), free_port());
    let block = |port: u16, directive: &str| {
        format!(".:{port} {{\n bind 127.0.0.1\n {directive}\n cache\n forward . 127.0.0.1:{}\n}}\n", upstream.port)
    };
    let _server = Server::start(&(block(kept, "client_subnet") + &block(stripped, "")), kept);
    let beyond_the_prefix = [0, 8, 0, 6, 0, 1, 15, 0, 10, 1];
    let query = query(1, NAME, Some(&beyond_the_prefix));
    let refused = exchange_udp(loopback(kept), &query, PATIENCE).expect("an answer");
    assert_eq!((refused[3] & 15, refused[7]), (FORMERR, 0));
    // Also what is given again.
    for _ in 0..4 {
        let told = read(&exchange_udp(loopback(stripped), &query, PATIENCE).expect("an answer"));
        assert!(told.made_for.is_none() && told.option.is_none());
    }
}

#[test]
fn where_subnets_are_stripped_no_upstream_sees_one_and_no_client_gets_one_back() {
    let (upstream, port) = (Tailor::start(1), free_port());
    let corefile = format!(".:{port} {{\n bind 127.0.0.1\n cache\n forward . 127.0.0.1:{}\n}}\n", upstream.port);
    let _server = Server::start(&corefile, port);
    for third in 0..4 {
        let option = Subnet(u32::from_be_bytes([10, 1, third, 0]), 24).option(0);
        let reply = exchange_udp(loopback(port), &query(third.into(), NAME, Some(&option)), PATIENCE);
        let told = read(&reply.expect("an answer"));
        assert!(told.made_for.is_none() && told.option.is_none());
    }
    // One for the server's being ready.
    assert!(upstream.finish() <= 2);
}

#[test]
fn the_subnet_counts_towards_what_a_reply_over_udp_may_have() {
    let (upstream, port) = (Tailor::start(64), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n client_subnet\n bufsize 4096\n cache\n forward . 127.0.0.1:{}\n}}\n",
        upstream.port
    );
    let _server = Server::start(&corefile, port);
    let option = Subnet(u32::from_be_bytes([10, 1, 2, 3]), 32).option(0);
    let mut wire = query(1, NAME, Some(&option));
    let offer = wire.len() - option.len() - 8;
    let ask = |wire: &[u8]| exchange_udp(loopback(port), wire, PATIENCE).expect("an answer");
    let whole = ask(&wire);
    assert_eq!((whole[2] & 2, whole[7]), (0, 64));
    for less in 0..40_u16 {
        let limit = whole.len() as u16 - less;
        wire[offer..offer + 2].copy_from_slice(&limit.to_be_bytes());
        let reply = ask(&wire);
        assert!(reply.len() <= limit.into() && (reply[2] & 2 != 0) == (less > 0), "{} octets of {limit}", reply.len());
        assert!(reply.ends_with(&whole[whole.len() - 10..]), "the option is there, with its scope");
    }
    assert_eq!(exchange_tcp(loopback(port), &wire, PATIENCE).expect("an answer over TCP").len(), whole.len());
}
