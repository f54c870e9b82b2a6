//! Rows in which the server lives and answers, but not as it should. What it says is changed or dropped on its way out,
//! by rules of the node's output hook that know its addresses: the probe and the clients see what they would see of a
//! faulty server.

use crate::cluster::{CLUSTER_IPS, SOON, inside, rules, run_in_a_namespace, shell};
use crate::load::CACHED;
use crate::records::Who;
use crate::row::{row, row_at_once};
use crate::scene::{ADDRESSES, Scene, cached, rates};
use crate::support::client::metric;
use crate::support::server::wait_until;
use crate::wire::{Answer, judge, question};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No watchdog may need longer to find the fault and to have KubeDNS answer; nominal: 400 ms, of TCP 800 ms, and a
/// step.
const FOUND: Duration = Duration::from_secs(4);
/// Half of a query, and what comes of it, over a connection that is open for so long at most.
const OPEN: Duration = Duration::from_secs(4);

/// Octets 2 and 3 of each answer say REFUSED: over UDP at the start of the payload, over TCP after the 32 octets that
/// its header has, and the length.
const WRONG: &str = "udp sport 53 @th,80,16 set 0x8185; tcp sport 53 @th,288,16 set 0x8185";
/// The same over UDP alone.
const WRONG_UDP: &str = "udp sport 53 @th,80,16 set 0x8185";
/// `meta cpu` is true always. The program cannot know that: it would find the rule and blame the firewall, not the
/// server.
const SOME: &str = "ip saddr 10.96.0.10 meta l4proto { tcp, udp } th sport 53 meta cpu >= 0 drop";
const UDP_ONLY: &str = "tcp sport 53 meta cpu >= 0 drop";

#[test]
fn a_server_that_answers_wrongly_is_found() {
    row("answers::a_server_that_answers_wrongly_is_found", "server answers wrongly", "–", |backend| {
        measure(backend, rates(backend), WRONG, ADDRESSES)
    });
}

#[test]
fn a_server_that_answers_on_some_addresses_only_is_found() {
    row(
        "answers::a_server_that_answers_on_some_addresses_only_is_found",
        "server answers on some addresses",
        "–",
        |backend| measure(backend, rates(backend).take(1), SOME, &CLUSTER_IPS[..1]),
    );
}

#[test]
fn a_server_that_answers_over_udp_only_is_found() {
    row_at_once(
        "answers::a_server_that_answers_over_udp_only_is_found",
        "server answers over UDP only",
        "–",
        |backend| measure(backend, rates(backend).take(1), UDP_ONLY, ADDRESSES),
    );
}

/// What was asked over an open connection is answered there, though queries are somebody else's by now.
#[test]
fn a_connection_that_is_open_when_its_address_is_withdrawn_ends_where_it_began() {
    if inside().is_none() {
        let name = "answers::a_connection_that_is_open_when_its_address_is_withdrawn_ends_where_it_began";
        run_in_a_namespace(name, "nftables");
        return;
    }
    let scene = Scene::start("nftables");
    let places = [(Who::Pod, &scene.network.pod), (Who::HostNetwork, &scene.network.host)];
    let open =
        places.map(|(who, place)| (who, place.visit(|| ADDRESSES.iter().map(|to| HalfAsked::open(to)).collect())));
    shell(&format!(
        "nft 'add table inet faulty {{ chain out {{ type filter hook output priority 0; {WRONG_UDP}; }}; }}'"
    ));
    await_withdrawal(&scene, ADDRESSES);
    for (who, open) in open {
        let open: Vec<HalfAsked> = open;
        for connection in open {
            let address = connection.address.clone();
            let answer = connection.finish();
            assert!(matches!(answer, Ok(Answer::Node)), "{who:?} at {address}: {answer:?}\n{}", rules());
        }
    }
}

/// A connection over which the first octets of a query have gone.
struct HalfAsked {
    address: String,
    stream: TcpStream,
    rest: Vec<u8>,
    question: Vec<u8>,
}

impl HalfAsked {
    fn open(address: &str) -> Self {
        let question = question(CACHED[0]);
        let mut wire = u16::try_from(question.len()).expect("a short question").to_be_bytes().to_vec();
        wire.extend_from_slice(&question);
        let rest = wire.split_off(wire.len() / 2);
        let server = SocketAddr::new(address.parse().expect("an address"), 53);
        let mut stream = TcpStream::connect_timeout(&server, OPEN).expect("the cache takes a connection");
        stream.set_read_timeout(Some(OPEN)).expect("a timeout above zero");
        stream.write_all(&wire).expect("it is open");
        Self { address: address.to_owned(), stream, rest, question }
    }

    fn finish(mut self) -> std::io::Result<Answer> {
        self.stream.write_all(&self.rest)?;
        let mut length = [0; 2];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        self.stream.read_exact(&mut answer)?;
        Ok(judge(&self.question, &answer))
    }
}

/// Waits until queries for these addresses are no longer the cache's.
fn await_withdrawal(scene: &Scene, addresses: &[&str]) {
    let gauge = |address| format!("nodelocaldns_watchdog_intercepted{{address=\"{address}\"}}");
    let is_withdrawn = || addresses.iter().all(|address| metric(9353, &gauge(address)) == Some(0.0));
    assert!(wait_until(SOON, is_withdrawn), "not found:\n{}", scene.agent.watchdog.tail(20));
}

/// `change` are rules for what leaves the node's own sockets from `faulty` addresses. KubeDNS's answers pass through
/// other hooks.
fn measure(backend: &str, rates: impl Iterator<Item = u32>, change: &str, faulty: &[&str]) -> Vec<String> {
    let mut scene = Scene::start(backend);
    let measure = |rate: u32| {
        let began = Instant::now();
        let mut found = Duration::ZERO;
        let records = scene.ask_during(cached(rate), |scene| {
            shell(&format!(
                "nft 'add table inet faulty {{ chain out {{ type filter hook output priority 0; {change}; }}; }}'"
            ));
            await_withdrawal(scene, faulty);
            found = began.elapsed();
            std::thread::sleep(Duration::from_millis(500));
        });
        // What was asked a moment before may have been answered wrongly yet.
        let settled = records.after(found + Duration::from_millis(100));
        let moved = settled.of(|record| faulty.contains(&record.kind.address));
        // Other addresses are served here as before.
        if found > FOUND || moved.from(Answer::KubeDns) != moved.asked() || settled.lost() > 0 {
            scene.fail(&records, &format!("found after {found:?}, and then not all is answered by KubeDNS"));
        }
        shell("nft delete table inet faulty");
        scene.await_service();
        records.to_string()
    };
    rates.map(measure).collect()
}
