use super::{Dns64Config, parse};
use crate::chain::testing::{Question, build, configure, process, responder};
use crate::chain::{
    After, Answer, Chain, Course, Explanation, FastPath, Following, Handler, HitCounter, Next, Outcome, PacketAnswer,
    ProcessContext, Request,
};
use crate::message::{Query, Rcode, RecordType, Response, Section, TtlRule};
use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, Record, rdata};
use parking_lot::Mutex;
use std::any::Any;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What [`upstream`] knows of every name, by its first label: `v4` has an IPv4 address, `both` has both, `none`
/// nothing; `gone` is not there, `half` fails for AAAA, `fail` for both, and of `bare` there is no SOA record.
fn known(request: &Request<'_>) -> (Rcode, Vec<(Section, Record)>) {
    let name = request.query.name.to_string();
    let owner = Name::from_str(&name).unwrap();
    let record = |ttl, data| (Section::Answer, Record::from_rdata(owner.clone(), ttl, data));
    let v4 = || record(300, RData::A(rdata::A::new(192, 0, 2, 33)));
    let example = Name::from_str("example.").unwrap();
    let soa = RData::SOA(rdata::SOA::new(example.clone(), example.clone(), 1, 2, 3, 4, 60));
    let nothing = || vec![(Section::Authority, Record::from_rdata(example.clone(), 40, soa.clone()))];
    let is_v4 = request.query.qtype == RecordType::A;
    match name.split('.').next().unwrap_or_default() {
        "v4" | "both" | "half" | "bare" if is_v4 => (Rcode::NOERROR, vec![v4()]),
        "both" => (Rcode::NOERROR, vec![record(60, RData::AAAA(rdata::AAAA(Ipv6Addr::LOCALHOST)))]),
        "gone" => (Rcode::NXDOMAIN, nothing()),
        "half" | "fail" => (Rcode::SERVFAIL, vec![]),
        "bare" => (Rcode::NOERROR, vec![]),
        _ => (Rcode::NOERROR, nothing()),
    }
}

/// A handler that answers by [`known`], with RA.
fn upstream() -> Arc<dyn Handler> {
    responder("upstream", |request| Ok(answer(request)))
}

fn answer(request: &Request<'_>) -> Response {
    let (rcode, records) = known(request);
    let mut response = Response::from_records(request.query, request.wire, rcode, &records).unwrap();
    response.set_flag(0x0080, true);
    response
}

fn question(name: &str, qtype: RecordType, is_v6: bool) -> Question {
    let mut question = Question::new(name, qtype);
    if is_v6 {
        question.peer.client = (Ipv6Addr::LOCALHOST, 4000).into();
    }
    question
}

async fn asked(text: &str, name: &str, qtype: RecordType, is_v6: bool) -> String {
    let (block, said) = configure(parse, text);
    assert_eq!(said, "");
    let handler = build(&block, &process()).handler.unwrap();
    let question = question(name, qtype, is_v6);
    let chain = Arc::new(Chain { handlers: Box::new([handler, upstream()]) });
    let answer = chain.start().run(question.request()).await.unwrap();
    let records: Vec<String> = question
        .records(&answer)
        .iter()
        .map(|record| record.split(' ').skip(2).collect::<Vec<_>>().join(" "))
        .collect();
    let first = records.first().map(|first| format!(" {first}")).unwrap_or_default();
    format!("{} {}{first}", answer.from, answer.response.rcode())
}

#[tokio::test]
async fn addresses_are_made_for_names_that_have_but_ipv4_ones() {
    for (name, expected) in [
        ("v4.example.", "dns64 NOERROR 40 IN AAAA 64:ff9b::c000:221"),
        ("both.example.", "upstream NOERROR 60 IN AAAA ::1"),
        ("gone.example.", "upstream NXDOMAIN 40 IN SOA example. example. 1 2 3 4 60"),
        ("none.example.", "dns64 NOERROR 40 IN SOA example. example. 1 2 3 4 60"),
        ("half.example.", "dns64 NOERROR 300 IN AAAA 64:ff9b::c000:221"),
        ("bare.example.", "dns64 NOERROR 300 IN AAAA 64:ff9b::c000:221"),
        ("fail.example.", "dns64 SERVFAIL"),
    ] {
        assert_eq!(asked("dns64", name, RecordType::AAAA, true).await, expected, "{name}");
        assert_eq!(asked("dns64 {\n allow_ipv4\n}", name, RecordType::AAAA, false).await, expected, "{name}");
    }
    assert_eq!(
        asked("dns64", "v4.example.", RecordType::AAAA, false).await,
        "upstream NOERROR 40 IN SOA example. example. 1 2 3 4 60"
    );
    assert_eq!(asked("dns64", "v4.example.", RecordType::A, true).await, "upstream NOERROR 300 IN A 192.0.2.33");
    let all = "dns64 2001:db8:64::/96 {\n translate_all\n}";
    assert_eq!(
        asked(all, "both.example.", RecordType::AAAA, true).await,
        "dns64 NOERROR 300 IN AAAA 2001:db8:64::c000:221"
    );
}

