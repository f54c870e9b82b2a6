//! Identical queries in flight share one exchange.

use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use crate::message::Rcode;
use futures_util::future::join_all;

async fn slow_upstream() -> ScriptedUpstream {
    ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(60), seen.answer(1))).await
}

#[tokio::test]
async fn identical_queries_in_flight_are_asked_once_for_udp_and_tcp_clients() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let requests: Vec<_> = (0..20)
        .map(|index| {
            request(
                if index % 2 == 0 { "A.example." } else { "a.EXAMPLE." },
                if index % 3 == 0 { Transport::Tcp } else { Transport::Udp },
            )
        })
        .collect();
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(running.metric("nodelocaldns_forward_shared_total"), 19.0);
    assert_eq!(running.metric("nodelocaldns_forward_sharing"), 0.0);
}

#[tokio::test]
async fn who_waits_for_anothers_exchange_counts_until_it_is_answered_or_given_up() {
    let upstream = ScriptedUpstream::start(|_| Reaction::Silent).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let requests: Vec<_> = (0..3).map(|_| request("a.example.", Transport::Udp)).collect();
    let mut waiting: Vec<_> = requests.iter().map(|request| Box::pin(running.answer(request))).collect();
    for future in &mut waiting {
        assert!(futures_util::poll!(future).is_pending());
    }
    assert_eq!(running.metric("nodelocaldns_forward_sharing"), 2.0);
    drop(waiting.pop());
    assert_eq!(running.metric("nodelocaldns_forward_sharing"), 1.0);
    drop(waiting);
    assert_eq!(running.metric("nodelocaldns_forward_sharing"), 0.0);
}

#[tokio::test]
async fn when_an_upstream_last_answered_is_told_once_it_has() {
    const SERIES: &str = "nodelocaldns_forward_last_answer_timestamp_seconds{";
    let upstream = ScriptedUpstream::start(|seen| match seen.label().as_str() {
        "bad" => Reaction::Send(seen.empty(2)),
        _ => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    running.ask(&request("bad.example.", Transport::Udp)).await.ok();
    assert_eq!(running.metric(SERIES), 0.0, "SERVFAIL says nothing of a name");
    let before = f64::from(crate::chain::unix_seconds());
    running.answer(&request("good.example.", Transport::Udp)).await;
    let told = running.metric(SERIES);
    assert!((before..=f64::from(crate::chain::unix_seconds())).contains(&told), "{told}, before {before}");
    let Running { forward, process } = running;
    let another = build(&[upstream.address], ForwardOptions::default(), &process);
    drop(forward);
    assert!(process.registry.encode().contains(SERIES), "the next plan has the same upstream");
    drop(another);
    // Tasks of its sockets hold it for a moment.
    while process.registry.encode().contains(SERIES) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn identical_queries_one_after_another_are_each_asked() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    for _ in 0..3 {
        running.answer(&request("a.example.", Transport::Udp)).await;
    }
    assert_eq!(upstream.seen().len(), 3);
}

/// The query for `a.example. A` with RD, changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> OwnedRequest {
    let mut wire = request("a.example.", Transport::Udp).wire.to_vec();
    change(&mut wire);
    request_from(&wire, Transport::Udp)
}

/// … with an OPT record.
fn with_opt(size: u16, flags: u8, options: &[u8]) -> OwnedRequest {
    changed(|wire| {
        wire[11] = 1;
        let [high, low] = size.to_be_bytes();
        wire.extend_from_slice(&[0, 0, 41, high, low, 0, 0, flags, 0, 0, u8::try_from(options.len()).unwrap()]);
        wire.extend_from_slice(options);
    })
}

#[tokio::test]
async fn queries_whose_answers_may_differ_do_not_share_a_flight() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let type_at = request("a.example.", Transport::Udp).wire.len() - 3;
    let requests = [
        changed(|_| {}),
        changed(|wire| wire[2] &= !0x01),
        changed(|wire| wire[3] |= 0x10),
        changed(|wire| wire[type_at] = 28),
        changed(|wire| wire[type_at + 2] = 3),
        with_opt(1232, 0x80, &[]),
    ];
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.seen().len(), requests.len());
}

#[tokio::test]
async fn nothing_else_of_a_query_is_sent_upstream_or_keeps_it_from_sharing() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let mut requests = vec![
        changed(|_| {}),
        changed(|wire| wire[13] = b'A'),
        // AA, TC, RA, Z, AD.
        changed(|wire| wire[2] |= 0x06),
        changed(|wire| wire[3] |= 0xe0),
        with_opt(1232, 0, &[]),
        with_opt(65_535, 0x7f, &[]),
    ];
    // NSID, Client Subnet, COOKIE, keepalive, Padding, EDE, and an unassigned option.
    for code in [3, 8, 10, 11, 12, 15, 65_001_u16] {
        let [high, low] = code.to_be_bytes();
        requests.extend([1, 2].map(|value| with_opt(1232, 0, &[high, low, 0, 4, 0, value, 0, 0])));
    }
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.seen().len(), 1);
    // Each alone: with the same size limit the upstream gets the same octets.
    for request in &requests {
        running.answer(request).await;
    }
    let mut seen: Vec<_> = upstream.seen().into_iter().map(|seen| seen.wire[2..].to_vec()).collect();
    assert_eq!(seen.len(), 1 + requests.len());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2, "one with EDNS and one without: {seen:?}");
}

