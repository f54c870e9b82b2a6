//! Asks a listener a question from within the process, as a client on this machine, and tells where the time goes.

use super::explain::{Asked, ExplainError, ExplainedQuestion, choose_listener, records};
use super::explain_report::{AskReport, TimedStep};
use super::{Dispatch, Listener, PacketCache, Pending};
use crate::chain::{Answer, BatchClock, Failure, Received, Span, Spans};
use crate::message::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Asks the listener that is meant, of these. The query is counted and logged as any other. If there is no answer
/// within `patience` what is known then is told, and it is asked to its end all the same; `held` is dropped after that.
///
/// # Errors
/// There is no such listener, or no such query.
pub(crate) async fn ask(
    listeners: &[Arc<Listener>],
    asked: &Asked,
    patience: Duration,
    held: impl Send + 'static,
) -> Result<AskReport, ExplainError> {
    let (listener, _) = choose_listener(listeners, asked)?;
    let question = ExplainedQuestion::new(asked, listener)?;
    let (began, mut reply) = (Instant::now(), Vec::new());
    let clock = BatchClock::start(began);
    let received = Received { wire: &question.wire, peer: &question.peer, clock: &clock };
    // A packet cache of its own is empty, so the directives are asked.
    let mut report = AskReport::default();
    match listener.dispatch(received, &mut PacketCache::default(), &mut reply) {
        Dispatch::Pending(pending) => {
            let pending = Arc::new(pending);
            let spans = pending.request.spans.clone().unwrap_or_else(|| Arc::new(Spans::new(1, Instant::now())));
            let (running, running_spans) = (pending.clone(), spans.clone());
            // A task of its own: who is not waited for has its end too, and is counted.
            let run = tokio::spawn(async move {
                let ended = running.run_timed(running_spans).await;
                drop(held);
                ended
            });
            match timeout(patience, run).await {
                Ok(Ok(ended)) => (report, reply) = ended,
                Ok(Err(error)) => report = pending.timed_report(&spans, failed(format!("it has not ended: {error}"))),
                Err(_late) => {
                    let why = format!("no answer within {} s, it is still asked", patience.as_secs());
                    report = pending.timed_report(&spans, failed(why));
                }
            }
        }
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
    /// [`Pending::run`], and what it waited for, with the reply.
    async fn run_timed(&self, spans: Arc<Spans>) -> (AskReport, Vec<u8>) {
        let request = self.request.borrow();
        let (mut report, mut reply) = (AskReport::default(), Vec::new());
        let run = async {
            let outcome = self.outcome(request).await;
            match &outcome {
                Ok(Answer { from, .. }) => report.answered_by = (*from).to_owned(),
                Err(Failure { cause, .. }) => report.failure = Some(cause.clone()),
            }
            self.finish_guarded(request, outcome, &mut reply);
        };
        spans.clone().scope(run).await;
        (self.timed_report(&spans, report), reply)
    }

    /// `report`, and what it has waited for so far.
    fn timed_report(&self, spans: &Spans, report: AskReport) -> AskReport {
        let route = self.request.borrow().trail.map(|trail| trail.route()).unwrap_or_default();
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

fn failed(why: String) -> AskReport {
    AskReport { failure: Some(why), ..AskReport::default() }
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
