//! Spans: what a traced query waited for on the slow path, and how long. A block that has a [`Tracer`] asks it of each
//! query; who is traced takes the slow path, where each handler, and whatever else has a name, opens a span within the
//! one that is open. Of all other queries nothing is recorded.

use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Spans of one query. What would be more is not recorded: an alias may lead to many questions.
const MOST_SPANS: usize = 64;

tokio::task_local! {
    /// Those of the query that this task answers.
    static CURRENT: Arc<Spans>;
}

/// Chooses queries of a block to be traced (`trace`).
pub trait Tracer: Send + Sync {
    /// Whether this query is to be traced. Called once for each query, those included that the packet cache answers.
    /// Must not block or allocate.
    fn is_sampled(&self) -> bool;

    /// Begins the record of a query that is.
    fn begin(&self) -> Arc<Spans>;
}

/// A part of the time that a query took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was done: the reference's name for it.
    pub name: &'static str,
    /// Index of the span within which it was opened; `None`: the query itself.
    pub parent: Option<usize>,
    /// From [`Spans::begun`] on.
    pub start: Duration,
    /// `None` while it is open.
    pub duration: Option<Duration>,
    /// Whom it was spent on.
    pub peer: Option<SocketAddr>,
}

/// The metadata label that says in which trace a query is.
const TRACE_ID: &str = "trace/traceid";

/// The spans of one query.
pub struct Spans {
    /// Not zero.
    pub trace_id: u64,
    pub begun: Instant,
    recorded: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    spans: Vec<Span>,
    /// Indices of those that are open, the innermost last.
    open: Vec<usize>,
}

impl Spans {
    /// Of a query whose record begins at `begun`.
    pub fn new(trace_id: u64, begun: Instant) -> Self {
        Self { trace_id, begun, recorded: Mutex::default() }
    }

    /// The value of a metadata label that the trace of this task's query sets (`trace/traceid`); `None` for another,
    /// and if the query is not traced.
    pub fn label(label: &str) -> Option<String> {
        Self::current().filter(|_| label == TRACE_ID).map(|spans| format!("{:016x}", spans.trace_id))
    }

    /// Those of the query that this task answers; `None` if it is not traced.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Whether this task answers a query that is traced.
    pub fn are_recorded() -> bool {
        CURRENT.try_with(|_| ()).is_ok()
    }

    /// Runs `work` for the query of these.
    pub fn scope<F: Future>(self: Arc<Self>, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// What has been recorded so far, in the order in which it was opened.
    pub fn recorded(&self) -> Vec<Span> {
        self.recorded.lock().spans.clone()
    }

    fn open(self: Arc<Self>, name: &'static str) -> Option<OpenSpan> {
        let start = self.begun.elapsed();
        let mut recorded = self.recorded.lock();
        let index = recorded.spans.len();
        if index == MOST_SPANS {
            return None;
        }
        let parent = recorded.open.last().copied();
        recorded.spans.push(Span { name, parent, start, duration: None, peer: None });
        recorded.open.push(index);
        drop(recorded);
        Some(OpenSpan { spans: self, index })
    }
}

/// A span that ends when this is dropped.
pub(crate) struct OpenSpan {
    spans: Arc<Spans>,
    index: usize,
}

impl OpenSpan {
    /// Opens one within the span that is open in this task. `None` if its query is not traced.
    pub(crate) fn enter(name: &'static str) -> Option<Self> {
        Spans::current()?.open(name)
    }

    /// Notes whom it is spent on.
    pub(crate) fn set_peer(&self, peer: SocketAddr) {
        if let Some(span) = self.spans.recorded.lock().spans.get_mut(self.index) {
            span.peer = Some(peer);
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let now = self.spans.begun.elapsed();
        let mut recorded = self.spans.recorded.lock();
        recorded.open.retain(|index| *index != self.index);
        if let Some(span) = recorded.spans.get_mut(self.index) {
            span.duration = Some(now.saturating_sub(span.start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spans_lie_within_the_one_that_is_open_and_end_when_they_are_dropped() {
        let spans = Arc::new(Spans::new(7, Instant::now()));
        assert!(OpenSpan::enter("nobody").is_none(), "no query is traced here");
        let work = async {
            let outer = OpenSpan::enter("cache");
            tokio::task::yield_now().await;
            let inner = OpenSpan::enter("forward");
            inner.as_ref().unwrap().set_peer(([192, 0, 2, 1], 53).into());
            drop(inner);
            let second = OpenSpan::enter("connect");
            drop(outer);
            drop(second);
        };
        spans.clone().scope(work).await;
        let recorded = spans.recorded();
        let shape: Vec<_> = recorded.iter().map(|span| (span.name, span.parent, span.peer.is_some())).collect();
        assert_eq!(shape, [("cache", None, false), ("forward", Some(0), true), ("connect", Some(0), false)]);
        assert!(recorded.iter().all(|span| span.duration.is_some()));
    }

    #[tokio::test]
    async fn a_query_has_a_bounded_number_of_spans() {
        let spans = Arc::new(Spans::new(7, Instant::now()));
        let work = async { (0..2 * MOST_SPANS).filter_map(|_| OpenSpan::enter("forward")).count() };
        assert_eq!(spans.clone().scope(work).await, MOST_SPANS);
        assert_eq!(spans.recorded().len(), MOST_SPANS);
    }
}
