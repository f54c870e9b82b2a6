//! TCP connections: few, shared by many queries, answered in any order; a query outlives its connection.

use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn tcp() -> ForwardOptions {
    ForwardOptions { force_tcp: true, ..ForwardOptions::default() }
}

#[tokio::test]
async fn many_queries_share_one_connection() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], tcp());
    let requests: Vec<_> = (0..20).map(|index| request(&format!("n{index}.example."), Transport::Udp)).collect();
    join_all(requests.iter().map(|request| running.answer(request))).await;
    for request in &requests {
        running.answer(request).await;
    }
    assert_eq!(upstream.count(Transport::Tcp), 40);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn another_connection_is_opened_when_the_first_is_busy_but_no_more_than_max_idle_conns() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(20), seen.answer(1))).await;
    let requests: Vec<_> = (0..100).map(|index| request(&format!("n{index}.example."), Transport::Tcp)).collect();
    let running = Running::new(&[upstream.address], tcp());
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.connections(), 4, "32 queries on each");

    let running = Running::new(&[upstream.address], ForwardOptions { max_idle_conns: 4, ..tcp() });
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.connections(), 4 + 2, "half of max_idle_conns for each of two workers");
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let upstream = ScriptedUpstream::start(|seen| match seen.label().as_str() {
        "slow" => Reaction::Later(Duration::from_millis(80), seen.answer(1)),
        _ => Reaction::Send(seen.answer(2)),
    })
    .await;
    let running = Running::new(&[upstream.address], tcp());
    let (slow, fast) = (request("slow.example.", Transport::Udp), request("fast.example.", Transport::Udp));
    let order = parking_lot::Mutex::new(Vec::new());
    let ask = async |request: &OwnedRequest| {
        let last = address_in(&running.answer(request).await)[3];
        order.lock().push(last);
    };
    tokio::join!(ask(&slow), ask(&fast));
    assert_eq!(*order.lock(), [2, 1]);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn queries_on_a_connection_that_is_reset_are_all_answered() {
    // The tenth query resets the first connection, when those before it are unanswered.
    let upstream = ScriptedUpstream::start(|seen| match (seen.connection, seen.index) {
        (0, 9) => Reaction::Reset,
        (0, _) => Reaction::Silent,
        _ => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], tcp());
    let requests: Vec<_> = (0..10).map(|index| request(&format!("n{index}.example."), Transport::Udp)).collect();
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
    assert_eq!(upstream.connections(), 2, "all were asked again on one other connection");
    assert_eq!(running.metric("nodelocaldns_forward_retries_total"), 10.0);
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_answers_all_queries() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::SendAndClose(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], tcp());
    let requests: Vec<_> = (0..12).map(|index| request(&format!("n{index}.example."), Transport::Udp)).collect();
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
}

#[tokio::test]
async fn a_connection_that_hangs_is_left_within_the_read_timeout() {
    let upstream =
        ScriptedUpstream::start(
            |seen| if seen.connection == 0 { Reaction::Silent } else { Reaction::Send(seen.answer(1)) },
        )
        .await;
    let running = Running::new(&[upstream.address], ForwardOptions { force_tcp: true, ..short_timeout() });
    running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 2);
    running.answer(&request("b.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 2, "the one that hung takes no more queries");
}

#[tokio::test]
async fn queries_behind_a_slow_one_do_not_wait_for_it_where_the_server_answers_in_turn() {
    // As CoreDNS does: on one connection, one after another.
    let upstream = ScriptedUpstream::start(|seen| match (seen.label().as_str(), seen.connection) {
        ("slow", _) | (_, 0) => Reaction::Silent,
        _ => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], tcp());
    let (slow, fast) = (request("slow.example.", Transport::Udp), request("fast.example.", Transport::Udp));
    let started = Instant::now();
    tokio::select! {
        biased;
        outcome = running.ask(&slow) => panic!("{outcome:?}"),
        response = running.answer(&fast) => assert_eq!(address_in(&response), [192, 0, 2, 1]),
    }
    // Well before the 2 s of the read timeout.
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_past_max_age_takes_no_new_queries() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running =
        Running::new(&[upstream.address], ForwardOptions { max_age: Some(Duration::from_millis(1)), ..tcp() });
    running.answer(&request("a.example.", Transport::Udp)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    running.answer(&request("b.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_expire() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions { expire: Duration::from_millis(20), ..tcp() });
    running.answer(&request("a.example.", Transport::Udp)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.answer(&request("b.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn a_connection_with_more_messages_than_queries_is_closed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running =
        Running::new(&[listener.local_addr().unwrap()], ForwardOptions { force_tcp: true, ..short_timeout() });
    let connections = std::cell::Cell::new(0_u32);
    let pour = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.set(connections.get() + 1);
            // Until we close it: were it kept, the query would fail by its timeout.
            while tokio::io::AsyncWriteExt::write_all(&mut stream, &[0; 4096]).await.is_ok() {}
        }
    };
    let request = request("a.example.", Transport::Udp);
    let outcome = tokio::select! {
        outcome = running.ask(&request) => outcome,
        () = pour => unreachable!(),
    };
    let failure = format!("{:?}", outcome.unwrap_err());
    assert!(failure.contains("nobody asked for"), "{failure}");
    let mismatched = running.metric("nodelocaldns_forward_mismatched_total");
    assert!(connections.get() > 1 && mismatched >= 2.0, "each is left for another one: {connections:?}, {mismatched}");
    assert!(
        mismatched <= f64::from(4 * connections.get()),
        "{mismatched} messages were counted on {connections:?} connections"
    );
}

#[tokio::test]
async fn octets_that_become_no_message_do_not_keep_an_idle_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let running = Running::new(&[upstream], ForwardOptions { expire: Duration::from_millis(50), ..tcp() });
    let trickle = async {
        let (mut stream, client) = listener.accept().await.unwrap();
        let mut wire = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut wire).await.unwrap();
        let answer = ReceivedQuery { transport: Transport::Tcp, wire, client, index: 0, connection: 0 }.answer(1);
        stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        // Of another message, which does not come to an end.
        stream.write_u16(u16::MAX).await.unwrap();
        while stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let request = request("a.example.", Transport::Udp);
    let both = async { tokio::join!(running.answer(&request), trickle) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("the connection is closed");
}
