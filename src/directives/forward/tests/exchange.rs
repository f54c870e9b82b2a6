//! Which transport, which upstream, and when to give up.

use super::super::attempt::{Attempt, AttemptEvent, Attempts};
use super::super::error::{Endpoints, UpstreamError};
use super::super::exchange::Late;
use super::super::in_flight::QueryStatus;
use super::super::policy::UpstreamPolicy;
use super::super::upstream_query::UpstreamQuery;
use super::super::upstream_socket::UpstreamSocket;
use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use crate::message::Rcode;
use std::task::Waker;

fn sequential() -> ForwardOptions {
    ForwardOptions { policy: UpstreamPolicy::Sequential, ..ForwardOptions::default() }
}

#[tokio::test]
async fn transport_is_the_clients_unless_an_option_says_otherwise() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let cases = [
        (ForwardOptions::default(), Transport::Udp, Transport::Udp),
        (ForwardOptions::default(), Transport::Tcp, Transport::Tcp),
        (ForwardOptions { force_tcp: true, ..ForwardOptions::default() }, Transport::Udp, Transport::Tcp),
        (ForwardOptions { prefer_udp: true, ..ForwardOptions::default() }, Transport::Tcp, Transport::Udp),
        (
            ForwardOptions { prefer_udp: true, force_tcp: true, ..ForwardOptions::default() },
            Transport::Udp,
            Transport::Tcp,
        ),
    ];
    for (options, client, expected) in cases {
        let running = Running::new(&[upstream.address], options.clone());
        running.answer(&request("a.example.", client)).await;
        assert_eq!(upstream.seen().last().unwrap().transport, expected, "{options:?} {client:?}");
    }
}

#[tokio::test]
async fn prefer_udp_asks_by_tcp_what_was_truncated() {
    let upstream = ScriptedUpstream::start(|seen| match seen.transport {
        Transport::Udp => Reaction::Send(seen.truncated()),
        Transport::Tcp => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], ForwardOptions { prefer_udp: true, ..ForwardOptions::default() });
    let response = running.answer(&request("a.example.", Transport::Tcp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (1, 1));
}

#[tokio::test]
async fn names_outside_from_and_excepted_names_go_to_the_next_directive() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let process = process();
    let config = ForwardConfig {
        from: Name::parse("example.").unwrap(),
        except: vec![Name::parse("Not.example.").unwrap(), Name::parse("example.").unwrap()],
        targets: vec![plain(upstream.address)],
        tls: None,
        options: ForwardOptions::default(),
    };
    let forward = build_config(&config, &process);
    let names = ["example.", "a.example.", "NOT.example.", "x.not.example.", "other."];
    // The second exception covers everything but FROM itself.
    let forwarded: Vec<_> =
        names.iter().filter(|name| forward.is_forwarded(&Name::parse(name).unwrap().to_lower())).copied().collect();
    assert_eq!(forwarded, ["example."]);

    let without = ForwardConfig { except: vec![Name::parse("Not.example.").unwrap()], ..config };
    let forward = build_config(&without, &process);
    let chain = Arc::new(Chain {
        handlers: [forward as Arc<dyn Handler>, Arc::new(Stub { keyword: "stub", rcode: Rcode::NXDOMAIN })].into(),
    });
    let mut from = Vec::new();
    for name in names {
        from.push(chain.start().run(request(name, Transport::Udp).borrow()).await.unwrap().from);
    }
    assert_eq!(from, ["forward", "forward", "stub", "stub", "stub"]);
}

