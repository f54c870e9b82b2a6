//! How a server leaves queries to its successor, which reads the same sockets and has yet to prove itself.
//!
//! What arrives wakes both. On a processor that they share the kernel may run the same one first for seconds on end,
//! and the other never finds anything to read. So they have turns: in every other one this server waits a moment before
//! it reads, and answers what the successor has left. In those between it reads at once, since its own watchdog asks it
//! too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a turn lasts. A watchdog asks again every 10 ms when another server answers, so it meets both kinds before
/// it calls a server suspect.
const TURN: Duration = Duration::from_millis(20);

/// What this server waits in the successor's turns: long enough for the successor to be woken and to read.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether there is a successor, and whose turn it is.
pub(super) struct Yielding {
    is_on: AtomicBool,
    started: Instant,
}

impl Yielding {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_on: AtomicBool::new(false), started: now }
    }

    /// Whether a successor is to have its turns.
    pub(super) fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    fn is_successors_turn(&self, now: Instant) -> bool {
        (now.saturating_duration_since(self.started).as_millis() / TURN.as_millis()) % 2 == 1
    }

    /// To be awaited before a socket is read that has something to read.
    pub(super) async fn give_way(&self) {
        if self.is_on.load(Ordering::Relaxed) && self.is_successors_turn(Instant::now()) {
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_in_every_other_turn_as_long_as_there_is_a_successor() {
        let now = Instant::now();
        let in_turn = |turn| Yielding::new(now.checked_sub(TURN * turn + TURN / 2).unwrap());
        for turn in 0..4 {
            let yielding = in_turn(turn);
            for is_on in [false, true, false] {
                yielding.set(is_on);
                let before = tokio::time::Instant::now();
                yielding.give_way().await;
                let waited = before.elapsed();
                assert_eq!(waited >= PAUSE, is_on && turn % 2 == 1, "turn {turn}, {is_on}: {waited:?}");
            }
        }
    }
}
