//! What a plan says that it would do with a question, and that it does that.

use super::super::explain::ExplainedQuestion;
use super::super::explain_report::OutcomeKind;
use super::super::{Asked, ExplainReport, Listener, Plan, StepReport, explain};
use super::{config, plan};
use crate::chain::testing::process;
use crate::chain::{Answer, Effect, ProcessContext, Request};
use crate::message::{Name, RecordType};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn asked(name: &str, qtype: &str, client: &str) -> Asked {
    Asked {
        name: Name::parse(name).unwrap(),
        qtype: RecordType::from_mnemonic(qtype).unwrap(),
        client: (!client.is_empty()).then(|| client.parse().unwrap()),
        server: None,
    }
}

pub(super) fn report(plan: &Plan, asked: &Asked, now: Instant) -> ExplainReport {
    explain(&plan.listeners, asked, now).unwrap_or_else(|error| panic!("{error}"))
}

/// What the directives answer when they are asked: rcode and directive, or that nothing is said, and the records.
async fn answered(
    listener: &Arc<Listener>,
    asked: &Asked,
    now: Instant,
) -> (Option<String>, Option<String>, Vec<String>) {
    let question = ExplainedQuestion::new(asked, listener).unwrap();
    let Some(choice) = listener.choose(&question.query, &question.wire, &question.peer) else {
        return (Some("REFUSED".to_owned()), None, Vec::new());
    };
    let site = choice.site;
    let request = Request { server_index: site.server, zone: site.zone, ..question.request(now) };
    match site.block.chain.start().run(request).await {
        Ok(Answer { response, from }) => {
            let records = super::super::explain::records(&response);
            (Some(response.rcode().to_string()), Some(from.to_owned()), records)
        }
        Err(failure) if failure.is_silence() => (None, None, Vec::new()),
        Err(failure) => (Some(failure.rcode.to_string()), None, Vec::new()),
    }
}

/// Of all that answers without an upstream, in several blocks.
const EVERYTHING: &str = "
example:53 {
    bind 127.0.0.1
    acl {
        block type TXT net 10.0.0.0/8
        filter type MX
        drop net 192.0.2.0/24
    }
    local
    dns64
    any
    cancel
    minimal
    header {
        response set aa
    }
    rewrite continue name suffix .corp.example .example answer auto
    rewrite continue ttl regex .* 5-30
    rewrite type SRV A
    rewrite name regex ^(.*)[.]long[.]example[.]$ {1}.{1}.{1}.{1}.{1}.{1}.{1}.example
    rewrite rcode c.example NXDOMAIN NOERROR
    rewrite cname exact b.example. a.example.
    cache {
        serve_stale
    }
    template IN A c.example {
        rcode NXDOMAIN
    }
    template IN A b.example {
        match ^a[.]
        answer \"{{ .Name }} 60 IN CNAME a.example.\"
        answer \"{{ .Name }} 60 IN CNAME b.example.\"
        fallthrough
    }
    template IN PTR b.example {
        answer \"{{ index .Match 99 }}\"
    }
    hosts {
        192.0.2.7 a.example
        2001:db8::1 a.b.example
        fallthrough b.example
        ttl 40
    }
    whoami
}
stale.example:53 {
    bind 127.0.0.1
    cache {
        serve_stale 1h verify
        prefetch 1 1m 50%
    }
    template IN TXT stale.example {
        rcode SERVFAIL
    }
    hosts {
        192.0.2.9 a.stale.example
        ttl 5
    }
}
sub.example:53 {
    bind 127.0.0.1
    view inner {
        expr client_ip() == '10.0.0.1'
    }
    whoami
}
sub.example:53 {
    bind 127.0.0.1
    view outer {
        expr type() == 'A'
    }
    cache
    hosts {
        192.0.2.8 x.sub.example
    }
}
";

fn question() -> impl Strategy<Value = Asked> {
    let label = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "x",
        "corp",
        "long",
        "sub",
        "localhost",
        "*",
        "\\000\\.\\\"",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ]);
    let qtype = prop::sample::select(vec!["A", "AAAA", "TXT", "MX", "SRV", "PTR", "ANY", "HINFO", "SOA", "DS"]);
    let client = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "192.0.2.9", "2001:db8::7"]);
    (prop::collection::vec(label, 0..4), prop::bool::weighted(0.95), qtype, client).prop_map(
        |(labels, is_in_zone, qtype, client)| {
            let zone = if is_in_zone { "example." } else { "test." };
            asked(&labels.into_iter().chain([zone]).collect::<Vec<_>>().join("."), qtype, client)
        },
    )
}

