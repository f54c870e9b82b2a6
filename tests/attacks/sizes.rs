//! Rows about replies larger than what drew them.

use crate::polite::{ask_on_a_connection, ask_once};
use crate::row::row;
use crate::scene::{Scene, Setup};
use crate::target::Program;
use crate::wire::{A, ANY, Ask, Edns, NS, TXT, is_truncated, name, query};
use std::time::Duration;

/// Octets of a reply over UDP, whatever the client offers: what passes every path unfragmented.
const MOST: usize = 1232;

const OFFERS: [Option<u16>; 7] = [None, Some(0), Some(512), Some(1232), Some(1500), Some(4096), Some(65_535)];

/// Names with answers of nearly 64 KiB, which are cached.
const LARGE: [(&str, u16); 5] = [
    ("a.big.example", TXT),
    ("a.many.example", A),
    ("a.servers.example", NS),
    ("a.big.example", ANY),
    ("a.many.example", 46),
];

#[test]
#[ignore = "a row of make attacks"]
fn replies_over_udp() {
    row(
        "sizes::replies_over_udp",
        "small queries about large answers, with offers of up to 65,535 octets",
        replies_fit,
    );
}

pub fn replies_fit(program: Program) -> crate::outcome::Outcome {
    let scene = Scene::start(program, Setup::default());
    let (mut outcome, replies) = scene.attack(|scene| {
        let mut replies = Vec::new();
        for (text, rtype) in LARGE {
            // Cached from here on.
            _ = ask_on_a_connection(scene.server, &query(text, rtype));
            for offer in OFFERS {
                for dnssec in [false, true] {
                    let edns = offer.map(|payload| Edns { payload, dnssec, options: Vec::new() });
                    let wire = Ask { edns, ..Ask::default() }.about(&name(text), rtype);
                    let Some(reply) = ask_once(scene.server, &wire, Duration::from_secs(5)) else { continue };
                    let fits = usize::from(offer.unwrap_or(512).max(512)).min(MOST);
                    replies.push((wire.len(), reply.len(), fits, is_truncated(&reply)));
                }
            }
        }
        replies
    });
    let factor = replies.iter().map(|(asked, told, ..)| *told as f64 / *asked as f64).fold(0.0, f64::max);
    outcome.tell(format!("{} replies, at most {factor:.0} octets for one", replies.len()));
    let largest = replies.iter().map(|(_, told, ..)| *told).max().unwrap_or_default();
    outcome.at_most("octets of a reply", largest as u64, MOST as u64);
    outcome.hold(replies.iter().all(|(_, told, fits, _)| told <= fits), "no reply is larger than the client offers");
    outcome.hold_unless_starved(replies.len() == LARGE.len() * OFFERS.len() * 2, "each query has a reply");
    outcome.hold(replies.iter().any(|(.., is_truncated)| *is_truncated), "what does not fit says TC");
    outcome
}
