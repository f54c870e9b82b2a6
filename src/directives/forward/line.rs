//! What a UDP socket and a TCP connection to an upstream have in common, and several tries of one query raced against each other.

use super::error::{Path, TryError};
use super::in_flight::{InFlight, Look};
use crate::message::Response;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// Rings a line's alarm: the one timer of the runtime that a line has.
pub struct Bell {
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set to.
    set: Option<Instant>,
}

impl Bell {
    pub fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), set: None }
    }

    /// Wakes the askers whose time is over, whenever that is; never ends.
    pub async fn ring(&mut self, in_flight: &Mutex<InFlight>) -> Infallible {
        poll_fn(|context| {
            loop {
                let Some(alarm) = in_flight.lock().alarm_for(context.waker()) else { return Poll::Pending };
                if self.set.is_none_or(|set| alarm < set) {
                    self.sleep.as_mut().reset(alarm.into());
                    self.set = Some(alarm);
                }
                ready!(self.sleep.as_mut().poll(context));
                self.set = None;
                in_flight.lock().ring(Instant::now());
            }
        })
        .await
    }
}

/// A UDP socket or a TCP connection to one upstream.
pub trait Line: Send + Sync {
    /// Looks what has become of `id`; see [`InFlight::look`].
    fn look(&self, id: u16, until: Instant, waker: &Waker) -> Look;
    /// Nobody waits for the answer to `id` any longer.
    fn forget(&self, id: u16);
    /// Takes no new queries; closes when none is in flight.
    fn retire(&self);
    /// True if anything came from the upstream after `instant`.
    fn is_heard_since(&self, instant: Instant) -> bool;
    /// Retires it if it has brought nothing since `instant`: behind a ClusterIP it may lead to a pod that is gone.
    fn retire_if_silent_since(&self, instant: Instant);
    /// The local end, once there is one.
    fn local(&self) -> Option<SocketAddr>;
}

/// One sending of a query. Dropped, it is forgotten by its line.
pub struct Try {
    pub line: Arc<dyn Line>,
    pub id: u16,
    pub sent: Instant,
    /// Queries that were in flight on the line before this one.
    pub ahead: usize,
}

impl Drop for Try {
    fn drop(&mut self) {
        self.line.forget(self.id);
    }
}

/// Several tries of one query; the first answer wins.
pub struct Race {
    pub tries: SmallVec<[Try; 1]>,
    pub path: Path,
}

/// How a wait of a [`Race`] ended.
pub enum Step {
    Answered(Response),
    /// No try is left, or none counts any longer ([`TryError::is_unproven`]); the last one's error.
    Failed(TryError),
    /// The time is over and at least one try still waits.
    Due,
}

impl Race {
    /// Waits for an answer, for the last try's failure, or until `until`.
    pub async fn wait(&mut self, until: Instant) -> Step {
        poll_fn(|context| self.poll(until, context)).await
    }

    fn poll(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<Step> {
        let (mut answer, mut failure, mut is_due) = (None, None, false);
        self.tries.retain(|attempt| match attempt.line.look(attempt.id, until, context.waker()) {
            Look::Pending => true,
            Look::Due => {
                is_due = true;
                true
            }
            Look::Over(outcome) => {
                match outcome {
                    Ok(response) => answer = Some(response),
                    Err(error) => failure = Some(error),
                }
                false
            }
        });
        match (answer, failure) {
            (Some(response), _) => Poll::Ready(Step::Answered(response)),
            (None, Some(error)) if self.tries.is_empty() || error.is_unproven() => Poll::Ready(Step::Failed(error)),
            _ if is_due => Poll::Ready(Step::Due),
            _ => Poll::Pending,
        }
    }

    /// The lines of this race that have brought nothing since they took its query are not to be used for new ones.
    pub fn retire_silent_lines(&self) {
        for attempt in &self.tries {
            attempt.line.retire_if_silent_since(attempt.sent);
        }
    }

    /// The path of the newest try, for messages.
    pub fn newest_path(&self) -> Path {
        Path { local: self.tries.last().and_then(|attempt| attempt.line.local()), ..self.path }
    }
}

/// Ends every wait when the task that reads a line ends, however it ends.
pub struct FailOnDrop<'a> {
    pub in_flight: &'a Mutex<InFlight>,
    pub error: TryError,
}

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.in_flight.lock().end(&self.error);
    }
}