/// All that is counted and kept.
fn counted(process: &ProcessContext) -> String {
    process.registry.encode()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Questions come one after another, each some time after the one before, so that caches fill, and what they keep
    /// becomes old.
    #[test]
    fn what_is_explained_is_what_happens_and_to_explain_changes_nothing(
        questions in prop::collection::vec((question(), 0_u64..40), 1..24)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let process = process();
        let plan = plan(EVERYTHING, &process);
        let listener = &plan.listeners[0];
        let mut now = Instant::now();
        for (asked, pause) in questions {
            now += Duration::from_secs(pause);
            let before = counted(&process);
            let explained = report(&plan, &asked, now);
            prop_assert_eq!(&report(&plan, &asked, now), &explained, "twice the same");
            prop_assert_eq!(counted(&process), before, "to explain {:?}", asked);
            prop_assert!(!explained.asks_upstream);
            let happened = runtime.block_on(answered(listener, &asked, now));
            let said = (explained.rcode.clone(), explained.answered_by.clone(), explained.records.clone());
            prop_assert_eq!(said, happened, "{:?} {:#?}", asked, explained);
            let is_decided = |step: &StepReport| {
                matches!(step.does, Effect::Answers | Effect::Fails | Effect::Drops | Effect::Changes)
            };
            let is_said = explained.at.is_none() || explained.steps.iter().any(is_decided);
            prop_assert!(explained.outcome == OutcomeKind::Refused || is_said, "{:#?}", explained);
        }
    }
}

#[tokio::test]
async fn the_listen_address_is_the_one_that_is_named_or_the_first_that_has_a_block_and_others_are_told_of() {
    let process = process();
    let text = "https://example:443 {\n bind 127.0.0.1\n whoami\n}\nexample:54 {\n bind 127.0.0.1\n whoami\n}\n\
                test:55 {\n bind 127.0.0.1 127.0.0.2\n whoami\n}\n";
    let plan = config(text).build(&process).unwrap();
    let place = |report: &ExplainReport| {
        let question = &report.question;
        (question.server.clone(), question.transport.clone(), report.block.as_ref().map(|block| block.at.clone()))
    };
    let at = |line: u32| Some(Some(format!("Corefile:{line}")));
    let found = report(&plan, &asked("a.example.", "A", ""), Instant::now());
    assert_eq!(place(&found), ("127.0.0.1:54".to_owned(), "udp".to_owned(), at(5)), "clients speak plain DNS");
    assert_eq!(found.hints, ["another server block takes it at 127.0.0.1:443 (--server)"]);
    let named = Asked { server: Some("127.0.0.1:443".parse().unwrap()), ..asked("a.example.", "A", "") };
    let found = report(&plan, &named, Instant::now());
    assert_eq!((place(&found).0, place(&found).2, found.hints), ("127.0.0.1:443".to_owned(), at(1), Vec::new()));
    assert_ne!(found.question.transport, "udp");
    let found = report(&plan, &asked("a.test.", "A", ""), Instant::now());
    assert_eq!((place(&found).2, found.hints.len()), (at(9), 0), "one block at two addresses is no other block");
    let found = report(&plan, &asked("a.nowhere.", "A", ""), Instant::now());
    assert_eq!((found.outcome, found.block, found.steps.len()), (OutcomeKind::Refused, None, 0));
    let nowhere = Asked { server: Some("127.0.0.9:53".parse().unwrap()), ..asked("a.test.", "A", "") };
    let error = explain(&plan.listeners, &nowhere, Instant::now()).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("nothing is served at 127.0.0.9:53; there are: 127.0.0.1:"), "{error}");
    assert!(explain(&[], &nowhere, Instant::now()).is_err());
}

