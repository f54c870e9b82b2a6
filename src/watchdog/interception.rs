//! The seam to the node: whoever can make the node intercept, or not, told what is wanted and telling what became of it. It has a
//! thread of its own, since the tools it uses may block (the xtables lock), and a probe must not wait for that.

use super::state::Interception;
use std::future::{Future, pending};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long after a failure the same is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Something on the node could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SetupError {
    /// The label of `coredns_nodecache_setup_errors_total`, such as `iptables_lock`.
    pub errortype: &'static str,
    /// What failed, on what, and what to do.
    pub message: String,
}

/// Makes the node intercept queries, or not. Futures stay on one thread.
pub trait Interceptor {
    /// Makes the node as wanted; called again after something changed, and cheap when nothing has. Returns what went wrong beside it: the
    /// interception is as wanted all the same.
    ///
    /// # Errors
    /// The interception is not as wanted, and why.
    fn ensure(&mut self, interception: Interception) -> impl Future<Output = Result<Vec<SetupError>, Vec<SetupError>>>;
    /// As fast as can be: queries no longer come here. Link and addresses stay.
    fn withdraw(&mut self) -> impl Future<Output = Result<Vec<SetupError>, Vec<SetupError>>> {
        self.ensure(Interception::Probing)
    }
    /// Takes down everything that was set up.
    fn teardown(&mut self) -> impl Future<Output = Result<(), Vec<SetupError>>>;
    /// Resolves when something may have changed underneath us (netlink notifications, a periodic look). Dropped and called again at
    /// any time.
    fn changed(&mut self) -> impl Future<Output = ()>;
}

/// Nothing to set up: every start without the node's flags.
#[derive(Clone, Copy, Debug)]
pub struct Idle;

impl Interceptor for Idle {
    async fn ensure(&mut self, _: Interception) -> Result<Vec<SetupError>, Vec<SetupError>> {
        Ok(Vec::new())
    }
    async fn teardown(&mut self) -> Result<(), Vec<SetupError>> {
        Ok(())
    }
    async fn changed(&mut self) {
        pending().await
    }
}

/// What is wanted of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Interception(Interception),
    Teardown,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub wish: Wish,
    /// It is so, whatever went wrong beside it.
    pub is_done: bool,
    pub errors: Vec<SetupError>,
}

/// The thread's handle. Wishes overtake each other: the last one counts.
pub(super) struct Node {
    wish: watch::Sender<Option<Wish>>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

impl Node {
    /// Starts the thread; `make` is called on it, in a runtime.
    pub fn start<I: Interceptor, F: Future<Output = I>>(make: impl FnOnce() -> F + Send + 'static) -> io::Result<Self> {
        let (wish, wishes) = watch::channel(None);
        let (report, outcomes) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("interception".to_owned()).stack_size(512 << 10).spawn(move || {
            runtime.block_on(async move { serve(make().await, wishes, &report).await });
        })?;
        Ok(Self { wish, outcomes })
    }

    pub fn wish(&self, wish: Wish) {
        self.wish.send_replace(Some(wish));
    }

    /// The next outcome; never, if the thread is gone.
    pub async fn outcome(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(outcome) => outcome,
            None => pending().await,
        }
    }
}

async fn serve(
    mut interceptor: impl Interceptor,
    mut wishes: watch::Receiver<Option<Wish>>,
    report: &mpsc::UnboundedSender<Outcome>,
) {
    let mut has_failed = false;
    loop {
        let retry = async { if has_failed { tokio::time::sleep(RETRY).await } else { pending().await } };
        tokio::select! {
            changed = wishes.changed() => if changed.is_err() { return },
            () = interceptor.changed() => {}
            () = retry => {}
        }
        let Some(wish) = *wishes.borrow_and_update() else { continue };
        let result = match wish {
            Wish::Interception(Interception::Probing) => interceptor.withdraw().await,
            Wish::Interception(on) => interceptor.ensure(on).await,
            Wish::Teardown => interceptor.teardown().await.map(|()| Vec::new()),
        };
        let is_done = result.is_ok();
        let errors = result.unwrap_or_else(|errors| errors);
        has_failed = !errors.is_empty();
        if report.send(Outcome { wish, is_done, errors }).is_err() || wish == Wish::Teardown {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Interceptor, Node, Outcome, SetupError, Wish};
    use crate::watchdog::state::Interception;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[derive(Clone, Default)]
    struct Fake {
        failures: Arc<AtomicUsize>,
        /// What fails does not keep the interception from being as wanted.
        is_beside: bool,
        change: Arc<Notify>,
    }

    impl Interceptor for Fake {
        async fn ensure(&mut self, _: Interception) -> Result<Vec<SetupError>, Vec<SetupError>> {
            let fails = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let error = || SetupError { errortype: "iptables_lock", message: "held".to_owned() };
            match fails {
                true if self.is_beside => Ok(vec![error()]),
                true => Err(vec![error()]),
                false => Ok(Vec::new()),
            }
        }
        async fn teardown(&mut self) -> Result<(), Vec<SetupError>> {
            Ok(())
        }
        async fn changed(&mut self) {
            self.change.notified().await;
        }
    }

    #[tokio::test]
    async fn wishes_failures_and_changes_lead_to_outcomes_until_the_teardown() {
        let fake = Fake::default();
        fake.failures.store(1, Ordering::Relaxed);
        let own = fake.clone();
        let mut node = Node::start(|| async { own }).unwrap();
        let on = Wish::Interception(Interception::On);
        node.wish(on);
        let failed = node.outcome().await;
        assert_eq!((failed.wish, failed.is_done, failed.errors.len()), (on, false, 1));
        assert_eq!(node.outcome().await, Outcome { wish: on, is_done: true, errors: vec![] }, "it is tried again by itself");
        fake.change.notify_one();
        assert_eq!(node.outcome().await, Outcome { wish: on, is_done: true, errors: vec![] }, "what changed is mended");
        node.wish(Wish::Teardown);
        assert_eq!(node.outcome().await.wish, Wish::Teardown);
    }

    #[tokio::test]
    async fn what_fails_beside_the_interception_is_told_and_tried_again_and_the_interception_is_as_wanted() {
        let fake = Fake { is_beside: true, ..Fake::default() };
        fake.failures.store(1, Ordering::Relaxed);
        let mut node = Node::start(|| async { fake }).unwrap();
        let off = Wish::Interception(Interception::Probing);
        node.wish(off);
        let outcome = node.outcome().await;
        assert_eq!((outcome.wish, outcome.is_done, outcome.errors.len()), (off, true, 1));
        assert_eq!(node.outcome().await, Outcome { wish: off, is_done: true, errors: vec![] });
    }
}
