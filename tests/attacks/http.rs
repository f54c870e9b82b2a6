//! Rows about the HTTP ports: metrics of the server and of the watchdog, and health.

use crate::crowd::{Manners, crowd};
use crate::flood::addresses;
use crate::outcome::Outcome;
use crate::row::row;
use crate::scene::{HEALTH, METRICS, Scene, Setup, duration, strength};
use crate::support::client::{http, loopback};
use crate::target::{Program, WATCHDOG_METRICS};
use std::time::{Duration, Instant};

/// Where attackers connect, and what is asked for meanwhile by those who should.
const PORTS: [(u16, &str); 3] = [(HEALTH, "health"), (METRICS, "metrics"), (WATCHDOG_METRICS, "metrics")];

/// Processors that unread scrapes may take, with everything else that is served meanwhile.
const MOST_PROCESSORS: f64 = 0.6;

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

/// Connections to each port, and a prober who asks each port a few times a second.
pub fn besieged(program: Program, count: u32, manners: &Manners) -> Outcome {
    let scene = Scene::start(program, Setup::default());
    let addresses = addresses(50);
    let (mut outcome, (told, failed, probes)) = scene.attack(|_| {
        std::thread::scope(|scope| {
            let crowds = PORTS.map(|(port, _)| {
                let addresses = &addresses;
                scope.spawn(move || crowd(addresses, loopback(port), strength(count), duration(), manners))
            });
            let (mut failed, mut probes) = (Vec::new(), 0);
            let ends = Instant::now() + duration();
            while Instant::now() < ends {
                for (port, path) in PORTS {
                    probes += 1;
                    if http(&format!("{port}/{path}")).is_none_or(|(status, _)| status != 200) {
                        failed.push(port);
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let told = crowds.map(|crowd| crowd.join().expect("it does not panic").to_string());
            (told.join(" / "), failed, probes)
        })
    });
    outcome.tell(format!("health / metrics / the watchdog's: {told}"));
    let of_port = |port: u16| failed.iter().filter(|failed| **failed == port).count();
    outcome
        .tell(format!("failed of {probes} probes: {}", PORTS.map(|(port, _)| of_port(port).to_string()).join(" / ")));
    outcome.hold_unless_starved(failed.is_empty(), "probes and scrapes are answered");
    scene.memory_goes_back(&mut outcome);
    outcome
}

#[test]
#[ignore = "a row of make attacks"]
fn idle() {
    row("http::idle", "2,000 idle connections to each HTTP port", |program| {
        besieged(program, 2_000, &Manners::default())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_header() {
    row("http::slow_header", "1,000 connections to each HTTP port that send a header an octet at a time", |program| {
        let greeting = |_: usize| b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        besieged(program, 1_000, &Manners { greeting, then: |_| vec![b'a'], ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn huge_header() {
    row("http::huge_header", "200 connections to each HTTP port with a header without end", |program| {
        let greeting = |_: usize| b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        besieged(program, 200, &Manners { greeting, then: |_| vec![b'a'; 65_536], ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn huge_body() {
    row("http::huge_body", "200 connections to each HTTP port with a body without end", |program| {
        let greeting = |_: usize| b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
        besieged(program, 200, &Manners { greeting, then: |_| vec![b'a'; 65_536], ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn unread_scrapes() {
    row(
        "http::unread_scrapes",
        "100 connections to each HTTP port that pipeline 200 scrapes and read nothing",
        |program| {
            let manners =
                Manners { greeting: |_| SCRAPE.repeat(200), then: |_| Vec::new(), is_deaf: true, ..Manners::default() };
            let mut outcome = besieged(program, 100, &manners);
            outcome.hold(outcome.processor < MOST_PROCESSORS, "scrapes that nobody reads cost no processor");
            outcome
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn scrapes() {
    row("http::scrapes", "16 connections to each HTTP port that scrape 20 times each 100 ms", |program| {
        let many = |_: usize| SCRAPE.repeat(20);
        besieged(program, 16, &Manners { greeting: many, then: many, ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn churn() {
    row("http::churn", "1,000 connections to each HTTP port at a time that ask and reset", |program| {
        besieged(program, 1_000, &Manners { greeting: |_| SCRAPE.to_vec(), is_fickle: true, ..Manners::default() })
    });
}