#[tokio::test]
async fn a_listener_of_all_addresses_is_asked_at_the_one_that_is_named_or_over_ipv4() {
    let plan = config("example:53 {\n acl {\n  block net ::1/128\n }\n whoami\n}\n").build(&process()).unwrap();
    let of = |server: &str, client: &str| {
        let server = (!server.is_empty()).then(|| server.parse().unwrap());
        let report = report(&plan, &Asked { server, ..asked("a.example.", "A", client) }, Instant::now());
        (report.question.client, report.question.server, report.rcode.unwrap())
    };
    let expected = |client: &str, server: &str, rcode: &str| (client.to_owned(), server.to_owned(), rcode.to_owned());
    assert_eq!(of("", ""), expected("127.0.0.1", "127.0.0.1:53", "NOERROR"), "most clients are of IPv4");
    assert_eq!(of("", "2001:db8::1"), expected("2001:db8::1", "[::1]:53", "NOERROR"));
    assert_eq!(of("169.254.20.10:53", ""), expected("127.0.0.1", "169.254.20.10:53", "NOERROR"));
    assert_eq!(of("[::1]:53", ""), expected("::1", "[::1]:53", "REFUSED"));
    assert_eq!(of("[::]:53", ""), expected("127.0.0.1", "127.0.0.1:53", "NOERROR"));
    let other_port = Asked { server: Some("127.0.0.1:54".parse().unwrap()), ..asked("a.example.", "A", "") };
    assert!(explain(&plan.listeners, &other_port, Instant::now()).is_err());
}

/// Answers one query for `a.example.` with an address that is good for ten seconds.
async fn answer_once(upstream: &tokio::net::UdpSocket) {
    let mut message = [0; 512];
    let (_, client) = upstream.recv_from(&mut message).await.unwrap();
    message[2] |= 0x80;
    message[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
    let question = 12 + "1a7example0".len() + 4;
    let record = [0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 192, 0, 2, 1];
    message[question..][..record.len()].copy_from_slice(&record);
    upstream.send_to(&message[..question + record.len()], client).await.unwrap();
}

#[tokio::test]
async fn a_stale_answer_is_said_to_cost_an_exchange_and_one_that_is_verified_to_be_at_hand() {
    for (mode, expected) in [("immediate", "answered from the cache, stale: "), ("verify", "asks 127.0.0.1:")] {
        let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        let block = format!("cache {{\n  serve_stale 1h {mode}\n }}\n forward . {address}");
        let plan = config(&format!("example:53 {{\n bind 127.0.0.1\n {block}\n}}\n")).build(&process()).unwrap();
        let asked = asked("a.example.", "A", "");
        let ask = super::super::ask(&plan.listeners, &asked, Duration::from_secs(60), ());
        let (answer, ()) = tokio::join!(ask, answer_once(&upstream));
        assert_eq!(answer.unwrap().rcode.as_deref(), Some("NOERROR"));
        let report = report(&plan, &asked, Instant::now() + Duration::from_secs(60));
        assert!(report.verdict.starts_with(expected) && report.asks_upstream, "{report:#?}");
        let else_stale = "; if no newer answer comes in time, the stale one of the cache is served";
        assert_eq!(report.verdict.ends_with(else_stale), mode == "verify", "{report:#?}");
    }
}

#[tokio::test]
async fn what_is_known_of_a_question_that_takes_too_long_is_told_and_it_is_asked_to_its_end() {
    let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let text = format!("example:53 {{\n bind 127.0.0.1\n prometheus\n forward . {address}\n}}\n");
    let process = process();
    let plan = config(&text).build(&process).unwrap();
    let (held, ended) = tokio::sync::oneshot::channel::<()>();
    let patience = Duration::from_millis(50);
    let report = super::super::ask(&plan.listeners, &asked("a.example.", "A", ""), patience, held).await.unwrap();
    assert_eq!(report.failure.as_deref(), Some("no answer within 0 s, it is still asked"));
    assert!(report.ms > 0.0 && report.rcode.is_none(), "{report:?}");
    assert!(report.steps.iter().any(|step| step.what == "forward" && step.ms.is_none()), "{report:?}");

    answer_once(&upstream).await;
    assert!(ended.await.is_err(), "it is dropped");
    let is_counted = |line: &str| line.starts_with("coredns_dns_responses_total") && line.contains("NOERROR");
    assert!(process.registry.encode().lines().any(is_counted));
}