#[tokio::test]
async fn a_follower_with_edns_asks_again_when_the_leader_without_got_a_truncated_answer() {
    let upstream = ScriptedUpstream::start(|seen| match seen.has_edns() {
        false => Reaction::Later(Duration::from_millis(60), seen.truncated()),
        true => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let (plain, with_edns) = (changed(|_| {}), with_opt(1232, 0, &[]));
    let (cut, whole, also) = tokio::join!(running.answer(&plain), running.answer(&with_edns), running.answer(&plain));
    assert!(cut.is_truncated() && !whole.is_truncated() && also.is_truncated());
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_truncated_answer_is_not_asked_for_again_by_followers_with_the_same_limit() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(60), seen.truncated())).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let requests = [with_opt(1232, 0, &[]), with_opt(4096, 0, &[]), changed(|_| {})];
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn an_upstream_that_does_not_understand_edns_is_asked_without() {
    let refusals: [fn(&ReceivedQuery) -> Vec<u8>; 3] = [
        |seen| seen.empty(1),
        |seen| seen.empty(4),
        // FORMERR by one that did not come to the question.
        |seen| [&seen.wire[..2], &[0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
    ];
    for refusal in refusals {
        let upstream = ScriptedUpstream::start(move |seen| {
            Reaction::Send(if seen.has_edns() { refusal(seen) } else { seen.answer(1) })
        })
        .await;
        let running = Running::new(&[upstream.address], ForwardOptions::default());
        let response = running.answer(&with_opt(1232, 0x80, &[])).await;
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
        assert_eq!(upstream.seen().iter().map(ReceivedQuery::has_edns).collect::<Vec<_>>(), [true, false]);
    }
}

#[tokio::test]
async fn a_refusal_by_an_upstream_that_understands_edns_stands() {
    let upstream = ScriptedUpstream::start(|seen| {
        let mut refusal = seen.empty(1);
        refusal[11] = 1;
        refusal.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
        Reaction::Send(refusal)
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    assert_eq!(running.answer(&with_opt(1232, 0x80, &[])).await.rcode(), Rcode::FORMERR);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_with_and_without_edns_stands() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.empty(4))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    for (request, asked) in [(changed(|_| {}), 1), (with_opt(1232, 0, &[]), 3)] {
        assert_eq!(running.answer(&request).await.rcode(), Rcode::NOTIMP);
        assert_eq!(upstream.seen().len(), asked);
    }
}

#[tokio::test]
async fn a_follower_over_tcp_asks_again_when_the_shared_answer_is_truncated() {
    let upstream = ScriptedUpstream::start(|seen| match seen.transport {
        Transport::Udp => Reaction::Later(Duration::from_millis(60), seen.truncated()),
        Transport::Tcp => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let (by_udp, by_tcp) = (request("a.example.", Transport::Udp), request("a.example.", Transport::Tcp));
    let (cut, whole) = tokio::join!(running.answer(&by_udp), running.answer(&by_tcp));
    assert!(cut.is_truncated() && !whole.is_truncated());
    assert_eq!(address_in(&whole), [192, 0, 2, 1]);
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (1, 1));
}

#[tokio::test]
async fn a_follower_asks_when_the_leader_is_dropped() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let (first, second) = (request("a.example.", Transport::Udp), request("a.example.", Transport::Udp));
    let waiting = async {
        // After the leader below, which is polled first.
        running.answer(&second).await
    };
    let leading = tokio::time::timeout(Duration::from_millis(20), running.answer(&first));
    let (dropped, answered) = tokio::join!(leading, waiting);
    assert!(dropped.is_err());
    assert_eq!(address_in(&answered), [192, 0, 2, 1]);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_failure_is_shared_too() {
    let upstream = ScriptedUpstream::start(|_| Reaction::Silent).await;
    let running = Running::new(&[upstream.address], ForwardOptions { max_connect_attempts: 1, ..short_timeout() });
    let (first, second) = (request("a.example.", Transport::Udp), request("a.example.", Transport::Udp));
    let (one, other) = tokio::join!(running.ask(&first), running.ask(&second));
    let (one, other): (Failure, Failure) = (one.unwrap_err(), other.unwrap_err());
    assert_eq!(one.cause, other.cause);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.wire[12] != 0).count(), 3, "one exchange of three datagrams");
}

#[test]
fn workers_share_a_flight() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let control = runtime();
    let upstream = control.block_on(slow_upstream());
    let running = Arc::new(Running::new(&[upstream.address], ForwardOptions::default()));
    let workers: Vec<_> = (1..=2)
        .map(|slot| {
            let running = running.clone();
            std::thread::spawn(move || {
                crate::metrics::enter_worker_slot(slot);
                runtime().block_on(async { address_in(&running.answer(&request("a.example.", Transport::Udp)).await) })
            })
        })
        .collect();
    control.block_on(async {
        while workers.iter().any(|worker| !worker.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for worker in workers {
        assert_eq!(worker.join().unwrap(), [192, 0, 2, 1]);
    }
    assert_eq!(upstream.seen().len(), 1);
}
