//! Places of futures, which end when they have to give way.

use super::client::Client;
use super::places::{Admission, Evicted, Occupant, Place, Places};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// How many futures may run at a time. Those of the client that has most end for those of others.
pub(crate) struct Gate {
    places: Mutex<Places<Running>>,
}

/// Wakes the future that has the place; `None` before its first poll.
struct Running(Option<Waker>);

impl Occupant for Running {
    const IDLES: bool = false;

    fn idle_since(&self) -> Option<u64> {
        None
    }
}

/// What came of asking to run.
pub(crate) enum Entry {
    Room(Pass),
    /// Another one has been told to end: one of `client`, which had `held` places.
    Instead {
        pass: Pass,
        client: Client,
        held: usize,
    },
    /// All places are taken, and no other client has more than this one.
    Full,
}

/// The right to run, until it is dropped or taken away.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    place: Place,
}

impl Gate {
    /// For so many at a time, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self { places: Mutex::new(Places::new(limit)) }
    }

    /// Asks for `client`, by [`Places::admit`].
    pub(crate) fn admit(self: &Arc<Self>, client: Client, is_fair: bool) -> Entry {
        let admission = self.places.lock().admit(client, Running(None), is_fair);
        let pass = |place| Pass { gate: self.clone(), place };
        match admission {
            Admission::Room(place) => Entry::Room(pass(place)),
            Admission::Instead(place, Evicted { occupant, client, held }) => {
                occupant.wake();
                Entry::Instead { pass: pass(place), client, held }
            }
            Admission::Full => Entry::Full,
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

impl Running {
    /// Never while the places are locked: whom it wakes may be dropped by that, and with it what has a place.
    fn wake(self) {
        if let Some(waker) = self.0 {
            waker.wake();
        }
    }
}

pin_project! {
    /// [`Pass::hold`]
    pub struct Hold<'a, F> {
        pass: &'a Pass,
        has_begun: bool,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Hold<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !std::mem::replace(this.has_begun, true) && !this.pass.is_valid() {
            return Poll::Ready(None);
        }
        match this.work.poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if this.pass.waits(context) => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        }
    }
}

impl Pass {
    /// Runs `work` to its end; `None` if it has to end before.
    pub(crate) fn hold<F: Future>(&self, work: F) -> Hold<'_, F> {
        Hold { pass: self, has_begun: false, work }
    }

    /// It has not been taken away.
    pub(crate) fn is_valid(&self) -> bool {
        self.gate.places.lock().occupant(self.place).is_some()
    }

    /// Has the future of `context` woken when it is to end; false if it is to end now.
    fn waits(&self, context: &Context<'_>) -> bool {
        let mut places = self.gate.places.lock();
        let Some(Running(waker)) = places.occupant(self.place) else { return false };
        if waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return true;
        }
        let before = waker.replace(context.waker().clone());
        drop(places);
        drop(before);
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let running = self.gate.places.lock().release(self.place);
        // Not while the places are locked, for the same reason.
        drop(running);
    }
}