/// [`upstream`] on both paths.
#[derive(Default)]
struct Quick {
    /// What follows its replies, to questions for AAAA and for A; `None`: it has none on the fast path.
    after: [Option<After>; 2],
    /// It shows its answers.
    shows: bool,
    /// What it was asked to count.
    counted: Mutex<Vec<(RecordType, u32)>>,
}

fn quick(v6: After, v4: Option<After>) -> Quick {
    Quick { after: [Some(v6), v4], ..Quick::default() }
}

impl Handler for Quick {
    fn keyword(&self) -> &'static str {
        "upstream"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let Some(after) = self.after[usize::from(request.query.qtype == RecordType::A)] else { return FastPath::Slow };
        answer(request).write(request.query, request.wire, request.reply(TtlRule::Keep), reply);
        FastPath::Answered(after)
    }
    fn show_fast(
        &self,
        request: &Request<'_>,
        qtype: RecordType,
        take: &mut dyn FnMut(&Response, u32) -> bool,
    ) -> Option<After> {
        let after = self.after[usize::from(qtype == RecordType::A)].filter(|_| self.shows)?;
        let query = Query { qtype, ..request.query.clone() };
        let answer = answer(&Request { query: &query, ..*request });
        let ttl = answer.records().next().map_or(0, |record| record.ttl);
        take(&answer, ttl).then_some(after)
    }
    fn hit_counter(&self, request: &Request<'_>, note: u32) -> Option<Arc<dyn HitCounter>> {
        self.counted.lock().push((request.query.qtype, note));
        None
    }
    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let response = answer(&request);
        Box::pin(async move { Ok(Answer { response, from: "upstream" }) })
    }
}

fn chain(text: &str, upstream: Arc<Quick>, process: &ProcessContext) -> Arc<Chain> {
    let handler = build(&configure(parse, text).0, process).handler.unwrap();
    Arc::new(Chain { handlers: Box::new([handler, upstream]) })
}

#[tokio::test]
async fn the_fast_path_makes_the_same_answers() {
    for text in ["dns64", "dns64 2001:db8:64::/96 {\n translate_all\n}"] {
        let names = ["v4", "both", "gone", "none", "half", "bare", "fail"];
        for (shows, name) in [false, true].into_iter().flat_map(|shows| names.map(|name| (shows, name))) {
            let upstream = Quick { shows, ..quick(After::Nothing, Some(After::Nothing)) };
            let chain = chain(text, Arc::new(upstream), &process());
            for opt in [&[][..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]] {
                let mut wire = question(&format!("{name}.example."), RecordType::AAAA, true).wire;
                wire[11] = u8::from(!opt.is_empty());
                let mut question = Question::from_wire([&wire, opt].concat());
                question.peer.client = (Ipv6Addr::LOCALHOST, 4000).into();
                let slow = chain.start().run(question.request()).await.unwrap();
                let mut fast = b"before".to_vec();
                let (said, place) = chain.serve_fast(&question.request(), &mut fast);
                assert_eq!(said, FastPath::Answered(After::Nothing), "{name}");
                assert_eq!(["dns64", "upstream"][place], slow.from, "{name}");
                let read = |reply: &[u8]| Message::from_vec(reply).unwrap();
                assert_eq!(read(&fast[6..]), read(&question.reply(&slow)), "{text}: {name}");
            }
        }
    }
}

