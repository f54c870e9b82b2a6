//! Bounds how often profiles are made: one at a time, and a pause after each.

use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// Times as long as something took nothing is done afterwards: a fifth of a processor at most, as with all that is
/// served over HTTP.
const REST: u32 = 4;

/// Who may work.
pub(super) struct Turn(Mutex<Instant>);

/// May work, until it is dropped.
pub(super) struct Working<'a>(MutexGuard<'a, Instant>);

impl Turn {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }
    /// Waits for the others that came before, and for the rest after the last of them.
    pub(super) async fn wait(&self) -> Working<'_> {
        Working::after_rest(self.0.lock().await).await
    }
    /// The same, or none if somebody else works or waits.
    pub(super) async fn try_wait(&self) -> Option<Working<'_>> {
        Some(Working::after_rest(self.0.try_lock().ok()?).await)
    }
}

impl<'a> Working<'a> {
    async fn after_rest(guard: MutexGuard<'a, Instant>) -> Self {
        if *guard > Instant::now() {
            sleep_until(*guard).await;
        }
        Self(guard)
    }
    /// It is done, and took this much of a processor's time.
    pub(super) fn done(mut self, took: Duration) {
        *self.0 = Instant::now() + took * REST;
    }
}

#[cfg(test)]
mod tests {
    use super::{REST, Turn};
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn one_works_at_a_time_and_each_is_followed_by_a_rest() {
        let turn = Turn::new();
        let first = turn.wait().await;
        assert!(turn.try_wait().await.is_none());
        let took = Duration::from_secs(1);
        first.done(took);
        let asked = Instant::now();
        let second = turn.try_wait().await.expect("nobody works");
        assert!(asked.elapsed() >= took * REST, "on the paused clock");
        drop(second);
        let asked = Instant::now();
        _ = turn.wait().await;
        assert_eq!(asked.elapsed(), Duration::ZERO);
    }
}