#[tokio::test]
async fn a_refusing_upstream_is_followed_by_the_next_at_once() {
    let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    for transport in [Transport::Udp, Transport::Tcp] {
        let running = Running::new(&[dead_address(), sound.address], sequential());
        let started = Instant::now();
        let response = running.answer(&request("a.example.", transport)).await;
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
        assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_silent_upstream_is_followed_by_the_next() {
    let silent = ScriptedUpstream::start(|_| Reaction::Silent).await;
    let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let running = Running::new(
        &[silent.address, sound.address],
        ForwardOptions { policy: UpstreamPolicy::Sequential, ..short_timeout() },
    );
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    let asked = silent.seen().iter().filter(|seen| seen.wire[12] != 0).count();
    assert_eq!(asked, 3, "sent thrice before the next one is asked");
}

#[tokio::test]
async fn a_request_that_nobody_answers_fails_when_clients_give_up() {
    let silent = ScriptedUpstream::start(|_| Reaction::Silent).await;
    let options = ForwardOptions { max_fails: 0, ..short_timeout() };
    let running = Running::new(&[silent.address], options.clone());
    let started = std::time::Instant::now();
    let failure = running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err();
    assert_eq!(failure.rcode, Rcode::SERVFAIL);
    assert!(started.elapsed() >= options.read_timeout * 5 / 2);
}

#[tokio::test]
async fn a_request_fails_as_soon_as_its_silent_upstream_is_known_to_be_down() {
    // Nobody answers, and the health checks are refused.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let options = ForwardOptions {
        read_timeout: Duration::from_secs(1),
        probe_interval: Duration::from_millis(10),
        probe_name: Name::root(),
        max_fails: 1,
        ..ForwardOptions::default()
    };
    let running = Running::new(&[address], options);
    let asked = request("a.example.", Transport::Udp);
    let asking = running.ask(&asked);
    tokio::pin!(asking);
    tokio::select! {
        _ = &mut asking => panic!("nobody answers it"),
        () = tokio::time::sleep(Duration::from_millis(900)) => drop(silent),
    }
    let upstreams = running.forward.exchanger.upstreams.usable(Instant::now() + Duration::from_secs(1)).await.unwrap();
    asking.await.unwrap_err();
    assert!(upstreams[0].health.is_down(1), "it was waited for until the health checks said so");
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_where_there_is_nobody_else_to_ask() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let slow = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(550), seen.answer(1))).await;
        let options = short_timeout();
        let running = Running::new(&[slow.address], options);
        let response = running.answer(&request("a.example.", transport)).await;
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
        let counted = format!("coredns_forward_responses_total{{rcode=\"NOERROR\",to=\"{}\"}} 1", slow.address);
        assert!(running.process.registry.encode().contains(&counted));
    }
}

#[tokio::test]
async fn the_first_of_several_slow_upstreams_answers_while_the_next_is_asked() {
    let slow = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(500), seen.answer(1))).await;
    let slower = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_secs(5), seen.answer(2))).await;
    let options = ForwardOptions { policy: UpstreamPolicy::Sequential, ..short_timeout() };
    let running = Running::new(&[slow.address, slower.address], options);
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    assert!(slower.count(Transport::Udp) > 0, "the next one was asked meanwhile");
    let metric =
        |to: &ScriptedUpstream| format!("coredns_forward_responses_total{{rcode=\"NOERROR\",to=\"{}\"}} 1", to.address);
    let text = running.process.registry.encode();
    assert!(text.contains(&metric(&slow)) && !text.contains(&metric(&slower)), "it is counted for who gave it");
}

/// Only the error code of an answer.
fn code_alone(code: u8, seen: &ReceivedQuery) -> Vec<u8> {
    let mut header = seen.empty(code)[..12].to_vec();
    header[5] = 0;
    header
}

/// A query with an OPT record.
fn with_edns(name: &str, transport: Transport) -> OwnedRequest {
    let mut wire = request(name, transport).wire.to_vec();
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    request_from(&wire, transport)
}

