//! Guessed answers, and malformed ones with a right ID, are not accepted (RFC 5452).

use super::super::policy::UpstreamPolicy;
use super::super::spoof_guard::NEAR_MISS_LIMIT;
use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use futures_util::future::join_all;

const SUSPECTED: &str = "nodelocaldns_forward_spoof_suspected_total";
const FORGED: u8 = 66;

/// Sends so many wrong IDs that it is noticed, then the right one.
fn guesses(seen: &ReceivedQuery) -> Reaction {
    let mut messages = vec![seen.answer(FORGED); NEAR_MISS_LIMIT as usize];
    messages.iter_mut().for_each(|message| message[0] ^= 0x80);
    messages.push(seen.answer(FORGED));
    Reaction::SendAll(messages)
}

/// Over UDP as the test says, over TCP the true answer.
async fn upstream(over_udp: impl Fn(&ReceivedQuery) -> Reaction + Send + Sync + 'static) -> ScriptedUpstream {
    ScriptedUpstream::start(move |seen| match seen.transport {
        Transport::Udp => over_udp(seen),
        Transport::Tcp => Reaction::Send(seen.answer(1)),
    })
    .await
}

fn with_dnssec_ok(name: &str) -> OwnedRequest {
    let mut wire = request(name, Transport::Udp).wire.to_vec();
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    request_from(&wire, Transport::Udp)
}

#[tokio::test]
async fn after_a_few_guesses_all_queries_of_the_socket_are_sent_over_tcp() {
    let upstream = upstream(|seen| if seen.index == 9 { guesses(seen) } else { Reaction::Silent }).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    // Ten of one turn, on one socket.
    let requests: Vec<_> = (0..10).map(|index| request(&format!("n{index}.example."), Transport::Udp)).collect();
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (10, 10));
    assert_eq!(running.metric(SUSPECTED), 1.0);
    // Nor is it asked over UDP now; other names are.
    running.answer(&requests[0]).await;
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (10, 11));
    let other = request("other.example.", Transport::Udp);
    tokio::select! {
        biased;
        _ = running.ask(&other) => panic!("nobody answers it"),
        () = async { while upstream.count(Transport::Udp) == 10 { tokio::task::yield_now().await } } => (),
    }
}

#[tokio::test]
async fn a_question_that_is_guessed_at_on_one_socket_is_not_answered_on_another() {
    let upstream = upstream(|seen| {
        if seen.has_edns() { Reaction::Later(Duration::from_millis(50), seen.answer(FORGED)) } else { guesses(seen) }
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let with_edns = with_dnssec_ok("a.example.");
    let plain = request("a.example.", Transport::Udp);
    let later = async {
        while upstream.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        running.answer(&plain).await
    };
    let (one, other) = tokio::join!(running.answer(&with_edns), later);
    assert_eq!([address_in(&one), address_in(&other)], [[192, 0, 2, 1]; 2]);
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (2, 2));
}

#[tokio::test]
async fn where_tcp_fails_the_next_upstream_is_asked_and_this_one_not_over_udp() {
    let guessed_at =
        ScriptedUpstream::start(|seen| if seen.transport == Transport::Udp { guesses(seen) } else { Reaction::Reset })
            .await;
    let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(2))).await;
    let options = ForwardOptions { policy: UpstreamPolicy::Sequential, max_fails: 0, ..ForwardOptions::default() };
    let running = Running::new(&[guessed_at.address, sound.address], options.clone());
    let request = request("a.example.", Transport::Udp);
    assert_eq!(address_in(&running.answer(&request).await), [192, 0, 2, 2]);
    assert_eq!(guessed_at.count(Transport::Udp), 1);
    let alone = Running::new(&[guessed_at.address], options);
    assert_eq!(alone.ask(&request).await.unwrap_err().rcode, crate::message::Rcode::SERVFAIL);
    assert_eq!(guessed_at.count(Transport::Udp), 2, "once for each of the two");
}