#[test]
fn what_follows_an_answer_is_what_follows_both_that_it_is_made_of() {
    let packet = |millis, note| After::CachePacket { millis, note };
    let said = |v6, v4| {
        let question = question("v4.example.", RecordType::AAAA, true);
        let ask = |shows| {
            let mut written = b"before".to_vec();
            let upstream = Arc::new(Quick { shows, ..quick(v6, v4) });
            let (said, _) = chain("dns64", upstream, &process()).serve_fast(&question.request(), &mut written);
            (said, written.len() > 6)
        };
        assert_eq!(ask(false), ask(true), "{v6:?} {v4:?}");
        ask(true)
    };
    for (v6, v4, expected) in [
        (After::Nothing, packet(9, 0), After::Nothing),
        (After::Refresh, packet(9, 0), After::Refresh),
        (packet(9, 0), After::Refresh, After::Refresh),
        (packet(500, 1), packet(300, 2), packet(300, 0x0101_0102)),
        (packet(500, 256), packet(300, 2), After::Nothing),
    ] {
        assert_eq!(said(v6, Some(v4)), (FastPath::Answered(expected), true), "{v6:?} {v4:?}");
    }
    assert_eq!(said(packet(9, 0), None), (FastPath::Slow, false));
    assert_eq!(said(After::Refresh, None), (FastPath::SlowAndRefresh, false));
}

#[test]
fn a_packet_counts_for_both_answers_that_it_is_made_of_and_as_translated() {
    let (upstream, process) = (Arc::new(Quick::default()), process());
    let chain = chain("dns64", upstream.clone(), &process);
    let question = question("v4.example.", RecordType::AAAA, true);
    let counters = chain.hit_counters(&question.request(), PacketAnswer { position: 0, note: 0x0107_0103 });
    assert_eq!(*upstream.counted.lock(), [(RecordType::AAAA, 7), (RecordType::A, 3)]);
    counters.iter().for_each(|counter| counter.count(1, 1, Duration::ZERO));
    let text = process.registry.encode();
    assert!(text.contains("coredns_dns64_requests_translated_total{server=\"dns://127.0.0.1:53\"} 1\n"), "{text}");
    // One that it has handed on counts where it was given.
    let counters = chain.hit_counters(&question.request(), PacketAnswer { position: 1, note: 5 });
    assert_eq!((counters.len(), upstream.counted.lock().pop()), (0, Some((RecordType::AAAA, 5))));
}

#[test]
fn only_what_concerns_it_passes_through_it() {
    let handler = |text: &str| build(&configure(parse, text).0, &process()).handler.unwrap();
    let path = |text: &str, qtype, is_v6| question("v4.example.", qtype, is_v6).ask_quickly(&*handler(text)).0;
    assert_eq!(path("dns64", RecordType::AAAA, true), FastPath::Through);
    assert_eq!(path("dns64", RecordType::AAAA, false), FastPath::Pass);
    assert_eq!(path("dns64", RecordType::A, true), FastPath::Pass);
    assert_eq!(path("dns64 {\n translate_all\n}", RecordType::AAAA, true), FastPath::Through);
}

#[test]
fn options_are_read_and_what_is_wrong_is_told() {
    let config = |text: &str| {
        let (block, said) = configure(parse, text);
        let configured: &dyn Any = &*block.parts[0].configured;
        (configured.downcast_ref::<Dns64Config>().unwrap().clone(), said)
    };
    let (read, said) = config("dns64 64:ff9b:1::/48 {\n translate_all\n allow_ipv4\n}");
    assert_eq!((read.translate_all, read.allow_ipv4, said.as_str()), (true, true, ""));
    let (read, said) = config("dns64 {\n allow_ipv4\n}\ndns64 {\n translate_all\n}");
    assert!(read.translate_all && read.allow_ipv4 && said.contains("warning: `dns64` stands twice"), "{said}");
    for (text, expected) in [
        ("dns64 64:ff9b::/96 x", "error: `dns64` takes one prefix"),
        ("dns64 10.0.0.0/8", "error: `10.0.0.0/8` is no prefix of dns64: it is no IPv6 network"),
        ("dns64 {\n prefix 64:ff9b::/95\n}", "error: `64:ff9b::/95` is no prefix of dns64: its length"),
        ("dns64 {\n prefix\n}", "error: `prefix` of `dns64` has no value"),
        ("dns64 {\n translate_al\n}", "error: unknown option `translate_al`"),
        ("dns64 {\n allow_ipv4 yes\n}", "warning: `yes` is ignored"),
    ] {
        let (_, said) = configure(parse, text);
        assert!(said.contains(expected), "{text}: {said}");
    }
}
