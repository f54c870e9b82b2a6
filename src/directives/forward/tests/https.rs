//! Upstreams over HTTPS: a request for each query, on few connections.

use super::flooding_https::{Flood, FloodingUpstream};
use super::scripted::ReceivedQuery;
use super::scripted_https::{HttpsBehaviour, HttpsReaction, HttpsUpstream, ReceivedRequest};
use super::*;
use crate::directives::forward::health::probe;
use crate::net::dns_client::FLOODED;
use crate::net::doh::{DohMethod, DohResource};
use crate::net::tls::ClientTls;
use crate::net::tls::testing::Authority;
use futures_util::future::join_all;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

const NAME: &str = "dns.example";

/// A server's side that speaks HTTP/2.
fn server(authority: &Authority) -> HttpsBehaviour {
    let mut tls = authority.server(&[NAME], None);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    HttpsBehaviour { tls, max_streams: 250, session_delay: Duration::ZERO }
}

/// Upstreams that are asked over HTTPS, and believed if `tls` trusts their certificates for `name`.
fn over_https(upstreams: &[SocketAddr], name: &str, tls: ClientTls, options: ForwardOptions) -> Running {
    let target = |address: &SocketAddr| UpstreamTarget::Address {
        address: *address,
        protocol: Protocol::Https { server_name: Some(name.to_owned()), path: PathAndQuery::from_static("/dns-query") },
    };
    Running::over_tls(upstreams.iter().map(target).collect(), tls, options)
}

/// An upstream that is believed.
async fn upstream(
    script: impl Fn(&ReceivedRequest) -> HttpsReaction + Send + Sync + 'static,
) -> (HttpsUpstream, Running) {
    upstream_with(patient(), script).await
}

async fn upstream_with(
    options: ForwardOptions,
    script: impl Fn(&ReceivedRequest) -> HttpsReaction + Send + Sync + 'static,
) -> (HttpsUpstream, Running) {
    let authority = Authority::new("authority");
    let upstream = HttpsUpstream::start(server(&authority), script).await;
    let running = over_https(&[upstream.address], NAME, authority.client(), options);
    (upstream, running)
}

fn answer(request: &ReceivedRequest) -> HttpsReaction {
    HttpsReaction::Answer(request.query.answer(1))
}

fn once() -> ForwardOptions {
    ForwardOptions { max_connect_attempts: 1, ..patient() }
}

/// Nothing is asked again only because this machine is slow.
fn patient() -> ForwardOptions {
    ForwardOptions { read_timeout: Duration::from_secs(60), ..ForwardOptions::default() }
}

async fn all_are_answered(running: &Running, requests: &[OwnedRequest]) {
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
}

#[tokio::test]
async fn fifty_misses_share_one_connection_and_none_waits_behind_another() {
    let (release, held) = watch::channel(false);
    let (upstream, running) = upstream_with(patient(), move |seen| match seen.query.label().as_str() {
        "n0" => HttpsReaction::Held(held.clone(), seen.query.answer(1)),
        _ => answer(seen),
    })
    .await;
    let requests = requests(50);
    let answered = AtomicUsize::new(0);
    join_all(requests.iter().map(async |request| {
        running.answer(request).await;
        // All but the first.
        if answered.fetch_add(1, Ordering::Relaxed) + 1 == requests.len() - 1 {
            release.send_replace(true);
        }
    }))
    .await;
    running.answer(&request("tcp.example.", Transport::Tcp)).await;
    assert_eq!((upstream.requests().len(), upstream.sessions().len()), (51, 1));
    let series = |name| running.metric(&format!("coredns_proxy_conn_cache_{name}_total{{proto=\"https\""));
    assert_eq!((series("misses"), series("hits")), (1.0, 50.0));
    assert_eq!(running.metric("coredns_proxy_request_duration_seconds_count"), 51.0);
}

