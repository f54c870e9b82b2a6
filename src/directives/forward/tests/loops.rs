//! Upstreams that `loop` has marked, and its probes.

use super::scripted::{Reaction, ScriptedUpstream};
use super::*;
use crate::chain::ChainUpstreams;
use crate::message::Rcode;

/// Marks the upstream at `address`, as `loop` does.
fn mark(running: &Running, address: SocketAddr, is_looping: bool) {
    let upstreams = in_context(&running.process, ChainUpstreams::of);
    let listed = upstreams.current().into_iter().find(|upstream| upstream.address() == address).expect("it is listed");
    listed.set_looping(is_looping);
}

#[tokio::test]
async fn a_looping_upstream_is_not_asked_even_when_the_others_fail() {
    let back = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(9))).await;
    let failing = ScriptedUpstream::start(|_| Reaction::Silent).await;
    let options =
        ForwardOptions { max_connect_attempts: 2, failover: vec![Rcode::SERVFAIL], max_fails: 1, ..short_timeout() };
    let running = Running::new(&[back.address, failing.address], options);
    mark(&running, back.address, true);
    assert!(running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err().cause.contains("i/o timeout"));
    assert_eq!((back.seen().len(), failing.seen().is_empty()), (0, false));

    mark(&running, back.address, false);
    assert_eq!(address_in(&running.answer(&request("a.example.", Transport::Udp)).await), [192, 0, 2, 9]);
}

#[tokio::test]
async fn with_looping_upstreams_only_the_answer_is_servfail_at_once() {
    let back = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(9))).await;
    let running = Running::new(&[back.address], ForwardOptions::default());
    mark(&running, back.address, true);
    let failure = running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err();
    assert_eq!(failure.rcode, Rcode::SERVFAIL);
    assert!(failure.cause.contains("every upstream leads back to us"), "{}", failure.cause);
    assert_eq!(back.seen().len(), 0);
}

#[tokio::test]
async fn loop_probes_a_marked_upstream_over_the_transport_of_its_queries() {
    let upstream = ScriptedUpstream::start(|seen| match seen.label().as_str() {
        "silent" => Reaction::Silent,
        // FORMERR without the question is an answer, too.
        "headless" => Reaction::Send(vec![seen.wire[0], seen.wire[1], 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        _ => Reaction::Send(seen.empty(3)),
    })
    .await;
    for (force_tcp, transport) in [(false, Transport::Udp), (true, Transport::Tcp)] {
        let running = Running::new(&[upstream.address], ForwardOptions { force_tcp, ..short_timeout() });
        mark(&running, upstream.address, true);
        let listed = in_context(&running.process, ChainUpstreams::of).current();
        let probe = |name| Query::compose(1, Name::parse(name).unwrap().as_wire(), RecordType::HINFO, true);
        assert!(listed[0].ask(probe("1.2.")).await);
        assert_eq!(upstream.seen().last().unwrap().transport, transport);
        assert!(listed[0].ask(probe("headless.")).await);
        assert!(!listed[0].ask(probe("silent.")).await);
        assert!(!listed[0].ask(b"no query".to_vec()).await);
    }
}
