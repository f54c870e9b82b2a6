//! What is recorded of each message (`query_stats`).

use super::*;

fn minute(process: &ProcessContext) -> crate::query_stats::WindowReport {
    process.query_stats.report(Instant::now(), Duration::ZERO, true).minute
}

#[tokio::test]
async fn a_message_that_is_no_query_is_recorded_with_its_client_and_why() {
    let process = process();
    let plan = plan(".:53 {\n bind 127.0.0.1\n whoami\n}\n", &process);
    let listener = &plan.listeners[0];
    let changed = |index: usize, value: u8| {
        let mut wire = question_with("a.", &[]);
        wire[index] = value;
        wire
    };
    let version = question_with("a.", &[]).len() - 5;
    let messages = [vec![], changed(2, 0x80), changed(5, 2), changed(2, 4 << 3), changed(version, 1)];
    for message in &messages {
        ask(listener, message).await;
    }
    let report = process.query_stats.report(Instant::now(), Duration::ZERO, true);
    let window = &report.minute;
    assert_eq!((window.queries, window.rejected, window.malformed, window.failures), (5, 5, 5, 5));
    assert!(window.names.is_empty() && window.clients[0].client.as_deref() == Some("10.0.0.1"), "{window:?}");
    let mut said: Vec<_> = report.failures.iter().map(|failed| failed.rcode.clone().unwrap_or_default()).collect();
    said.sort_unstable();
    assert_eq!(said, ["", "", "BADVERS", "FORMERR", "NOTIMP"]);
    let reason = |failed: &crate::query_stats::FailureReport| failed.reason.clone().unwrap_or_default();
    assert!(report.failures.iter().all(|failed| !reason(failed).is_empty() && failed.name.is_none()), "{report:?}");
}

/// Has a stale answer, without a record.
pub(super) struct Stale;

impl Handler for Stale {
    fn keyword(&self) -> &'static str {
        "stale"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, _request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        reply.extend_from_slice(&[0; 12]);
        FastPath::Answered(After::Refresh)
    }
    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let response = Response::empty(request.query, request.wire, Rcode::NOERROR);
        Box::pin(async move { Ok(Answer { response, from: "stale" }) })
    }
}

#[tokio::test]
async fn a_hit_that_has_its_answer_refreshed_is_a_hit_and_the_refresh_is_no_query() {
    let process = process();
    let listener = listener(1, Arc::new(Stale), vec![], &process);
    let replies = dispatched(&listener, &question("a.example."), 40_000).await;
    assert!(replies.iter().all(|(how, _)| *how == "other"));
    let window = minute(&process);
    // One in 256 is recorded, after gaps by chance: the standard error is 1,850, and this is seven of it.
    assert!((27_000..53_000).contains(&window.hits), "{}", window.hits);
    assert_eq!((window.misses, window.rejected, window.failures), (0, 0, 0));
}

#[tokio::test]
async fn each_query_that_fails_is_in_one_count_also_where_it_ends_in_a_panic() {
    for (fault, expected) in
        [(Fault::FastPath, (1, 0)), (Fault::Serve, (0, 1)), (Fault::Future, (0, 1)), (Fault::Observer, (0, 1))]
    {
        let process = process();
        let faulty = Arc::new(Faulty(fault));
        let listener = listener(7, faulty.clone(), vec![faulty], &process);
        ask(&listener, &question("a.example.")).await;
        let window = minute(&process);
        assert_eq!((window.hits, window.misses), expected, "{fault:?}");
        assert_eq!((window.rejected, window.failures, window.rcodes["SERVFAIL"]), (0, 1, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_refused_is_rejected_and_what_is_not_at_hand_a_miss() {
    let process = process();
    let plan = plan("example:53 {\n bind 127.0.0.1\n whoami\n}\n", &process);
    for name in ["a.example.", "b.example.", "elsewhere.test."] {
        ask(&plan.listeners[0], &question(name)).await;
    }
    let window = minute(&process);
    assert_eq!((window.hits, window.misses, window.rejected, window.malformed), (0, 2, 1, 0));
    assert_eq!((window.queries, window.failures, window.not_recorded), (3, 1, 0));
}