#[tokio::test]
async fn a_query_is_posted_or_got_with_id_0_and_nothing_that_says_who_asks() {
    for (doh_method, method) in [(DohMethod::Post, Method::POST), (DohMethod::Get, Method::GET)] {
        let options = ForwardOptions { doh_method, ..ForwardOptions::default() };
        let (upstream, running) = upstream_with(options, answer).await;
        all_are_answered(&running, &requests(2)).await;
        for seen in upstream.requests() {
            assert_eq!((&seen.method, seen.uri.path()), (&method, "/dns-query"));
            let authority = format!("{NAME}:{}", upstream.address.port());
            assert_eq!(seen.uri.authority().map(|authority| authority.as_str()), Some(authority.as_str()));
            assert_eq!(seen.query.wire[..2], [0, 0]);
            let has = |headers: &HeaderMap, name: &str| headers.contains_key(name);
            assert_eq!(has(&seen.headers, "content-type"), doh_method == DohMethod::Post);
            assert!(has(&seen.headers, "accept") && !has(&seen.headers, "user-agent"));
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_said_and_the_next_upstream_asked() {
    let media_type = |value: &str| vec![("content-type", value.to_owned())];
    let dns = "application/dns-message";
    type Respond = Box<dyn Fn(&ReceivedQuery) -> (u16, Vec<(&'static str, String)>, Vec<u8>) + Send + Sync>;
    let cases: [(&str, Respond); 6] = [
        ("HTTP status 503", Box::new(move |seen| (503, media_type(dns), seen.answer(2)))),
        ("HTTP status 302", Box::new(|_| (302, vec![("location", "/elsewhere".to_owned())], Vec::new()))),
        ("of the type `text/html`", Box::new(move |seen| (200, media_type("text/html; charset=x"), seen.answer(2)))),
        (
            "more than 65535 octets",
            Box::new(move |seen| (200, media_type(dns), [seen.answer(2), vec![0; 65535]].concat())),
        ),
        ("another question", Box::new(move |_| (200, media_type(dns), b"no DNS".to_vec()))),
        ("malformed answer", Box::new(move |seen| (200, media_type(dns), [seen.answer(2)[..40].to_vec()].concat()))),
    ];
    for (says, respond) in cases {
        let authority = Authority::new("authority");
        let bad = HttpsUpstream::start(server(&authority), move |seen: &ReceivedRequest| {
            let (status, headers, body) = respond(&seen.query);
            HttpsReaction::Respond(status, headers, body)
        })
        .await;
        let alone = over_https(&[bad.address], NAME, authority.client(), once());
        let said = alone.failure().await;
        assert!(said.contains(says) && said.contains(&bad.address.to_string()), "{says}: {said}");
        let good = HttpsUpstream::start(server(&authority), answer).await;
        let options =
            ForwardOptions { policy: super::super::policy::UpstreamPolicy::Sequential, ..ForwardOptions::default() };
        let both = over_https(&[bad.address, good.address], NAME, authority.client(), options);
        all_are_answered(&both, &requests(1)).await;
    }
}

#[tokio::test]
async fn an_error_code_without_a_question_and_a_refusal_of_edns_are_what_they_are_over_tcp() {
    let (_upstream, running) = upstream(|seen| {
        let mut header = seen.query.empty(2)[..12].to_vec();
        header[5] = 0;
        HttpsReaction::Answer(header)
    })
    .await;
    assert_eq!(running.answer(&request("a.example.", Transport::Udp)).await.rcode(), crate::message::Rcode::SERVFAIL);
}

#[tokio::test]
async fn ttls_are_less_by_the_age_of_a_response() {
    let (_upstream, running) = upstream(|seen| {
        let age = if seen.query.label() == "old" { "1000" } else { "25" };
        let headers = vec![("content-type", "application/dns-message".to_owned()), ("age", age.to_owned())];
        HttpsReaction::Respond(200, headers, seen.query.answer(1))
    })
    .await;
    for (name, ttl) in [("young.example.", 35), ("old.example.", 0)] {
        let response = running.answer(&request(name, Transport::Udp)).await;
        assert_eq!(response.records().map(|record| record.ttl).collect::<Vec<_>>(), [ttl]);
    }
}

#[tokio::test]
async fn a_long_answer_arrives_whole() {
    let (_upstream, running) = upstream(|seen| HttpsReaction::Answer(seen.query.long_answer(4000))).await;
    let requests = requests(20);
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(response.answer_count(), 4000);
    }
}

#[tokio::test]
async fn an_upstream_that_goes_away_answers_what_it_has_and_the_rest_is_asked_on_a_new_connection() {
    let (upstream, running) = upstream(|seen| match seen.query.index {
        0 => HttpsReaction::AnswerAndGoAway(seen.query.answer(1)),
        _ => answer(seen),
    })
    .await;
    all_are_answered(&running, &requests(1)).await;
    all_are_answered(&running, &requests(20)).await;
    let connections: Vec<usize> = upstream.requests().iter().map(|seen| seen.query.connection).collect();
    assert_eq!(connections.iter().filter(|connection| **connection == 0).count(), 1, "it takes no more");
    assert_eq!(connections.len(), 21, "each is asked once");
}

#[tokio::test]
async fn queries_on_a_connection_that_ends_or_is_reset_are_all_answered_in_a_session_that_is_resumed() {
    for ends_well in [true, false] {
        // The tenth query ends the first connection. The first was answered, so that the tickets for a resumption have
        // come.
        let (upstream, running) = upstream(move |seen| match (seen.query.connection, seen.query.index) {
            (0, 9) if ends_well => HttpsReaction::GoAway,
            (0, 9) => HttpsReaction::ResetConnection,
            (0, 1..) => HttpsReaction::Silent,
            _ => answer(seen),
        })
        .await;
        running.answer(&request("first.example.", Transport::Udp)).await;
        all_are_answered(&running, &requests(9)).await;
        assert_eq!(upstream.sessions(), [HandshakeKind::Full, HandshakeKind::Resumed], "ends well: {ends_well}");
        assert_eq!(running.metric("nodelocaldns_forward_retries_total"), 9.0);
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_is_asked_again() {
    let (upstream, running) = upstream(|seen| match seen.query.index {
        0 | 1 => HttpsReaction::ResetStream,
        _ => answer(seen),
    })
    .await;
    all_are_answered(&running, &requests(1)).await;
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn no_more_streams_are_opened_than_the_upstream_takes() {
    let authority = Authority::new("authority");
    let behaviour = HttpsBehaviour { max_streams: 2, ..server(&authority) };
    let (release, held) = watch::channel(false);
    let script = move |seen: &ReceivedRequest| match seen.query.index {
        0 => answer(seen),
        _ => HttpsReaction::Held(held.clone(), seen.query.answer(1)),
    };
    let upstream = HttpsUpstream::start(behaviour, script).await;
    let running = over_https(&[upstream.address], NAME, authority.client(), patient());
    // It is known how many after the first.
    all_are_answered(&running, &requests(1)).await;
    let requests = requests(60);
    let released_when_full = async {
        while upstream.requests().len() < 1 + 2 * 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        release.send_replace(true);
    };
    tokio::join!(all_are_answered(&running, &requests), released_when_full);
    assert_eq!(upstream.requests().len(), 61, "none is asked twice");
    assert_eq!(running.metric("nodelocaldns_forward_retries_total"), 0.0, "none is refused");
    assert_eq!(upstream.sessions().len(), 8, "as many connections as there may be");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_ended() {
    let (upstream, running) =
        upstream_with(ForwardOptions { max_fails: 0, ..short_timeout() }, |seen| match seen.query.label().as_str() {
            "silent" => HttpsReaction::Silent,
            _ => answer(seen),
        })
        .await;
    running.ask(&request("silent.example.", Transport::Udp)).await.unwrap_err();
    let asked = upstream.requests().len();
    assert!(asked > 1, "it was asked again");
    while upstream.cancelled() < asked {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_given_up_before_there_is_a_session_is_not_asked() {
    let authority = Authority::new("authority");
    let behaviour = HttpsBehaviour { session_delay: Duration::from_millis(100), ..server(&authority) };
    let upstream = HttpsUpstream::start(behaviour, answer).await;
    let running = over_https(&[upstream.address], NAME, authority.client(), ForwardOptions::default());
    let given_up = request("gone.example.", Transport::Udp);
    tokio::time::timeout(Duration::from_millis(20), running.ask(&given_up)).await.unwrap_err();
    all_are_answered(&running, &requests(1)).await;
    let asked: Vec<String> = upstream.requests().iter().map(|seen| seen.query.label()).collect();
    assert_eq!((asked.as_slice(), upstream.sessions().len()), (&["n0".to_owned()][..], 1));
}

#[tokio::test]
async fn a_connection_that_is_idle_for_long_is_closed_with_a_goodbye() {
    let options = ForwardOptions { expire: Duration::from_millis(50), ..ForwardOptions::default() };
    let (upstream, running) = upstream_with(options, answer).await;
    all_are_answered(&running, &requests(3)).await;
    while upstream.goodbyes() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while running.sockets().open() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    all_are_answered(&running, &requests(1)).await;
    assert_eq!(upstream.sessions(), [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn a_server_that_speaks_no_http2_or_is_somebody_else_is_asked_nothing() {
    let authority = Authority::new("authority");
    let without_alpn: ServerConfig = authority.server(&[NAME], None);
    let old = HttpsUpstream::start(HttpsBehaviour { tls: without_alpn, ..server(&authority) }, answer).await;
    let said = over_https(&[old.address], NAME, authority.client(), once()).failure().await;
    assert!(said.contains("does not offer HTTP/2"), "{said}");
    let upstream = HttpsUpstream::start(server(&authority), answer).await;
    let said = over_https(&[upstream.address], "other.example", authority.client(), once()).failure().await;
    assert!(said.contains("x509: certificate is valid for dns.example, not other.example"), "{said}");
    let said = over_https(&[dead_address()], NAME, authority.client(), once()).failure().await;
    assert!(said.contains("connection refused"), "{said}");
    assert_eq!((old.requests().len(), upstream.requests().len()), (0, 0));
}

#[tokio::test]
async fn health_checks_go_over_https_and_need_an_answer() {
    let is_probe = |seen: &ReceivedRequest| seen.query.wire[12] == 0;
    for (is_well, failures) in [(true, 0.0), (false, 2.0)] {
        let options = ForwardOptions { probe_interval: Duration::from_millis(10), ..short_timeout() };
        let script = move |seen: &ReceivedRequest| match (is_probe(seen), is_well) {
            (false, _) => HttpsReaction::Silent,
            (true, true) => HttpsReaction::Answer(seen.query.empty(5)),
            (true, false) => HttpsReaction::Respond(500, Vec::new(), Vec::new()),
        };
        let (upstream, running) = upstream_with(ForwardOptions { max_connect_attempts: 1, ..options }, script).await;
        running.failure().await;
        while !upstream.requests().iter().any(is_probe)
            || running.metric("coredns_proxy_healthcheck_failures_total") < failures
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(is_well, running.metric("coredns_proxy_healthcheck_failures_total") == 0.0);
    }
}

#[tokio::test]
async fn a_health_check_of_an_upstream_that_sends_without_end_ends_and_says_so() {
    for flood in [Flood::Interim, Flood::Unknown] {
        let authority = Authority::new("authority");
        let address = FloodingUpstream::start(server(&authority).tls, flood).address;
        let path = PathAndQuery::from_static("/dns-query");
        let resource = DohResource::new(NAME, address.port(), &path, DohMethod::Post);
        let mut remote = remote(address, upstream_settings());
        Arc::get_mut(&mut remote).unwrap().protocol =
            UpstreamProtocol::Https(authority.client().for_http2().client_of(NAME), resource);
        let error = probe(&remote).await.unwrap_err();
        assert_eq!(error.kind(), FLOODED, "{flood:?}: {error}");
    }
}

#[tokio::test]
async fn an_upstream_that_sends_frames_without_end_is_left_and_others_have_their_turn() {
    // How often others have their turn at least, while 512 KiB are read, 16 at a time.
    let cases = [(Flood::Interim, "interim responses", 1), (Flood::Unknown, "far more than answers have", 30)];
    for (flood, says, least) in cases {
        let authority = Authority::new("authority");
        let flooding = FloodingUpstream::start(server(&authority).tls, flood);
        let good = HttpsUpstream::start(server(&authority), answer).await;
        let alone = over_https(&[flooding.address], NAME, authority.client(), once());
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let said = alone.failure().await;
        other.abort();
        assert!(said.contains(says), "{flood:?}: {said}");
        assert!(turns.load(Ordering::Relaxed) >= least, "{flood:?}: {turns:?}");
        let options = ForwardOptions { policy: super::super::policy::UpstreamPolicy::Sequential, ..patient() };
        let both = over_https(&[flooding.address, good.address], NAME, authority.client(), options);
        all_are_answered(&both, &requests(1)).await;
        let ended = loop {
            match flooding.ended() {
                Some(ended) => break ended,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(ended.len() > 1 && ended.iter().all(|by_client| *by_client), "{flood:?}: {ended:?}");
    }
}
