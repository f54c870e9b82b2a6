//! Limits how many futures run at a time. One that has to give way to another client's ends.

use super::client::Client;
use super::places::{Admission, Evicted, Occupant, Place, Places};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// How many futures may run at a time. Those of the client that has most end for those of others.
pub(crate) struct ConcurrencyLimiter {
    places: Mutex<Places<TaskWaker>>,
}

/// Wakes the future that has the place; `None` before its first poll.
struct TaskWaker(Option<Waker>);

impl Occupant for TaskWaker {
    const IDLES: bool = false;

    fn idle_since(&self) -> Option<u64> {
        None
    }
}

/// What came of asking to run.
pub(crate) enum PermitOutcome {
    Granted(Permit),
    /// Another one has been told to end: one of `client`, which had `held` places.
    Evicting {
        permit: Permit,
        client: Client,
        held: usize,
    },
    /// All places are taken, and no other client has more than this one.
    Full,
}

/// The right to run, until it is dropped or taken away.
pub(crate) struct Permit {
    limiter: Arc<ConcurrencyLimiter>,
    place: Place,
}

impl ConcurrencyLimiter {
    /// For so many at a time, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self { places: Mutex::new(Places::new(limit)) }
    }

    /// Asks for `client`, by [`Places::admit`].
    pub(crate) fn admit(self: &Arc<Self>, client: Client, is_fair: bool) -> PermitOutcome {
        let admission = self.places.lock().admit(client, TaskWaker(None), is_fair);
        let permit = |place| Permit { limiter: self.clone(), place };
        match admission {
            Admission::Granted(place) => PermitOutcome::Granted(permit(place)),
            Admission::Evicting(place, Evicted { occupant, client, held }) => {
                occupant.wake();
                PermitOutcome::Evicting { permit: permit(place), client, held }
            }
            Admission::Full => PermitOutcome::Full,
        }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.places.lock().len()
    }

    /// From now on so many may run. Returns how many have been told to end for that.
    pub(crate) fn set_limit(&self, limit: usize) -> usize {
        let evicted = self.places.lock().set_limit(limit);
        evicted.into_iter().map(|evicted| evicted.occupant.wake()).count()
    }
}

impl TaskWaker {
    /// Never while the places are locked: whom it wakes may be dropped by that, and with it what has a place.
    fn wake(self) {
        if let Some(waker) = self.0 {
            waker.wake();
        }
    }
}

pin_project! {
    /// [`Permit::hold`]
    pub struct Hold<'a, F> {
        permit: &'a Permit,
        has_begun: bool,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Hold<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !std::mem::replace(this.has_begun, true) && !this.permit.is_valid() {
            return Poll::Ready(None);
        }
        match this.work.poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if this.permit.waits(context) => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        }
    }
}

impl Permit {
    /// Runs `work` to its end; `None` if it has to end before.
    pub(crate) fn hold<F: Future>(&self, work: F) -> Hold<'_, F> {
        Hold { permit: self, has_begun: false, work }
    }

    /// It has not been taken away.
    pub(crate) fn is_valid(&self) -> bool {
        self.limiter.places.lock().occupant(self.place).is_some()
    }

    /// Has the future of `context` woken when it is to end; false if it is to end now.
    fn waits(&self, context: &Context<'_>) -> bool {
        let mut places = self.limiter.places.lock();
        let Some(TaskWaker(waker)) = places.occupant(self.place) else { return false };
        if waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return true;
        }
        let before = waker.replace(context.waker().clone());
        drop(places);
        drop(before);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let running = self.limiter.places.lock().release(self.place);
        // Not while the places are locked, for the same reason.
        drop(running);
    }
}
