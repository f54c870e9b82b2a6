//! Short attacks of each kind, which run with all tests.

use crate::row::{Place, run};
use crate::target::Program;
use std::sync::Mutex;

/// Those that cost a row of their kind the most, or that nobody but this table would find.
const ROWS: &[&str] = &[
    "flights::spoofer_who_knows_the_port",
    "answers::pointers_over_tcp",
    "pours::small_messages",
    "misses::silent_from_sixteen_addresses",
    "connections::busy_from_two_hundred_addresses",
    "http::unread_scrapes",
    "queries::texts",
    "others::what_a_client_says",
    "sizes::replies_over_udp",
    "encrypted::silent",
    "encrypted::rapid_resets",
    "encrypted::unread_answers",
];

/// Rows at a time, each in namespaces of its own; they mostly wait.
const AT_ONCE: usize = 4;

#[test]
fn short_attacks_cost_nobody_an_answer() {
    let (waiting, broken) = (Mutex::new(ROWS.iter().rev().copied().collect::<Vec<_>>()), Mutex::new(String::new()));
    let next = || waiting.lock().expect("nobody panics with this lock held").pop();
    let work = || {
        while let Some(row) = next() {
            let told = run(Place::Anywhere, row, Program::Ours);
            if !told.broken.is_empty() {
                let found = format!("{row}: does not hold:\n- {}\n{}\n", told.broken.join("\n- "), told.printed);
                broken.lock().expect("nobody panics with this lock held").push_str(&found);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let broken = broken.into_inner().expect("nobody panicked with this lock held");
    assert!(broken.is_empty(), "{broken}");
}
