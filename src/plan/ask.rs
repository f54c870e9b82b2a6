//! Asks a listener a question from within the process, as a client on this machine, and tells where the time goes.

use super::explain::{Asked, ExplainError, ExplainedQuestion, choose_listener, records};
use super::explain_report::{AskReport, TimedStep};
use super::{Dispatch, Listener, PacketCache, Pending};
use crate::chain::{Answer, BatchClock, Failure, Received, Span, Spans};
use crate::message::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Asks the listener that is meant, of these. The query is counted and logged as any other.
///
/// # Errors
/// There is no such listener, or no such query.
pub(crate) async fn ask(listeners: &[Arc<Listener>], asked: &Asked) -> Result<AskReport, ExplainError> {
    let (listener, _) = choose_listener(listeners, asked)?;
    let question = ExplainedQuestion::new(asked, listener)?;
    let (began, mut reply) = (Instant::now(), Vec::new());
    let clock = BatchClock::start(began);
    let received = Received { wire: &question.wire, peer: &question.peer, clock: &clock };
    // A packet cache of its own is empty, so the directives are asked.
    let mut report = AskReport::default();
    match listener.dispatch(received, &mut PacketCache::default(), &mut reply) {
        Dispatch::Pending(pending) => report = pending.run_timed(&mut reply).await,
        Dispatch::ReplyAndRefresh(refresh) => {
            report.is_at_hand = true;
            tokio::spawn(async move { refresh.run(&mut Vec::new()).await });
        }
        Dispatch::Reply | Dispatch::PacketHit(_) | Dispatch::Silence => report.is_at_hand = true,
    }
    report.ms = milliseconds(began.elapsed());
    if let Ok(response) = Response::read(&reply) {
        report.rcode = Some(response.rcode().to_string());
        report.records = records(&response);
    }
    Ok(report)
}

impl Pending {
    /// [`Pending::run`], and what it waited for.
    async fn run_timed(&self, reply: &mut Vec<u8>) -> AskReport {
        let request = self.request.borrow();
        let spans = self.request.spans.clone().unwrap_or_else(|| Arc::new(Spans::new(1, Instant::now())));
        let mut report = AskReport::default();
        let run = async {
            let outcome = self.outcome(request).await;
            match &outcome {
                Ok(Answer { from, .. }) => report.answered_by = (*from).to_owned(),
                Err(Failure { cause, .. }) => report.failure = Some(cause.clone()),
            }
            self.finish_guarded(request, outcome, reply);
        };
        spans.clone().scope(run).await;
        let route = request.trail.map(|trail| trail.route()).unwrap_or_default();
        let recorded = spans.recorded();
        AskReport {
            upstream: route.upstream.map(|upstream| upstream.to_string()),
            transport: route.transport.to_owned(),
            tries: route.tries,
            is_stale: route.is_stale,
            steps: (0..recorded.len()).filter_map(|index| timed(&recorded, index)).collect(),
            ..report
        }
    }
}

fn timed(spans: &[Span], index: usize) -> Option<TimedStep> {
    let span = spans.get(index)?;
    let parents = std::iter::successors(span.parent, |parent| spans.get(*parent)?.parent);
    Some(TimedStep {
        what: span.name.to_owned(),
        // A span's parent is before it, so this ends.
        depth: parents.count(),
        start_ms: milliseconds(span.start),
        ms: span.duration.map(milliseconds),
        peer: span.peer.map(|peer| peer.to_string()),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
