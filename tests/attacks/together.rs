//! Everything at once.

use crate::connections::{BUSY, SLOW_READERS};
use crate::crowd::crowd;
use crate::flood::{Flood, addresses, random_name};
use crate::hostile::CHAINS;
use crate::neighbour::Neighbour;
use crate::row::row;
use crate::scene::{Scene, Setup, duration, strength};
use crate::upstream::Reply;
use crate::wire::{A, query};
use std::sync::Arc;

#[test]
#[ignore = "a row of make attacks"]
fn all_kinds() {
    let attack = "at once: 5,000 random names a second at a silent upstream, 5,000 that exist, 5,000 queries for a cached name, 50 hostile answers a second, \
                  1,000 busy TCP connections, 200 that read nothing; 64 addresses";
    row("together::all_kinds", attack, |program| {
        let scene = Scene::start(program, setup());
        let neighbour = Neighbour::start();
        let (mut outcome, told) = scene.attack(all_of_them);
        outcome.tell(told);
        outcome.at_most("sockets of others failed", neighbour.finish().1, 0);
        scene.see_memory(&mut outcome);
        outcome
    });
}

/// With an upstream whose answers are chains.
pub fn setup() -> Setup {
    let hostile = |query: &[u8], question: &crate::wire::Question, _| {
        Reply::Message(CHAINS[question.name.len() % CHAINS.len()].1(query, question, 65_535))
    };
    Setup::with_evil("force_tcp", Arc::new(hostile))
}

/// What became of the connections.
pub fn all_of_them(scene: &Scene) -> String {
    let (sources, during) = (addresses(64), 2 * duration());
    let floods: [(&str, u32); 4] =
        [("silent.example", 5_000), ("fill.example", 5_000), ("polite.example", 5_000), ("evil.example", 50)];
    std::thread::scope(|scope| {
        for (zone, rate) in floods {
            let sources = &sources;
            scope.spawn(move || {
                Flood::from(sources, scene.server).send(strength(rate), during, |_| match zone {
                    "polite.example" => query("hot1.polite.example", A),
                    zone => query(&random_name(zone), A),
                })
            });
        }
        let readers = scope.spawn(|| crowd(&sources, scene.server, strength(200), during, &SLOW_READERS));
        let busy = crowd(&sources, scene.server, strength(1_000), during, &BUSY);
        format!("busy: {busy}; slow readers: {}", readers.join().expect("it does not panic"))
    })
}
