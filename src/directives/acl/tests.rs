//! Whom the directive answers, and how, on both paths.

use super::parse;
use crate::chain::testing::{Question, build, configure};
use crate::chain::{
    After, Answer, Chain, Course, Explanation, FastPath, Following, Handler, Next, Outcome, ProcessContext, Request,
};
use crate::message::{Rcode, RecordType, Response, TtlRule};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Answers NXDOMAIN on both paths.
struct Nobody;

impl Handler for Nobody {
    fn keyword(&self) -> &'static str {
        "nobody"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let response = Response::empty(request.query, request.wire, Rcode::NXDOMAIN);
        response.write(request.query, request.wire, request.reply(TtlRule::Keep), reply);
        FastPath::Answered(After::CachePacket { millis: 100, note: 0 })
    }
    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let response = Response::empty(request.query, request.wire, Rcode::NXDOMAIN);
        Box::pin(async move { Ok(Answer { response, from: "nobody" }) })
    }
}

struct Scene {
    chain: Arc<Chain>,
    process: ProcessContext,
}

impl Scene {
    fn new(text: &str) -> Self {
        let process = ProcessContext::new(1, 0);
        let (block, said) = configure(parse, text);
        assert_eq!(said, "");
        let handler = build(&block, &process).handler.unwrap();
        Self { chain: Arc::new(Chain { handlers: Box::new([handler, Arc::new(Nobody)]) }), process }
    }

    /// The code that this client is given on both paths; `None` if nothing.
    fn ask(&self, client: &str, name: &str, qtype: RecordType) -> Option<Rcode> {
        let mut question = Question::new(name, qtype);
        question.peer.client.set_ip(client.parse().unwrap());
        let mut reply = Vec::new();
        let (said, _) = self.chain.serve_fast(&question.request(), &mut reply);
        let fast = (said != FastPath::Silent).then(|| Rcode(u16::from(reply[3] & 0x0f)));
        let slow = match self.chain.start().run(question.request()).now_or_never().unwrap() {
            Ok(answer) => Some(answer.response.rcode()),
            Err(failure) => {
                assert!(failure.is_silence());
                None
            }
        };
        assert_eq!(fast, slow);
        fast
    }
}

#[test]
fn the_first_policy_that_is_for_client_and_type_decides() {
    let scene = Scene::new(
        "acl {\n allow net 192.0.2.64/26\n block type A net 192.0.2.0/24\n filter type AAAA\n drop net 2001:db8::/32\n}",
    );
    for (client, qtype, expected) in [
        ("192.0.2.65", RecordType::A, Some(Rcode::NXDOMAIN)),
        ("192.0.2.1", RecordType::A, Some(Rcode::REFUSED)),
        ("::ffff:192.0.2.1", RecordType::A, Some(Rcode::REFUSED)),
        ("192.0.2.1", RecordType::AAAA, Some(Rcode::NOERROR)),
        ("192.0.2.1", RecordType::TXT, Some(Rcode::NXDOMAIN)),
        ("2001:db8::1", RecordType::A, None),
        ("2001:db9::1", RecordType::A, Some(Rcode::NXDOMAIN)),
    ] {
        assert_eq!(scene.ask(client, "a.example.", qtype), expected, "{client} {qtype}");
    }
    let text = scene.process.registry.encode();
    // Each was asked on both paths.
    for line in [
        "coredns_acl_blocked_requests_total{server=\"dns://127.0.0.1:53\",view=\"\",zone=\".\"} 4",
        "coredns_acl_filtered_requests_total{server=\"dns://127.0.0.1:53\",view=\"\",zone=\".\"} 2",
        "coredns_acl_dropped_requests_total{server=\"dns://127.0.0.1:53\",view=\"\",zone=\".\"} 2",
        "coredns_acl_allowed_requests_total{server=\"dns://127.0.0.1:53\",view=\"\"} 6",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn each_acl_is_for_its_zones_and_the_next_is_asked_where_it_says_nothing() {
    let scene = Scene::new("acl a.example b.example {\n block net 192.0.2.0/24\n}\nacl example {\n filter type A\n}");
    assert_eq!(scene.ask("192.0.2.1", "x.a.example.", RecordType::A), Some(Rcode::REFUSED));
    assert_eq!(scene.ask("192.0.3.1", "x.a.example.", RecordType::A), Some(Rcode::NOERROR));
    assert_eq!(scene.ask("192.0.2.1", "x.example.", RecordType::A), Some(Rcode::NOERROR));
    assert_eq!(scene.ask("192.0.2.1", "x.test.", RecordType::A), Some(Rcode::NXDOMAIN));
}

#[test]
fn a_client_with_edns_is_told_why() {
    let scene = Scene::new("acl {\n block\n}");
    let mut wire = Question::new("a.example.", RecordType::A).wire;
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let mut reply = Vec::new();
    let (said, place) = scene.chain.serve_fast(&Question::from_wire(wire).request(), &mut reply);
    assert_eq!((said, place), (FastPath::Answered(After::Nothing), 0));
    assert!(reply.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2, 0, 15]), "{reply:?}");
}

#[test]
fn clients_are_told_apart_by_the_networks_of_all_rules() {
    let count = |text: &str| Scene::new(text).chain.handlers[0].client_networks().len();
    assert_eq!(count("acl {\n block net 192.0.2.0/24 2001:db8::/32\n allow\n}\nacl {\n filter net ::/0\n}"), 2);
    assert_eq!(count("acl {\n block type ANY\n filter net *\n}"), 0);
}