#[tokio::test]
async fn a_late_upstream_that_does_not_understand_edns_is_asked_without_it() {
    type Refusal = fn(&ReceivedQuery) -> Vec<u8>;
    let refusals: [Refusal; 2] = [|seen| seen.empty(1), |seen| code_alone(1, seen)];
    for (refusal, transport) in
        refusals.into_iter().flat_map(|refusal| [(refusal, Transport::Udp), (refusal, Transport::Tcp)])
    {
        let slow = Duration::from_millis(330);
        let old = ScriptedUpstream::start(move |seen| match seen.has_edns() {
            true => Reaction::Later(slow, refusal(seen)),
            false => Reaction::Send(seen.answer(1)),
        })
        .await;
        let options = ForwardOptions { max_fails: 0, ..short_timeout() };
        let alone = Running::new(&[old.address], options.clone());
        assert_eq!(address_in(&alone.answer(&with_edns("a.example.", transport)).await), [192, 0, 2, 1]);
        // The same while the next one is asked.
        let silent = ScriptedUpstream::start(|_| Reaction::Silent).await;
        let options = ForwardOptions { policy: UpstreamPolicy::Sequential, ..options };
        let both = Running::new(&[old.address, silent.address], options);
        assert_eq!(address_in(&both.answer(&with_edns("b.example.", transport)).await), [192, 0, 2, 1]);
    }
}

#[tokio::test]
async fn a_late_error_code_alone_is_the_upstreams_answer() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let slow = Duration::from_millis(330);
        let terse = ScriptedUpstream::start(move |seen| match seen.transport {
            Transport::Udp => Reaction::Later(slow, code_alone(5, seen)),
            // By UDP anybody may have said so, and it is asked whether that is true.
            Transport::Tcp if transport == Transport::Udp => Reaction::Send(code_alone(5, seen)),
            Transport::Tcp => Reaction::Later(slow, code_alone(5, seen)),
        })
        .await;
        let running = Running::new(&[terse.address], ForwardOptions { max_fails: 0, ..short_timeout() });
        let response = running.answer(&request("a.example.", transport)).await;
        assert_eq!(response.rcode(), Rcode::REFUSED, "{transport:?}");
    }
}

#[tokio::test]
async fn metadata_names_the_upstream_that_answered_or_was_asked_last() {
    let upstream_of = async |running: &Running, name: &str| {
        let metadata = Arc::<crate::chain::Metadata>::default();
        let one = OwnedRequest { metadata: Some(metadata.clone()), ..request(name, Transport::Udp) };
        // Who joins the exchange of another has its upstream.
        let other = OwnedRequest { metadata: Some(Arc::default()), ..request(name, Transport::Udp) };
        let _ = tokio::join!(running.ask(&one), running.ask(&other));
        let label = |metadata: &crate::chain::Metadata| metadata.get("forward/upstream");
        assert_eq!(label(&metadata), other.metadata.as_deref().and_then(label));
        label(&metadata)
    };
    let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let dead = dead_address();
    let running = Running::new(&[dead, sound.address], sequential());
    assert_eq!(upstream_of(&running, "a.example.").await, Some(sound.address.to_string()));
    let running = Running::new(&[dead], ForwardOptions { max_connect_attempts: 1, ..sequential() });
    assert_eq!(upstream_of(&running, "a.example.").await, Some(dead.to_string()));
    // One that answers late, while the next one is asked, is the one that answered.
    let slow = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(500), seen.answer(1))).await;
    let silent = ScriptedUpstream::start(|_| Reaction::Silent).await;
    let options = ForwardOptions { policy: UpstreamPolicy::Sequential, ..short_timeout() };
    let running = Running::new(&[slow.address, silent.address], options);
    assert_eq!(upstream_of(&running, "a.example.").await, Some(slow.address.to_string()));
}

/// What becomes of every query on it is known.
struct Known {
    remote: Arc<Remote>,
    transport: Transport,
    /// `None`: it has failed.
    answer: Option<Response>,
}

impl Known {
    fn attempt(self, since: Instant) -> Attempt {
        Attempt { socket: Arc::new(self), id: 1, sent: since, since, queued_behind: 0 }
    }
}

