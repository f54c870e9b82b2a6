//! Questions with a client's subnet (RFC 7871).

use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use crate::chain::KeptSubnet;
use crate::message::PrefixLimits;
use crate::message::Scope;
use futures_util::future::join_all;

/// The option for an IPv4 network.
fn option(bits: u8, scope: u8, octets: &[u8]) -> Vec<u8> {
    [&[0, 8, 0, 4 + octets.len() as u8, 0, 1, bits, scope], octets].concat()
}

/// A query for `a.example. A` with this option, in a block that keeps 24 bits.
fn request_of(octets: &[u8], transport: Transport) -> OwnedRequest {
    let mut wire = request("a.example.", transport).wire.to_vec();
    let option = option(8 * octets.len() as u8, 0, octets);
    wire[11] = 1;
    wire.extend([&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, option.len() as u8][..], &option].concat());
    let mut request = request_from(&wire, transport);
    request.client_subnet = KeptSubnet::of(&request.query, &wire, PrefixLimits::default()).unwrap();
    request
}

/// The options that a query has.
fn options(seen: &ReceivedQuery) -> &[u8] {
    let question_end = 12 + seen.label().len() + 1 + "\x07example\0".len() + 4;
    seen.wire.get(question_end + 11..).unwrap_or_default()
}

/// An answer to it with these options.
fn answer(seen: &ReceivedQuery, last: u8, options: &[u8]) -> Vec<u8> {
    let mut message = seen.answer(last);
    message[11] = 1;
    message.extend([&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, options.len() as u8], options].concat());
    message
}

#[tokio::test]
async fn clients_of_one_subnet_share_a_flight_and_others_do_not() {
    let script = |seen: &ReceivedQuery| {
        let mut options = options(seen).to_vec();
        let last = options.get(10).copied().unwrap_or(200);
        if let Some(scope) = options.get_mut(7) {
            *scope = 16;
        }
        Reaction::Later(Duration::from_millis(60), answer(seen, last, &options))
    };
    let upstream = ScriptedUpstream::start(script).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let requests = [
        (request_of(&[10, 1, 2], Transport::Udp), 2, Some(Scope::Stated(16))),
        (request_of(&[10, 1, 2, 9], Transport::Udp), 2, Some(Scope::Stated(16))),
        (request_of(&[10, 1, 2], Transport::Tcp), 2, Some(Scope::Stated(16))),
        (request_of(&[10, 1, 3], Transport::Udp), 3, Some(Scope::Stated(16))),
        (request("a.example.", Transport::Udp), 200, None),
    ];
    let answers = join_all(requests.iter().map(|(request, ..)| running.answer(request))).await;
    for (response, (_, last, scope)) in answers.iter().zip(&requests) {
        assert_eq!((address_in(response), response.scope()), (vec![192, 0, 2, *last], *scope));
    }
    let mut asked: Vec<_> = upstream.seen().iter().map(|seen| options(seen).to_vec()).collect();
    asked.sort();
    assert_eq!(asked, [Vec::new(), option(24, 0, &[10, 1, 2]), option(24, 0, &[10, 1, 3])]);
}

#[tokio::test]
async fn an_answer_for_another_subnet_is_dropped_and_asked_for_over_tcp() {
    let other = option(24, 24, &[10, 1, 9]);
    let upstream = ScriptedUpstream::start(move |seen| {
        let same = option(24, 24, &[10, 1, 2]);
        Reaction::Send(if seen.transport == Transport::Udp { answer(seen, 6, &other) } else { answer(seen, 1, &same) })
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let response = running.answer(&request_of(&[10, 1, 2], Transport::Udp)).await;
    assert_eq!((address_in(&response), response.scope()), (vec![192, 0, 2, 1], Some(Scope::Stated(24))));

    let always_other =
        ScriptedUpstream::start(|seen| Reaction::Send(answer(seen, 6, &option(24, 24, &[10, 1, 9])))).await;
    let options = ForwardOptions { max_connect_attempts: 1, ..ForwardOptions::default() };
    let running = Running::new(&[always_other.address], options);
    let failure = running.ask(&request_of(&[10, 1, 2], Transport::Udp)).await.map(|_| ()).unwrap_err();
    assert!(failure.cause.contains("Client Subnet"), "{}", failure.cause);
}

#[tokio::test]
async fn an_answer_without_the_option_is_for_every_subnet_only_over_tcp() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(answer(seen, 1, &[]))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    for (transport, scope) in [(Transport::Udp, Scope::Unstated), (Transport::Tcp, Scope::Stated(0))] {
        assert_eq!(running.answer(&request_of(&[10, 1, 2], transport)).await.scope(), Some(scope), "{transport:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_understand_edns_is_asked_without_the_subnet() {
    let upstream =
        ScriptedUpstream::start(|seen| Reaction::Send(if seen.has_edns() { seen.empty(1) } else { seen.answer(1) }))
            .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let response = running.answer(&request_of(&[10, 1, 2], Transport::Udp)).await;
    assert_eq!((address_in(&response), response.scope()), (vec![192, 0, 2, 1], Some(Scope::Unstated)));
    assert_eq!(upstream.seen().iter().map(ReceivedQuery::has_edns).collect::<Vec<_>>(), [true, false]);
}
