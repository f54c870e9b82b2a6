//! Upstreams over TLS: as over TCP, and nothing is asked of one that is not who it should be.

use super::scripted::{Reaction, ReceivedQuery, ScriptedUpstream};
use super::*;
use crate::net::tls::ClientTls;
use crate::net::tls::testing::Authority;
use futures_util::future::join_all;
use tokio_rustls::rustls::HandshakeKind;

const NAME: &str = "dns.example";

/// Upstreams that are asked over TLS, and believed if `tls` trusts their certificates for `name`.
fn over_tls(upstreams: &[SocketAddr], name: &str, tls: ClientTls, options: ForwardOptions) -> Running {
    let tls_target = |address: &SocketAddr| UpstreamTarget::Address {
        address: *address,
        protocol: Protocol::Tls { server_name: Some(name.to_owned()) },
    };
    Running::over_tls(upstreams.iter().map(tls_target).collect(), tls, options)
}

/// An upstream that is believed.
async fn upstream(script: impl Fn(&ReceivedQuery) -> Reaction + Send + Sync + 'static) -> (ScriptedUpstream, Running) {
    let authority = Authority::new("authority");
    let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
    let running = over_tls(&[upstream.address], NAME, authority.client(), ForwardOptions::default());
    (upstream, running)
}

#[tokio::test]
async fn queries_share_one_session_whatever_the_clients_transport() {
    let (upstream, running) = upstream(|seen| Reaction::Send(seen.answer(1))).await;
    let requests = requests(20);
    join_all(requests.iter().map(|request| running.answer(request))).await;
    for request in &requests {
        assert_eq!(address_in(&running.answer(request).await), [192, 0, 2, 1]);
    }
    running.answer(&request("tcp.example.", Transport::Tcp)).await;
    assert_eq!((upstream.count(Transport::Tcp), upstream.count(Transport::Udp)), (41, 0));
    assert_eq!(upstream.connections(), 1);
    let series = |name| {
        let text = running.process.registry.encode();
        let name = format!("coredns_proxy_conn_cache_{name}_total{{");
        let line = text.lines().find(|line| line.starts_with(&name) && line.contains("proto=\"tcp-tls\""));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!((series("misses").as_deref(), series("hits").as_deref()), (Some("1"), Some("40")));
}

#[tokio::test]
async fn neither_option_of_transports_matters_and_a_truncated_answer_is_passed_on() {
    for options in [
        ForwardOptions { force_tcp: true, ..ForwardOptions::default() },
        ForwardOptions { prefer_udp: true, ..ForwardOptions::default() },
    ] {
        let authority = Authority::new("authority");
        let script = |seen: &ReceivedQuery| Reaction::Send(seen.truncated());
        let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
        let running = over_tls(&[upstream.address], NAME, authority.client(), options);
        assert!(running.answer(&request("a.example.", Transport::Tcp)).await.is_truncated());
        assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (0, 1));
    }
}