impl UpstreamSocket for Known {
    fn poll(&self, _id: u16, _deadline: Instant, _waker: &Waker) -> QueryStatus {
        let endpoints = Endpoints { transport: self.transport, local: None, remote: self.remote.address };
        QueryStatus::Done(self.answer.clone().ok_or(UpstreamError::Closed(endpoints)))
    }
    fn forget(&self, _id: u16) {}
    fn retire(&self) {}
    fn has_progress_since(&self, _sent: Instant) -> bool {
        false
    }
    fn retire_if_silent_since(&self, _sent: Instant) {}
    fn transport(&self) -> Transport {
        self.transport
    }
    fn remote(&self) -> &Remote {
        &self.remote
    }
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}

#[tokio::test]
async fn a_late_answer_has_the_time_and_the_transport_of_its_own_upstream() {
    let (earlier, now) = (Instant::now(), Instant::now() + Duration::from_secs(2));
    let socket = |address: &str, transport, answer| {
        let remote = remote(address.parse().unwrap(), upstream_settings());
        Known { remote, transport, answer }
    };
    let one = request("a.example.", Transport::Udp);
    let answer = Response::empty(one.borrow().query, one.borrow().wire, Rcode::NOERROR);
    let first = socket("127.0.0.1:53", Transport::Tcp, None);
    let second = socket("127.0.0.2:53", Transport::Udp, Some(answer));
    let addresses = [first.remote.address, second.remote.address];
    let mut attempts = Attempts::new(first.attempt(earlier), Transport::Tcp, addresses[0]);
    attempts.join(Attempts::new(second.attempt(now), Transport::Udp, addresses[1]));
    assert!(matches!(attempts.next_event(now).await, AttemptEvent::Answered(..)));
    let answered = attempts.answered().unwrap();
    let Endpoints { transport, remote, .. } = answered.endpoints;
    assert_eq!((answered.since, transport, remote), (now, Transport::Udp, addresses[1]));
}

#[tokio::test]
async fn a_late_truncated_answer_is_asked_for_over_tcp_where_udp_is_preferred() {
    let slow = ScriptedUpstream::start(|seen| match seen.transport {
        Transport::Udp => Reaction::Later(Duration::from_millis(330), seen.truncated()),
        Transport::Tcp => Reaction::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[slow.address], ForwardOptions { prefer_udp: true, max_fails: 0, ..short_timeout() });
    let response = running.answer(&request("a.example.", Transport::Tcp)).await;
    assert!(!response.is_truncated());
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
}

#[tokio::test]
async fn nothing_is_waited_for_once_all_attempts_have_failed() {
    let running = Running::new(&[dead_address()], ForwardOptions { max_fails: 0, ..short_timeout() });
    let remote = remote(dead_address(), upstream_settings());
    let address = remote.address;
    let broken = Known { remote, transport: Transport::Tcp, answer: None };
    let mut attempts = Box::new(Attempts::new(broken.attempt(Instant::now()), Transport::Tcp, address));
    let deadline = Instant::now() + Duration::from_secs(3600);
    // As while the next upstream is asked.
    assert!(matches!(attempts.next_event(deadline).await, AttemptEvent::Failed(_)));
    let exchanger = &running.forward.exchanger;
    let upstreams = exchanger.upstreams.usable(deadline).await.unwrap();
    let request = request("a.example.", Transport::Tcp);
    let (request, query) = (request.borrow(), Arc::new(UpstreamQuery::new(&request.borrow())));
    let late = Late::new(&request, &query, &upstreams, deadline);
    let mut asked = None;
    let answer = exchanger.wait_for_late(attempts, late, &mut asked);
    assert!(futures_util::FutureExt::now_or_never(answer).is_some_and(|response| response.is_none()));
}

#[tokio::test]
async fn an_error_code_alone_is_the_upstreams_answer() {
    for (code, rcode) in [(1, Rcode::FORMERR), (2, Rcode::SERVFAIL), (5, Rcode::REFUSED)] {
        let terse = ScriptedUpstream::start(move |seen| Reaction::Send(code_alone(code, seen))).await;
        let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
        let running = Running::new(&[terse.address], sequential());
        assert_eq!(running.answer(&request("a.example.", Transport::Udp)).await.rcode(), rcode);
        let options = ForwardOptions { failover: vec![rcode], ..sequential() };
        let running = Running::new(&[terse.address, sound.address], options);
        assert_eq!(address_in(&running.answer(&request("a.example.", Transport::Udp)).await), [192, 0, 2, 1]);
    }
}

#[tokio::test]
async fn failover_asks_the_next_upstream_and_the_last_answer_stands() {
    let failing = ScriptedUpstream::start(|seen| Reaction::Send(seen.empty(2))).await;
    let refusing = ScriptedUpstream::start(|seen| Reaction::Send(seen.empty(5))).await;
    let sound = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let options = ForwardOptions { failover: vec![Rcode::SERVFAIL, Rcode::REFUSED], ..sequential() };

    let running = Running::new(&[failing.address, refusing.address, sound.address], options.clone());
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);

    let running = Running::new(&[failing.address, refusing.address], options);
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(response.rcode(), Rcode::REFUSED);
    assert_eq!(failing.seen().len(), 2, "each upstream is asked once");
}

