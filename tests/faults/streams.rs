//! Many clients that ask over TCP, each over one connection after the other, while the program ends in
//! order: a connection ends where it began.

use crate::cluster::{SOON, in_a_namespace};
use crate::load::CACHED;
use crate::scene::{ADDRESSES, Scene};
use crate::support::server::wait_until;
use crate::wire::{Answer, judge, question};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const CLIENTS: usize = 64;
/// Of a client after each answer, so that all together leave the server its processor: one that hangs is replaced, and
/// its connections go with it.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the program ends.
const TIMES: usize = 3;

#[test]
fn sixty_four_clients_over_tcp_lose_nothing_at_sigterm_with_nftables() {
    let name = "streams::sixty_four_clients_over_tcp_lose_nothing_at_sigterm_with_nftables";
    in_a_namespace(name, || end_under_clients("nftables"));
}

#[test]
fn sixty_four_clients_over_tcp_lose_nothing_at_sigterm_with_iptables() {
    let name = "streams::sixty_four_clients_over_tcp_lose_nothing_at_sigterm_with_iptables";
    in_a_namespace(name, || end_under_clients("iptables"));
}

fn end_under_clients(backend: &str) {
    let mut scene = Scene::start(backend);
    for time in 0..TIMES {
        if time > 0 {
            scene.start_again();
        }
        let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let places = [scene.network.pod.clone(), scene.network.host.clone()];
        let ask = |number: usize| {
            places[number % places.len()].enter();
            let address = ADDRESSES[number / places.len() % ADDRESSES.len()];
            let mut lost = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                lost.extend(ask_once(address).err().map(|error| format!("client {number} at {address}: {error}")));
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            lost
        };
        let has_asked_on = || {
            let enough = asked.load(Ordering::Relaxed) + 10 * CLIENTS;
            wait_until(SOON, || asked.load(Ordering::Relaxed) >= enough)
        };
        let lost: Vec<String> = std::thread::scope(|scope| {
            let ask = &ask;
            let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || ask(number))).collect();
            let has_begun = has_asked_on();
            scene.agent.watchdog.signal(libc::SIGTERM);
            let has_ended = scene.agent.watchdog.wait_exit(SOON).is_some();
            let goes_on = has_asked_on();
            stop.store(true, Ordering::Relaxed);
            assert!(has_begun && has_ended && goes_on, "{}", scene.agent.watchdog.tail(20));
            clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
        });
        // On a machine that has no time for it a server is taken for hanging, and killed.
        let is_by_machine = scene.agent.watchdog.output().contains("the server is replaced");
        assert!(lost.is_empty() || is_by_machine, "{} of {} lost: {lost:#?}", lost.len(), asked.into_inner());
    }
}

/// One query over a connection of its own, and what went wrong.
fn ask_once(address: &str) -> Result<(), String> {
    let question = question(CACHED[0]);
    let server = SocketAddr::new(address.parse().expect("an address"), 53);
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect_timeout(&server, SOON).map_err(failed("connecting"))?;
    stream.set_read_timeout(Some(SOON)).expect("a timeout above zero");
    let mut wire = u16::try_from(question.len()).expect("a short question").to_be_bytes().to_vec();
    wire.extend_from_slice(&question);
    stream.write_all(&wire).map_err(failed("asking"))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).map_err(failed("waiting for the answer"))?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).map_err(failed("reading the answer"))?;
    match judge(&question, &answer) {
        Answer::Node | Answer::KubeDns => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