#[tokio::test]
async fn late_answers_are_not_counted_as_guesses() {
    let options = short_timeout();
    // Later than the attempts wait.
    let late = options.read_timeout * 5 / 2 + Duration::from_millis(50);
    let upstream = upstream(move |seen| Reaction::Later(late, seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions { max_fails: 0, ..options });
    // All of one turn are on one socket.
    let requests: Vec<_> = (0..8).map(|index| request(&format!("n{index}.example."), Transport::Udp)).collect();
    for _ in 0..2 {
        let outcomes = join_all(requests.iter().map(|request| running.ask(request))).await;
        assert!(outcomes.iter().all(Result::is_err));
    }
    tokio::time::sleep(late).await;
    assert_eq!(running.metric(SUSPECTED), 0.0);
    assert_eq!(upstream.count(Transport::Tcp), 0);
}

#[tokio::test]
async fn a_malformed_datagram_ends_no_query_and_it_is_asked_over_tcp_at_once() {
    let upstream = upstream(|seen| {
        let mut answer = seen.answer(FORGED);
        match seen.label().as_str() {
            "cut" => answer.truncate(answer.len() - 2),
            "two" => answer[5] = 2,
            "opcode" => answer[2] |= 0x10,
            _ => (answer[5], answer[7]) = (0, 0),
        }
        Reaction::Send(answer)
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    for name in ["cut", "two", "opcode", "questionless"] {
        let response = running.answer(&request(&format!("{name}.example."), Transport::Udp)).await;
        assert_eq!(address_in(&response), [192, 0, 2, 1], "{name}");
    }
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (4, 4));
}

#[tokio::test]
async fn a_datagram_that_is_too_long_or_cut_off_is_asked_for_over_tcp() {
    let upstream = ScriptedUpstream::start(|seen| {
        let mut answer = seen.answer(1);
        answer[11] = 20;
        for _ in 0..20 {
            // A TXT record of 256 octets.
            answer.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 1, 0, 255]);
            answer.extend_from_slice(&[b'x'; 255]);
        }
        if seen.transport == Transport::Udp && seen.label() == "cut" {
            answer.truncate(1232);
        }
        Reaction::Send(answer)
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    for name in ["long.example.", "cut.example."] {
        let response = running.answer(&request(name, Transport::Udp)).await;
        assert_eq!(response.records().count(), 21, "{name}");
    }
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (2, 2));
}

#[tokio::test]
async fn an_error_code_without_a_question_is_accepted_over_tcp_only() {
    let error = |seen: &ReceivedQuery| vec![seen.wire[0], seen.wire[1], 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
    let running_with = async |upstream: &ScriptedUpstream| Running::new(&[upstream.address], ForwardOptions::default());

    let forged = upstream(move |seen| Reaction::Send(error(seen))).await;
    let response = running_with(&forged).await.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    assert_eq!((forged.count(Transport::Udp), forged.count(Transport::Tcp)), (1, 1));

    // A server from before EDNS, which has no TCP either.
    let old = ScriptedUpstream::start(move |seen| match seen.transport {
        Transport::Udp if seen.has_edns() => Reaction::Send(error(seen)),
        Transport::Udp => Reaction::Send(seen.answer(1)),
        Transport::Tcp => Reaction::Reset,
    })
    .await;
    let response = running_with(&old).await.answer(&with_dnssec_ok("a.example.")).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    assert_eq!((old.count(Transport::Udp), old.count(Transport::Tcp)), (2, 0));
}

fn with_caps() -> ForwardOptions {
    ForwardOptions { use_caps_for_id: true, ..ForwardOptions::default() }
}

#[tokio::test]
async fn with_use_caps_for_id_each_query_has_a_random_case_and_its_answer_the_usual_one() {
    let act = |seen: &ReceivedQuery| {
        // Owner names written out, as some servers do.
        let mut answer = seen.answer(1);
        let name_end = answer.len() - 16 - 4;
        let name = answer[12..name_end].to_vec();
        let record = answer.split_off(name_end + 4);
        answer.extend_from_slice(&[&name[..], &record[2..]].concat());
        Reaction::Send(answer)
    };
    let upstream = ScriptedUpstream::start(act).await;
    let name = "some-longer-name-with-many-letters.example.";
    let without =
        Running::new(&[upstream.address], ForwardOptions::default()).answer(&request(name, Transport::Udp)).await;
    let running = Running::new(&[upstream.address], with_caps());
    for _ in 0..2 {
        assert_eq!(running.answer(&request(name, Transport::Udp)).await, without);
    }
    running.answer(&request(name, Transport::Tcp)).await;
    let names: Vec<_> = upstream.seen().iter().map(|seen| seen.wire[12..].to_vec()).collect();
    assert!(names[0] != names[1] && names[1] != names[2], "drawn for each");
    assert_eq!(names[0], names[3], "not over TCP");
    assert!(names.iter().all(|name| name.eq_ignore_ascii_case(&names[0])));
    assert_eq!(running.metric("nodelocaldns_forward_mismatched_total"), 0.0);
}

#[tokio::test]
async fn with_use_caps_for_id_an_answer_in_another_case_is_asked_for_over_tcp() {
    let upstream = upstream(|seen| {
        let mut answer = seen.answer(FORGED);
        answer[12..].iter_mut().take(20).for_each(u8::make_ascii_lowercase);
        Reaction::Send(answer)
    })
    .await;
    let running = Running::new(&[upstream.address], with_caps());
    let response = running.answer(&request("some-longer-name-with-many-letters.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    assert_eq!(running.metric("nodelocaldns_forward_mismatched_total"), 1.0);
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (1, 1));
}