#[tokio::test]
async fn next_asks_the_next_forward_and_no_other_directive() {
    let denying =
        ScriptedUpstream::start(|seen| Reaction::Send(seen.empty(if seen.label() == "nodata" { 0 } else { 3 }))).await;
    let process = process();
    let options = ForwardOptions { next: vec![Rcode::NXDOMAIN], next_on_nodata: true, ..ForwardOptions::default() };
    let forward = build(&[denying.address], options, &process);
    for (keyword, expected) in [("forward", Rcode::REFUSED), ("whoami", Rcode::NXDOMAIN)] {
        let next = Arc::new(Stub { keyword, rcode: Rcode::REFUSED });
        let chain = Arc::new(Chain { handlers: [forward.clone() as Arc<dyn Handler>, next].into() });
        let outcome = chain.start().run(request("nx.example.", Transport::Udp).borrow()).await;
        assert_eq!(outcome.unwrap().response.rcode(), expected, "{keyword} follows");
    }
    let next = Arc::new(Stub { keyword: "forward", rcode: Rcode::REFUSED });
    let chain = Arc::new(Chain { handlers: [forward as Arc<dyn Handler>, next].into() });
    let outcome = chain.start().run(request("nodata.example.", Transport::Udp).borrow()).await;
    assert_eq!(outcome.unwrap().response.rcode(), Rcode::REFUSED);
}

#[tokio::test]
async fn over_max_concurrent_a_request_is_refused_and_counted() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(100), seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions { max_concurrent: 2, ..ForwardOptions::default() });
    let requests = ["a.example.", "b.example.", "c.example."].map(|name| request(name, Transport::Udp));
    let (first, second, third) =
        tokio::join!(running.ask(&requests[0]), running.ask(&requests[1]), running.ask(&requests[2]));
    assert!(first.is_ok() && second.is_ok());
    let refusal = third.unwrap_err();
    assert_eq!(refusal.rcode, Rcode::REFUSED);
    assert_eq!(refusal.cause, "concurrent queries exceeded maximum 2");
    assert_eq!(running.metric("coredns_forward_max_concurrent_rejects_total"), 1.0);
    // All that were counted, the refused one too, are off the count again.
    running.answer(&requests[2]).await;
    assert_eq!(running.forward.limiter.as_ref().map(|limiter| limiter.running()), Some(0));
}

