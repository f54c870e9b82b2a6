//! The timer of a socket: it wakes the callers of the queries in flight whose deadlines have passed.

use super::in_flight::InFlightQueries;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// The one timer that a socket's task has, however many queries are in flight.
pub(super) struct DeadlineTimer {
    sleep: Pin<Box<Sleep>>,
    /// When `sleep` ends; `None` if it has ended already.
    set_to: Option<Instant>,
}

impl DeadlineTimer {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), set_to: None }
    }

    /// Wakes callers at their deadlines. Never ends.
    pub(super) async fn run(&mut self, in_flight: &Mutex<InFlightQueries>) -> Infallible {
        poll_fn(|context| {
            loop {
                let Some(deadline) = in_flight.lock().next_deadline(context.waker()) else { return Poll::Pending };
                if self.set_to.is_none_or(|set_to| deadline < set_to) {
                    self.sleep.as_mut().reset(deadline.into());
                    self.set_to = Some(deadline);
                }
                ready!(self.sleep.as_mut().poll(context));
                self.set_to = None;
                in_flight.lock().wake_expired(Instant::now());
            }
        })
        .await
    }
}
