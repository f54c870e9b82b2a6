//! UDP: ports and IDs, what is accepted, what is sent again.

use super::scripted::{Reaction, ScriptedUpstream};
use super::*;
use std::collections::HashSet;

#[tokio::test]
async fn each_query_has_its_own_id_and_ports_differ() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    for index in 0..60 {
        running.answer(&request(&format!("n{index}.example."), Transport::Udp)).await;
    }
    let seen = upstream.seen();
    let ports: HashSet<_> = seen.iter().map(|seen| seen.client.port()).collect();
    let ids: HashSet<_> = seen.iter().map(|seen| [seen.wire[0], seen.wire[1]]).collect();
    assert_eq!(seen.len(), 60);
    // 60 random choices among 32 sockets use some 27 of them; 60 random IDs of 65,536 hardly ever collide.
    assert!(ports.len() >= 15, "{} ports", ports.len());
    assert!(ids.len() >= 57, "{} IDs", ids.len());
}

#[tokio::test]
async fn wrong_ids_and_wrong_questions_are_ignored_and_counted() {
    let wrong = [
        |answer: &mut Vec<u8>| answer[1] ^= 1,
        |answer: &mut Vec<u8>| answer[13] ^= 1,
        |answer: &mut Vec<u8>| {
            let type_at = answer.len() - 16 - 3;
            answer[type_at] = 28;
        },
        |answer: &mut Vec<u8>| answer[2] &= 0x7f,
        |answer: &mut Vec<u8>| answer.truncate(5),
    ];
    for pair in wrong.windows(2) {
        let [one, other] = [0, 1].map(|index| pair[index]);
        let upstream = ScriptedUpstream::start(move |seen| {
            let forged = [one, other].map(|change| {
                let mut answer = seen.answer(66);
                change(&mut answer);
                answer
            });
            Reaction::SendAll([&forged[..], &[seen.answer(1)]].concat())
        })
        .await;
        let running = Running::new(&[upstream.address], ForwardOptions::default());
        let response = running.answer(&request("a.example.", Transport::Udp)).await;
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
        assert_eq!(running.metric("nodelocaldns_forward_mismatched_total"), 2.0);
        assert_eq!(upstream.seen().len(), 1, "the query goes on waiting, it is not asked again");
    }
}

#[tokio::test]
async fn an_answer_from_another_address_is_ignored() {
    let upstream = ScriptedUpstream::start(|seen| {
        let forger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        forger.send_to(&seen.answer(66), seen.client).unwrap();
        Reaction::Later(Duration::from_millis(30), seen.answer(1))
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
}

#[tokio::test]
async fn the_case_of_the_question_may_change_on_the_way() {
    let upstream = ScriptedUpstream::start(|seen| {
        let mut answer = seen.answer(1);
        answer[13..].iter_mut().take(1).for_each(|octet| *octet = octet.to_ascii_uppercase());
        Reaction::Send(answer)
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    running.answer(&request("abc.example.", Transport::Udp)).await;
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again_from_another_port_with_another_id() {
    let upstream =
        ScriptedUpstream::start(|seen| if seen.index == 0 { Reaction::Silent } else { Reaction::Send(seen.answer(1)) })
            .await;
    let running = Running::new(&[upstream.address], short_timeout());
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].client.port(), seen[1].client.port());
    assert_ne!(seen[0].wire[..2], seen[1].wire[..2]);
    assert_eq!(seen[0].wire[2..], seen[1].wire[2..]);
    assert_eq!(running.metric("nodelocaldns_forward_retries_total"), 1.0);
}

#[tokio::test]
async fn a_query_whose_socket_refuses_to_send_is_sent_by_a_new_one() {
    let answering = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running =
        Running::new(&[answering.address], ForwardOptions { max_connect_attempts: 1, ..ForwardOptions::default() });
    let upstreams = running.forward.exchanger.upstreams.usable(Instant::now()).await.unwrap();
    for index in 0..100 {
        upstreams[0].udp_pool().shut_down();
        running.answer(&request(&format!("n{index}.example."), Transport::Udp)).await;
    }
    assert!(running.metric("nodelocaldns_forward_retries_total") > 0.0, "no socket was met that could not send");
}

#[tokio::test]
async fn an_answer_to_the_first_datagram_counts_although_it_was_sent_again() {
    let upstream = ScriptedUpstream::start(|seen| {
        if seen.index == 0 { Reaction::Later(Duration::from_millis(1500), seen.answer(1)) } else { Reaction::Silent }
    })
    .await;
    let running = Running::new(
        &[upstream.address],
        ForwardOptions { read_timeout: Duration::from_secs(3), ..ForwardOptions::default() },
    );
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn after_a_malformed_answer_the_next_upstream_is_asked() {
    let broken = ScriptedUpstream::start(|seen| {
        let mut cut = seen.answer(66);
        cut.truncate(cut.len() - 2);
        Reaction::Send(cut)
    })
    .await;
    let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(
        &[broken.address, sound.address],
        ForwardOptions { policy: super::super::policy::UpstreamPolicy::Sequential, ..ForwardOptions::default() },
    );
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
}

#[tokio::test]
async fn truncation_is_passed_on_to_a_udp_client() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.truncated())).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert!(response.is_truncated());
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (1, 0));
}

#[tokio::test]
async fn a_query_has_edns_only_if_the_client_sent_it() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    running.answer(&request("a.example.", Transport::Udp)).await;
    let mut wire = request("a.example.", Transport::Udp).wire.to_vec();
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 0]);
    running.answer(&request_from(&wire, Transport::Udp)).await;
    let seen = upstream.seen();
    assert_eq!([seen[0].has_edns(), seen[1].has_edns()], [false, true]);
    // Our payload size, not the client's 4096; its DO.
    let opt = &seen[1].wire[seen[1].wire.len() - 11..];
    assert_eq!(u16::from_be_bytes([opt[3], opt[4]]), 1232);
    assert_eq!(opt[7], 0x80);
}