#[tokio::test]
async fn at_max_concurrent_a_request_of_the_client_that_has_most_is_refused_for_another() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Later(Duration::from_millis(100), seen.answer(1))).await;
    let running = Running::new(&[upstream.address], ForwardOptions { max_concurrent: 3, ..ForwardOptions::default() });
    let mut requests = ["a.example.", "b.example.", "c.example.", "d.example.", "e.example."]
        .map(|name| request(name, Transport::Udp));
    requests[3].peer.client = "192.0.2.7:9999".parse().unwrap();
    let outcomes = futures_util::future::join_all(requests.iter().map(|request| running.ask(request))).await;
    let rcodes: Vec<Rcode> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(|refusal| refusal.rcode, |_| Rcode::NOERROR))
        .collect();
    assert_eq!(
        rcodes,
        [Rcode::REFUSED, Rcode::NOERROR, Rcode::NOERROR, Rcode::NOERROR, Rcode::REFUSED],
        "its oldest, and one too many"
    );
    assert_eq!(running.metric("coredns_forward_max_concurrent_rejects_total"), 2.0);
    assert_eq!(running.forward.limiter.as_ref().map(|limiter| limiter.running()), Some(0));
}

#[tokio::test]
async fn with_all_upstreams_dead_the_request_fails_with_the_last_cause() {
    let dead = dead_address();
    let running = Running::new(
        &[dead],
        ForwardOptions { max_fails: 1, probe_interval: Duration::from_millis(10), ..ForwardOptions::default() },
    );
    let failure = running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err();
    assert_eq!(failure.rcode, Rcode::SERVFAIL);
    assert!(failure.cause.ends_with(&format!("->{dead}: read: connection refused")), "{}", failure.cause);
    assert!(running.metric("coredns_forward_healthcheck_broken_total") >= 1.0);
    assert!(running.metric("coredns_proxy_healthcheck_failures_total") >= 2.0);
}

#[tokio::test]
async fn failfast_asks_nobody_when_all_are_down() {
    let dead = dead_address();
    let options = ForwardOptions {
        max_fails: 1,
        probe_interval: Duration::from_millis(10),
        failfast_all_unhealthy_upstreams: true,
        ..ForwardOptions::default()
    };
    let running = Running::new(&[dead], options);
    running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err();
    let failure = running.ask(&request("b.example.", Transport::Udp)).await.unwrap_err();
    assert_eq!(failure.cause, "no healthy proxies");
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_found_by_its_health_check() {
    let address = dead_address();
    let options = ForwardOptions {
        max_fails: 1,
        probe_interval: Duration::from_millis(10),
        failfast_all_unhealthy_upstreams: true,
        ..ForwardOptions::default()
    };
    let running = Running::new(&[address], options);
    running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err();
    assert_eq!(running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err().cause, "no healthy proxies");
    let upstream = ScriptedUpstream::start_at(address, |seen| Reaction::Send(seen.answer(1))).await;
    for _ in 0..200 {
        if running.ask(&request("a.example.", Transport::Udp)).await.is_ok() {
            let probes =
                upstream.seen().iter().filter(|seen| seen.wire[12..17] == [0, 0, 2, 0, 1] && seen.wire[2] == 1).count();
            assert_eq!(probes, 1, "probing ends with the first success");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the upstream stays down");
}

#[tokio::test]
async fn round_robin_takes_turns() {
    let (one, two) = (
        ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await,
        ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(2))).await,
    );
    let running = Running::new(
        &[one.address, two.address],
        ForwardOptions { policy: UpstreamPolicy::RoundRobin, ..ForwardOptions::default() },
    );
    for _ in 0..4 {
        running.answer(&request("a.example.", Transport::Udp)).await;
    }
    assert_eq!((one.seen().len(), two.seen().len()), (2, 2));
}

#[tokio::test]
async fn a_file_without_nameservers_fails_queries_with_that_cause() {
    let process = process();
    let config = ForwardConfig {
        from: Name::root(),
        except: Vec::new(),
        targets: vec![UpstreamTarget::File { path: "/etc/resolv.conf".to_owned(), addresses: Vec::new() }],
        tls: None,
        options: ForwardOptions::default(),
    };
    let running = Running { forward: build_config(&config, &process), process };
    let failure = running.ask(&request("a.example.", Transport::Udp)).await.unwrap_err();
    assert_eq!(failure.rcode, Rcode::SERVFAIL);
    assert!(failure.cause.contains("/etc/resolv.conf has no usable nameserver"), "{}", failure.cause);
}

#[tokio::test]
async fn a_host_name_is_resolved_by_the_given_resolver_and_then_asked() {
    // One server plays both: the resolver says that the host is 127.0.0.1, where the upstream listens on the same port.
    let upstream = ScriptedUpstream::start(|seen| {
        if seen.label() != "dns" {
            return Reaction::Send(seen.answer(1));
        }
        let type_is_a =
            seen.wire.get(seen.wire.iter().skip(12).position(|octet| *octet == 0).unwrap() + 14) == Some(&1);
        let mut answer = if type_is_a { seen.answer(0) } else { seen.empty(0) };
        if type_is_a {
            let length = answer.len();
            answer[length - 4..].copy_from_slice(&[127, 0, 0, 1]);
        }
        Reaction::Send(answer)
    })
    .await;
    let process = process();
    let config = ForwardConfig {
        from: Name::root(),
        except: Vec::new(),
        targets: vec![UpstreamTarget::Host {
            name: Name::parse("dns.upstream.test").unwrap(),
            port: upstream.address.port(),
            protocol: Protocol::Dns,
        }],
        tls: None,
        options: ForwardOptions { resolvers: vec![upstream.address], ..ForwardOptions::default() },
    };
    let running = Running { forward: build_config(&config, &process), process };
    let resolving = tokio::spawn(running.forward.exchanger.upstreams.clone().keep_resolved());
    let response = running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(address_in(&response), [192, 0, 2, 1]);
    resolving.abort();
}

#[tokio::test]
async fn an_upstream_with_unchanged_settings_lives_on_over_a_reload() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.answer(1))).await;
    let options = ForwardOptions { force_tcp: true, ..ForwardOptions::default() };
    let mut running = Running::new(&[upstream.address], options.clone());
    running.answer(&request("a.example.", Transport::Udp)).await;
    running.forward = build(&[upstream.address], ForwardOptions { max_fails: 7, ..options.clone() }, &running.process);
    running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 1);
    let changed = [
        (ForwardOptions { expire: Duration::from_secs(3), ..options.clone() }, 2),
        (ForwardOptions { use_caps_for_id: true, ..options.clone() }, 3),
        (ForwardOptions { use_caps_for_id: true, max_fails: 7, ..options }, 3),
    ];
    for (options, connections) in changed {
        running.forward = build(&[upstream.address], options, &running.process);
        running.answer(&request("a.example.", Transport::Udp)).await;
        assert_eq!(upstream.connections(), connections);
    }
}

