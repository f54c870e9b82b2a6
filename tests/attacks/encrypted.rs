//! Rows about the listeners for TLS and HTTPS: connections that make no session, sessions that cost what they can, and
//! HTTP/2 as it is not meant.

use crate::certificate::{Certificate, HTTPS, TLS, session};
use crate::crowd::{Manners, crowd};
use crate::flood::addresses;
use crate::http2;
use crate::outcome::Outcome;
use crate::polite_sessions::PoliteSessions;
use crate::row::row;
use crate::scene::{LEAD, Scene, duration, strength};
use crate::sessions::{Habits, sessions};
use crate::target::Program;
use crate::wire::{A, TXT, framed, query};
use std::net::SocketAddr;
use std::sync::OnceLock;

/// What polite clients lose, within TLS and HTTPS too, while `attack` goes on.
fn besieged(program: Program, attack: impl FnOnce(&Certificate) -> String + Send) -> Outcome {
    let certificate = Certificate::new();
    let scene = Scene::start(program, certificate.setup());
    let (mut outcome, (told, [tls, https])) = scene.attack(|_| {
        let polite = PoliteSessions::start(&certificate);
        std::thread::sleep(LEAD);
        let told = attack(&certificate);
        std::thread::sleep(LEAD);
        (told, polite.finish())
    });
    outcome.tell(told);
    outcome.tell(format!("lost within TLS {tls}, over HTTPS {https}"));
    let lost = tls.missed() + https.missed();
    outcome.hold_unless_waited(&scene.target, lost == 0, "polite clients within TLS and over HTTPS lose nothing");
    scene.memory_goes_back(&mut outcome);
    outcome
}

/// Connections from so many addresses that make no session.
fn without_session(program: Program, server: SocketAddr, count: u32, from: usize, manners: &Manners) -> Outcome {
    besieged(program, |_| crowd(&addresses(from), server, strength(count), duration(), manners).to_string())
}

/// Sessions from so many addresses.
fn within(program: Program, server: SocketAddr, count: u32, from: usize, habits: &Habits) -> Outcome {
    besieged(program, |certificate| {
        let config = certificate.client(habits.protocol);
        sessions(&config, &addresses(from), server, strength(count), duration(), habits).to_string()
    })
}

/// Sessions of HTTP/2 from sixteen addresses.
fn over_http2(program: Program, count: u32, greeting: fn(usize) -> Vec<u8>, then: fn(u32) -> Vec<u8>) -> Outcome {
    let habits = Habits { protocol: Some(b"h2"), greeting, then, ..Habits::default() };
    within(program, HTTPS, count, 16, &habits)
}

/// What a session begins with.
fn client_hello() -> &'static [u8] {
    static HELLO: OnceLock<Vec<u8>> = OnceLock::new();
    HELLO.get_or_init(|| {
        let mut hello = Vec::new();
        let mut tls = session(&Certificate::new().client(None));
        tls.write_tls(&mut hello).expect("memory takes it");
        hello
    })
}