#[tokio::test]
async fn answers_come_in_any_order_and_of_any_length() {
    let (upstream, running) = upstream(|seen| match seen.label().as_str() {
        "slow" => Reaction::Later(Duration::from_millis(30), seen.answer(1)),
        "long" => Reaction::Send(seen.long_answer(4000)),
        _ => Reaction::Send(seen.answer(2)),
    })
    .await;
    let [slow, fast, long] = ["slow", "fast", "long"].map(|name| request(&format!("{name}.example."), Transport::Tcp));
    let order = parking_lot::Mutex::new(Vec::new());
    let ask = async |request: &OwnedRequest| {
        let answers = running.answer(request).await.answer_count();
        order.lock().push((request.query.name.to_string(), answers));
    };
    tokio::join!(ask(&slow), ask(&fast));
    ask(&long).await;
    let expected = [("fast.example.", 1), ("slow.example.", 1), ("long.example.", 4000)];
    assert_eq!(*order.lock(), expected.map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn queries_on_a_connection_that_is_reset_are_all_answered_in_a_session_that_is_resumed() {
    // The tenth query resets the first connection. The first was answered, so that the tickets for a resumption have
    // come.
    let (upstream, running) = upstream(|seen| match (seen.connection, seen.index) {
        (0, 0) => Reaction::Send(seen.answer(1)),
        (0, 9) => Reaction::Reset,
        (0, _) => Reaction::Silent,
        _ => Reaction::Send(seen.answer(1)),
    })
    .await;
    running.answer(&request("first.example.", Transport::Udp)).await;
    let requests = requests(9);
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
    assert_eq!(upstream.sessions(), [HandshakeKind::Full, HandshakeKind::Resumed]);
    assert_eq!(running.metric("nodelocaldns_forward_retries_total"), 9.0);
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_answers_all_queries() {
    let (_upstream, running) = upstream(|seen| Reaction::SendAndClose(seen.answer(1))).await;
    let requests = requests(12);
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
}

#[tokio::test]
async fn a_session_that_hangs_is_left_within_the_read_timeout() {
    let authority = Authority::new("authority");
    let script = |seen: &ReceivedQuery| match seen.connection {
        0 => Reaction::Silent,
        _ => Reaction::Send(seen.answer(1)),
    };
    let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
    let options = ForwardOptions { read_timeout: Duration::from_millis(1500), ..ForwardOptions::default() };
    let running = over_tls(&[upstream.address], NAME, authority.client(), options);
    running.answer(&request("a.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 2);
    running.answer(&request("b.example.", Transport::Udp)).await;
    assert_eq!(upstream.connections(), 2, "the one that hung takes no more queries");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_left_within_the_read_timeout_and_the_next_upstream_asked() {
    let authority = Authority::new("authority");
    let script = |seen: &ReceivedQuery| Reaction::Send(seen.answer(1));
    let good = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
    // Connections are taken by the kernel, and nobody says a word on them.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ForwardOptions { policy: super::super::policy::UpstreamPolicy::Sequential, ..short_timeout() };
    let upstreams = [hanging.local_addr().unwrap(), good.address];
    let running = over_tls(&upstreams, NAME, authority.client(), options.clone());
    assert_eq!(address_in(&running.answer(&request("a.example.", Transport::Udp)).await), [192, 0, 2, 1]);
    let alone = over_tls(&upstreams[..1], NAME, authority.client(), options);
    let said = alone.failure().await;
    assert!(said.contains("i/o timeout"), "{said}");
}

#[tokio::test]
async fn nothing_is_asked_of_an_upstream_that_is_not_who_it_should_be_and_the_failure_says_why() {
    let authority = Authority::new("authority");
    let script = |seen: &ReceivedQuery| Reaction::Send(seen.answer(1));
    let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
    let to = [upstream.address];
    let options = ForwardOptions { max_connect_attempts: 1, ..ForwardOptions::default() };
    let said = over_tls(&to, "other.example", authority.client(), options.clone()).failure().await;
    assert!(said.contains("x509: certificate is valid for dns.example, not other.example"), "{said}");
    assert!(said.contains(&upstream.address.to_string()), "{said}");
    let stranger = Authority::new("stranger").client();
    let said = over_tls(&to, NAME, stranger, options.clone()).failure().await;
    assert!(said.contains("x509: certificate signed by unknown authority"), "{said}");
    let said = over_tls(&to, "no name", authority.client(), options).failure().await;
    assert!(said.contains("`no name` is neither"), "{said}");
    assert_eq!(upstream.seen().len(), 0);
    assert_eq!(upstream.connections(), 3, "each was tried once: trying again does not help");
}

#[tokio::test]
async fn an_upstream_that_wants_to_know_who_asks_says_so_in_the_failure() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let script = |seen: &ReceivedQuery| Reaction::Send(seen.answer(1));
    let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], Some(&clients)), script).await;
    let options = ForwardOptions { max_connect_attempts: 1, ..ForwardOptions::default() };
    let said = over_tls(&[upstream.address], NAME, authority.client(), options).failure().await;
    assert!(said.contains("remote error: tls: CertificateRequired"), "{said}");
}

#[tokio::test]
async fn an_upstream_where_nobody_listens_is_told_of_as_such() {
    let options = ForwardOptions { max_connect_attempts: 1, ..short_timeout() };
    let tls = Authority::new("authority").client();
    let refusing = over_tls(&[dead_address()], NAME, tls, options);
    let said = refusing.failure().await;
    assert!(said.contains("connection refused"), "{said}");
}

#[tokio::test]
async fn health_checks_go_over_tls() {
    let authority = Authority::new("authority");
    let is_probe = |seen: &ReceivedQuery| seen.wire[12] == 0;
    let script =
        move |seen: &ReceivedQuery| if is_probe(seen) { Reaction::Send(seen.empty(0)) } else { Reaction::Silent };
    let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
    let options = ForwardOptions { max_connect_attempts: 1, ..short_timeout() };
    let running = over_tls(&[upstream.address], NAME, authority.client(), options);
    running.failure().await;
    while !upstream.seen().iter().any(is_probe) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(upstream.count(Transport::Udp), 0);
    assert_eq!(running.metric("coredns_proxy_healthcheck_failures_total"), 0.0);
}

#[tokio::test]
async fn health_checks_of_an_upstream_that_is_not_who_it_should_be_fail() {
    let authority = Authority::new("authority");
    let script = |seen: &ReceivedQuery| Reaction::Send(seen.answer(1));
    let upstream = ScriptedUpstream::start_tls(authority.server(&[NAME], None), script).await;
    let options =
        ForwardOptions { max_connect_attempts: 1, probe_interval: Duration::from_millis(10), ..short_timeout() };
    let running = over_tls(&[upstream.address], "other.example", authority.client(), options);
    running.failure().await;
    while running.metric("coredns_proxy_healthcheck_failures_total") < 2.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(upstream.seen().len(), 0);
}