#[tokio::test]
async fn requests_are_counted_under_the_references_names_and_the_former_ones() {
    let upstream = ScriptedUpstream::start(|seen| Reaction::Send(seen.empty(3))).await;
    let running = Running::new(&[upstream.address], ForwardOptions::default());
    running.answer(&request("a.example.", Transport::Udp)).await;
    let to = upstream.address;
    let text = running.process.registry.encode();
    for line in [
        format!("coredns_forward_requests_total{{to=\"{to}\"}} 1"),
        format!("coredns_forward_responses_total{{rcode=\"NXDOMAIN\",to=\"{to}\"}} 1"),
        format!(
            "coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",rcode=\"NXDOMAIN\",to=\"{to}\"}} 1"
        ),
        format!("coredns_forward_request_duration_seconds_count{{rcode=\"NXDOMAIN\",to=\"{to}\"}} 1"),
        format!("coredns_proxy_conn_cache_misses_total{{proto=\"udp\",proxy_name=\"forward\",to=\"{to}\"}} 1"),
        "coredns_forward_healthcheck_broken_total 0".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_future_of_an_exchange_fits_into_what_the_allocator_serves_fast() {
    let running = Running::new(&[dead_address()], ForwardOptions::default());
    let request = request("a.example.", Transport::Udp);
    let request = request.borrow();
    let octets = std::mem::size_of_val(&running.forward.exchanger.exchange(&request, &mut None));
    assert!(octets <= 1024, "{octets} octets");
}