#[test]
#[ignore = "a row of make attacks"]
fn silent() {
    row("encrypted::silent", "3,000 TLS connections that say nothing, 200 addresses", |program| {
        without_session(program, TLS, 3_000, 200, &Manners::default())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn silent_from_one_address() {
    row("encrypted::silent_from_one_address", "3,000 TLS connections that say nothing, 1 address", |program| {
        without_session(program, TLS, 3_000, 1, &Manners::default())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn half_sent() {
    row(
        "encrypted::half_sent",
        "1,000 HTTPS connections that send a record an octet in 100 ms, 200 addresses",
        |program| {
            let greeting = |_: usize| client_hello().iter().copied().take(100).collect();
            let then = |_: usize| vec![client_hello()[100]];
            without_session(program, HTTPS, 1_000, 200, &Manners { greeting, then, ..Manners::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn begun() {
    row(
        "encrypted::begun",
        "500 TLS connections at a time that begin a handshake and reset, 200 addresses",
        |program| {
            let greeting = |_: usize| client_hello().to_vec();
            without_session(program, TLS, 500, 200, &Manners { greeting, is_fickle: true, ..Manners::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn junk() {
    row("encrypted::junk", "500 TLS connections that pour junk, HTTP and DNS, 16 addresses", |program| {
        let many = |number: usize| match number % 3 {
            0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500),
            1 => [0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3].repeat(500),
            _ => framed(&query("hot1.polite.example", A)).repeat(500),
        };
        without_session(program, TLS, 500, 16, &Manners { greeting: many, then: many, ..Manners::default() })
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn idle_sessions() {
    row("encrypted::idle_sessions", "2,000 idle TLS sessions from 200 addresses", |program| {
        within(program, TLS, 2_000, 200, &Habits::default())
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_readers() {
    row(
        "encrypted::slow_readers",
        "200 TLS sessions that read nothing of 100 answers of 64 KiB, 50 addresses",
        |program| {
            let greeting = |_: usize| framed(&query("hot.big.example", TXT)).repeat(100);
            within(program, TLS, 200, 50, &Habits { greeting, is_deaf: true, ..Habits::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn key_updates() {
    row(
        "encrypted::key_updates",
        "64 TLS sessions that change their keys 200 times each 100 ms, 16 addresses",
        |program| within(program, TLS, 64, 16, &Habits { key_updates: 200, ..Habits::default() }),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn pipelined_hits() {
    row(
        "encrypted::pipelined_hits",
        "32 TLS sessions with 500 queries for a cached name each 100 ms, 16 addresses",
        |program| {
            let greeting = |_: usize| framed(&query("hot1.polite.example", A)).repeat(500);
            let then = |_: u32| framed(&query("hot1.polite.example", A)).repeat(500);
            within(program, TLS, 32, 16, &Habits { greeting, then, ..Habits::default() })
        },
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn rapid_resets() {
    row(
        "encrypted::rapid_resets",
        "HTTP/2: 32 sessions that ask and reset 300 times each 100 ms, 16 addresses",
        |program| over_http2(program, 32, http2::preface, http2::rapid_resets),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn many_streams() {
    row(
        "encrypted::many_streams",
        "HTTP/2: 32 sessions with 300 streams more each 100 ms, for silent names, 16 addresses",
        |program| over_http2(program, 32, http2::preface, http2::many_streams),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn continuations() {
    row("encrypted::continuations", "HTTP/2: 32 sessions whose headers go on without end, 16 addresses", |program| {
        over_http2(program, 32, http2::preface_and_open_headers, http2::continuations)
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn huge_headers() {
    row(
        "encrypted::huge_headers",
        "HTTP/2: 32 sessions with four headers of 16 KiB each 100 ms, 16 addresses",
        |program| over_http2(program, 32, http2::preface, http2::huge_headers),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn pings() {
    row("encrypted::pings", "HTTP/2: 32 sessions with 3,000 PING each 100 ms, 16 addresses", |program| {
        over_http2(program, 32, http2::preface, http2::pings)
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn settings() {
    row("encrypted::settings", "HTTP/2: 32 sessions with 3,000 SETTINGS each 100 ms, 16 addresses", |program| {
        over_http2(program, 32, http2::preface, http2::settings)
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn empty_data() {
    row("encrypted::empty_data", "HTTP/2: 32 sessions with 5,000 empty DATA each 100 ms, 16 addresses", |program| {
        over_http2(program, 32, http2::preface_and_slow_posts, http2::empty_data)
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn slow_posts() {
    row(
        "encrypted::slow_posts",
        "HTTP/2: 64 sessions with 100 bodies that come an octet each 100 ms, 16 addresses",
        |program| over_http2(program, 64, http2::preface_and_slow_posts, http2::octet_of_each),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn unread_answers() {
    row(
        "encrypted::unread_answers",
        "HTTP/2: 200 sessions that let no octet of 100 answers of 64 KiB come, 16 addresses",
        |program| over_http2(program, 200, http2::preface_and_unread_answers, |_| Vec::new()),
    );
}
