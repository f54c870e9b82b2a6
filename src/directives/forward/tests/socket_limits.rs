//! The number of sockets is bounded, whatever is asked.

use super::super::udp_pool::{MAX_OPEN, MIN_SHARED};
use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use futures_util::future::join_all;
use std::collections::HashSet;

/// Silent where the name begins with `s`.
fn silent_or_answer(seen: &ReceivedQuery) -> Reaction {
    if seen.label().starts_with('s') { Reaction::Silent } else { Reaction::Send(seen.answer(1)) }
}

/// A read timeout so long that no answer comes too late, however busy the machine is.
fn long_timeout() -> ForwardOptions {
    ForwardOptions { read_timeout: Duration::from_secs(30), max_fails: 0, ..ForwardOptions::default() }
}

fn requests(prefix: &str, count: usize, transport: Transport) -> Vec<OwnedRequest> {
    (0..count).map(|index| request(&format!("{prefix}{index}.example."), transport)).collect()
}

/// Most sockets that were open until `work` was done, and what came of it.
async fn peak<T>(sockets: &SocketBudget, work: impl Future<Output = T>) -> (usize, T) {
    let mut peak = 0;
    tokio::pin!(work);
    loop {
        let done = tokio::select! {
            biased;
            done = &mut work => Some(done),
            () = tokio::time::sleep(Duration::from_millis(1)) => None,
        };
        peak = peak.max(sockets.open());
        if let Some(done) = done {
            return (peak, done);
        }
    }
}

#[tokio::test]
async fn sockets_to_a_silent_upstream_are_bounded_whatever_the_number_of_queries() {
    let upstream = ScriptedUpstream::start(silent_or_answer).await;
    let running = Running::new(&[upstream.address], short_timeout());
    let requests = requests("s", 3000, Transport::Udp);
    let all = join_all(requests.iter().map(|request| running.ask(request)));
    let (peak, outcomes) = peak(&running.sockets(), all).await;
    assert!(outcomes.iter().all(Result::is_err));
    // Those that have been given up close in their turn, in which others are opened for them; one is the health
    // check's.
    assert!(peak <= MAX_OPEN + 2 * MIN_SHARED + 1, "{peak} sockets");
}

#[tokio::test]
async fn names_are_answered_while_queries_for_silent_names_hold_all_sockets() {
    let upstream = ScriptedUpstream::start(silent_or_answer).await;
    let process = process();
    let _sockets = process.reload_state.adopt_or("forward sockets", || SocketBudget::new(16));
    let forward = build(&[upstream.address], long_timeout(), &process);
    let running = Running { forward, process };
    let silent = requests("s", 1500, Transport::Udp);
    let polite = requests("p", 40, Transport::Udp);
    let flood = async {
        join_all(silent.iter().map(|request| running.ask(request))).await;
        std::future::pending::<()>().await;
    };
    let answers = async {
        // The flood is more than the upstream's receive buffer takes at once, and what it sends again comes at the same
        // time as what is asked now would.
        let mut seen = 0;
        while seen == 0 || seen < upstream.seen().len() {
            seen = upstream.seen().len();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for request in &polite {
            assert_eq!(address_in(&running.answer(request).await), [192, 0, 2, 1]);
        }
    };
    tokio::select! {
        biased;
        () = flood => unreachable!(),
        () = answers => (),
    }
    assert!(running.metric("nodelocaldns_forward_sockets_exhausted_total") > 0.0, "there was room for all");
    let ports: HashSet<_> =
        upstream.seen().iter().filter(|seen| seen.label().starts_with('p')).map(|seen| seen.client).collect();
    assert!(ports.len() >= MIN_SHARED / 2, "they left by {} ports", ports.len());
}

#[tokio::test]
async fn queries_that_are_sent_again_in_one_turn_share_a_new_socket() {
    let upstream =
        ScriptedUpstream::start(
            |seen| if seen.index < 200 { Reaction::Silent } else { Reaction::Send(seen.answer(1)) },
        )
        .await;
    let running = Running::new(
        &[upstream.address],
        ForwardOptions { read_timeout: Duration::from_secs(5), ..ForwardOptions::default() },
    );
    let requests = requests("a", 200, Transport::Udp);
    join_all(requests.iter().map(|request| running.answer(request))).await;
    let opened = running.metric("coredns_proxy_conn_cache_misses_total{proto=\"udp\"");
    assert!(opened <= 40.0, "{opened} sockets were opened");
}

#[tokio::test]
async fn all_upstreams_together_keep_the_socket_limit_and_each_has_one() {
    let act = |seen: &ReceivedQuery| Reaction::Later(Duration::from_millis(30), seen.answer(1));
    let upstreams =
        [ScriptedUpstream::start(act).await, ScriptedUpstream::start(act).await, ScriptedUpstream::start(act).await];
    // By UDP, each worker may be closing some for others.
    for (transport, rounds, queries, beyond) in [(Transport::Udp, 30, 60, 1 + MIN_SHARED), (Transport::Tcp, 3, 600, 1)]
    {
        let process = process();
        let sockets = process.reload_state.adopt_or("forward sockets", || SocketBudget::new(6));
        let options = ForwardOptions { policy: super::super::policy::UpstreamPolicy::RoundRobin, ..long_timeout() };
        let forward = build(&upstreams.each_ref().map(|upstream| upstream.address), options, &process);
        let running = Running { forward, process };
        let mut most = 0;
        for round in 0..rounds {
            let requests = requests(&format!("r{round}n"), queries, transport);
            let all = join_all(requests.iter().map(|request| running.answer(request)));
            most = most.max(peak(&sockets, all).await.0);
        }
        assert!(most <= 6 + beyond * upstreams.len(), "{transport:?}: {most} sockets");
    }
}

#[tokio::test]
async fn a_query_whose_socket_is_evicted_is_sent_again_when_a_lost_one_would_be() {
    let upstream =
        ScriptedUpstream::start(|seen| if seen.index == 0 { Reaction::Silent } else { Reaction::Send(seen.answer(1)) })
            .await;
    let running = Running::new(&[upstream.address], short_timeout());
    let upstreams = running.forward.exchanger.upstreams.usable(Instant::now()).await.unwrap();
    let request = request("a.example.", Transport::Udp);
    let started = Instant::now();
    let give_up = async {
        while upstream.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        upstreams[0].udp_pool().evict_all();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        response = running.answer(&request) => assert_eq!(address_in(&response), [192, 0, 2, 1]),
        () = give_up => unreachable!(),
    }
    assert!(started.elapsed() >= short_timeout().read_timeout / 3, "{:?}", started.elapsed());
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_flood_on_one_socket_does_not_delay_other_tasks() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    running.answer(&request("a.example.", Transport::Udp)).await;
    let (port, forger) = (upstream.seen()[0].client, upstream.udp());
    let sent = (0..200).filter(|_| forger.try_send_to(&[0; 12], port).is_ok()).count() as f64;
    let mut seen = vec![0.0];
    while seen.last() < Some(&sent) {
        tokio::task::yield_now().await;
        seen.push(running.metric("nodelocaldns_forward_mismatched_total"));
    }
    let most = seen.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(most <= 128.0, "{most} of {sent} datagrams were read in one turn");
}
