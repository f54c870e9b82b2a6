//! The rules as written, in a chain that answers on both paths.

use super::parse;
use crate::chain::testing::{Question, build, configure};
use crate::chain::{
    After, Answer, Chain, Course, Explanation, Failure, FastPath, Following, Handler, Next, Outcome, PacketAnswer,
    ProcessContext, Purpose, Request,
};
use crate::message::{Name, Rcode, RecordType, Response, Section, TtlRule};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::{A, CNAME, MX, SOA};
use hickory_proto::rr::{RData, Record};
use parking_lot::Mutex;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// Answers every name below `example.`, and fails for the others; remembers what it was asked.
#[derive(Default)]
struct Example {
    asked: Mutex<Vec<String>>,
}

impl Example {
    fn response(request: &Request<'_>) -> Option<Response> {
        let query = request.query;
        if !query.name.is_within(b"\x07example\0") {
            return None;
        }
        let name = query.name.to_name().to_hickory().ok()?;
        let below = |label: &str| hickory_proto::rr::Name::from_ascii(label).ok()?.append_domain(&name).ok();
        let mut records = Vec::new();
        let mut put = |section, owner: &hickory_proto::rr::Name, ttl, data| {
            records.push((section, Record::from_rdata(owner.clone(), ttl, data)));
        };
        if query.name.to_string().starts_with("none.") {
            let soa = SOA::new(below("ns")?, below("host")?, 1, 2, 3, 4, 60);
            put(Section::Authority, &name, 60, RData::SOA(soa));
            return Response::from_records(query, request.wire, Rcode::NXDOMAIN, &records).ok();
        }
        if query.name.to_string().starts_with("many.") {
            (0..30).for_each(|last| put(Section::Answer, &name, 60, RData::A(A::new(192, 0, 2, last))));
            return Response::from_records(query, request.wire, Rcode::NOERROR, &records).ok();
        }
        match query.qtype {
            RecordType(15) => {
                put(Section::Answer, &name, 60, RData::MX(MX::new(10, below("mail")?)));
                put(Section::Additional, &below("mail")?, 60, RData::A(A::new(192, 0, 2, 25)));
            }
            _ => {
                put(Section::Answer, &name, 30, RData::CNAME(CNAME(below("real")?)));
                put(Section::Answer, &below("real")?, 60, RData::A(A::new(192, 0, 2, 1)));
            }
        }
        Response::from_records(query, request.wire, Rcode::NOERROR, &records).ok()
    }
}

impl Handler for Example {
    fn keyword(&self) -> &'static str {
        "example"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let Some(response) = Self::response(request) else { return FastPath::Slow };
        response.write(request.query, request.wire, request.reply(TtlRule::Keep), reply);
        FastPath::Answered(After::CachePacket { millis: 500, note: 0 })
    }
    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let options: Vec<String> =
            request.options.iter().flat_map(|options| options.iter()).map(|(c, d)| format!("{c}={d:?}")).collect();
        let subnet = request.client_subnet.map(|subnet| format!("{:?}", subnet.asked));
        let query = request.query;
        let edns = if query.edns.is_some() { " edns" } else { "" };
        self.asked.lock().push(format!("{} {} {}{edns} {options:?} {subnet:?}", query.name, query.qclass, query.qtype));
        let outcome = match Self::response(&request) {
            Some(response) => Ok(Answer { response, from: "example" }),
            None => Err(Failure::servfail("example", "not mine")),
        };
        Box::pin(async move { outcome })
    }
}

struct Scene {
    process: ProcessContext,
    chain: Arc<Chain>,
    example: Arc<Example>,
}

impl Scene {
    fn new(rules: &str) -> Self {
        let (block, said) = configure(parse, rules);
        assert!(!said.contains("error"), "{said}");
        let process = ProcessContext::new(1, 0);
        let handler = build(&block, &process).handler.unwrap();
        let example = Arc::new(Example::default());
        Self { process, chain: Arc::new(Chain { handlers: Box::new([handler, example.clone()]) }), example }
    }

    /// The reply of the slow path, and that of the fast one if it gives any: both say the same.
    fn reply(&self, question: &Question) -> Vec<u8> {
        let mut slow = Vec::new();
        let request = question.request();
        match self.chain.start().run(request).now_or_never().expect("it answers at once") {
            Ok(answer) => request.write(&answer.response, &mut slow),
            Err(failure) => request.write(&Response::empty(&question.query, &question.wire, failure.rcode), &mut slow),
        }
        let mut fast = b"before".to_vec();
        let (said, _) = self.chain.serve_fast(&request, &mut fast);
        match said {
            FastPath::Answered(after) => {
                assert_eq!(after, After::CachePacket { millis: 500, note: 0 });
                assert_eq!(describe(&fast[6..]), describe(&slow));
                assert_eq!(fast[6..12], slow[..6]);
            }
            _ => assert_eq!(fast, b"before"),
        }
        slow
    }

    fn ask(&self, name: &str, qtype: RecordType) -> String {
        describe(&self.reply(&Question::new(name, qtype)))
    }

    /// How many requests have counted as rewritten.
    fn rewritten(&self) -> u64 {
        self.process.registry.counters_by("nodelocaldns_rewrite_requests_total", &[]).values().sum()
    }

    /// Whether the fast path answers.
    fn is_fast(&self, name: &str) -> bool {
        let question = Question::new(name, RecordType::A);
        matches!(self.chain.serve_fast(&question.request(), &mut Vec::new()).0, FastPath::Answered(_))
    }
}

/// Code, question and records, and whether there were more.
fn describe(reply: &[u8]) -> String {
    let message = Message::from_vec(reply).unwrap();
    let question = &message.queries[0];
    let records: Vec<String> = message.all_sections().map(|record| record.to_string()).collect();
    format!(
        "{} {} {} {}: {}{}",
        message.metadata.response_code,
        question.name(),
        question.query_class(),
        question.query_type(),
        records.join("; "),
        if message.metadata.truncation { " TC" } else { "" }
    )
}

#[test]
fn an_exact_name_is_rewritten_and_written_back_in_the_clients_spelling() {
    let scene = Scene::new("rewrite name old.test app.example");
    let expected = "No Error OLD.Test. IN A: OLD.Test. 30 IN CNAME real.OLD.Test.; real.OLD.Test. 60 IN A 192.0.2.1";
    assert_eq!(scene.ask("OLD.Test.", RecordType::A).to_lowercase(), expected.to_lowercase());
    assert!(scene.ask("OLD.Test.", RecordType::A).starts_with("No Error OLD.Test. IN A:"));
    assert!(scene.is_fast("old.test.") && scene.is_fast("app.example.") && !scene.is_fast("x.old.test."));
    assert_eq!(scene.example.asked.lock()[0], "app.example. IN A [] None");
}

#[test]
fn a_rule_for_the_type_or_class_alone_leaves_the_records_and_keeps_the_question() {
    let scene = Scene::new("rewrite continue type ANY MX\nrewrite class CH IN");
    assert!(scene.ask("a.example.", RecordType::ANY).starts_with("No Error a.example. IN ANY: a.example. 60 IN MX 10"));
    assert_eq!(scene.example.asked.lock()[0], "a.example. IN MX [] None");
    assert!(scene.is_fast("a.example."));
}

#[test]
fn ttl_and_code_of_the_answer_are_changed_on_both_paths() {
    let scene = Scene::new("rewrite continue ttl suffix .example 40-50\nrewrite rcode regex ^none\\. NXDOMAIN REFUSED");
    let said = scene.ask("a.example.", RecordType::A);
    assert!(said.contains("a.example. 40 IN CNAME") && said.contains("real.a.example. 50 IN A"), "{said}");
    assert!(scene.ask("none.example.", RecordType::A).starts_with("Query Refused"));
    assert!(scene.is_fast("none.example."));
    // The code of an answer that nobody gave too.
    let failing = Scene::new("rewrite rcode regex . SERVFAIL NXDOMAIN");
    assert!(failing.ask("a.test.", RecordType::A).starts_with("Non-Existent Domain a.test. IN A:"));
}

#[test]
fn an_answer_that_fits_under_the_clients_name_is_whole_on_both_paths_however_long_the_name_behind() {
    let scene = Scene::new(&format!("rewrite name suffix .test .{}.example answer auto", "x".repeat(63)));
    let said = scene.ask("many.test.", RecordType::A);
    assert!(scene.is_fast("many.test."));
    assert_eq!(said.matches("many.test. 60 IN A").count(), 30, "{said}");
    // One octet more than the client takes.
    let longer = scene.reply(&Question::new("many.xxxxx.test.", RecordType::A));
    assert!(scene.is_fast("many.xxxxx.test.") && longer.len() <= 512 && longer[2] & 2 != 0, "{}", describe(&longer));
}

#[test]
fn a_rewritten_name_that_is_none_is_servfail() {
    let scene = Scene::new(&format!("rewrite name suffix .corp .{}.example", "x".repeat(64)));
    assert!(scene.ask("a.corp.", RecordType::A).starts_with("Server Failure a.corp. IN A"));
    assert!(scene.example.asked.lock().is_empty());
    let long = Scene::new("rewrite name suffix .b .example.example.example");
    let name = format!("{0}.{0}.{0}.{1}.b.", "x".repeat(63), "y".repeat(40));
    assert!(long.ask(&name, RecordType::A).starts_with("Server Failure"));
}

#[test]
fn options_for_the_upstream_go_with_the_request_and_take_the_slow_path() {
    let scene = Scene::new(
        "rewrite continue edns0 local set 0xffee 0x6162\nrewrite continue edns0 local append 65517 {qtype}\n\
         rewrite continue edns0 local replace 65516 z\nrewrite continue edns0 nsid set revert\nrewrite edns0 subnet set 24 56",
    );
    assert!(!scene.is_fast("a.example."));
    scene.ask("a.example.", RecordType::A);
    let subnet = "Some(\"ClientSubnet { family: 1, prefix: 24, address: [10, 240, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }\")";
    assert_eq!(
        scene.example.asked.lock()[0],
        format!("a.example. IN A edns [\"65518=[97, 98]\", \"65517=[0, 1]\", \"3=[]\"] {subnet}")
    );
}

#[test]
fn a_clients_own_option_is_kept_by_append_changed_by_replace_and_taken_by_unset() {
    let mut wire = Question::new("a.example.", RecordType::A).wire;
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 15]);
    wire.extend_from_slice(&[0xff, 0xee, 0, 1, 1, 0xff, 0xed, 0, 1, 2, 0xff, 0xec, 0, 1, 3]);
    let rules = |operation: &str| Scene::new(&format!("rewrite edns0 local {operation}"));
    for (operation, options) in [
        ("append 0xffee 9", "[\"65518=[1]\"]"),
        ("replace 0xffed 9", "[\"65517=[57]\"]"),
        ("unset 0xffec", "[]"),
        ("replace 0xff00 9", "[]"),
    ] {
        let scene = rules(operation);
        scene.reply(&Question::from_wire(wire.clone()));
        assert_eq!(scene.example.asked.lock()[0], format!("a.example. IN A edns {options} None"), "{operation}");
    }
}

#[test]
fn what_an_upstream_is_sent_is_bounded_whatever_the_client_and_the_rules_say() {
    let rules: String = (0..40)
        .map(|index| format!("rewrite continue edns0 local set {} {}\n", 65000 + index, "x".repeat(60)))
        .collect();
    let scene = Scene::new(&rules);
    scene.ask("a.example.", RecordType::A);
    let options = scene.example.asked.lock()[0].matches('=').count();
    assert_eq!(options, 512 / 64);
}

#[test]
fn everything_of_the_reference_is_taken() {
    for text in [
        "rewrite stop {\n name regex (.*)\\.in\\.example {1}.example\n answer name (.*)\\.example {1}.in.example\n value a b\n}",
        "rewrite continue {\n ttl regex (.*)\\.coredns\\.rocks 15\n}",
        "rewrite CONTINUE TTL example.com. 30-300\nrewrite ttl example.com -30\nrewrite ttl example.com 30-",
        "rewrite rcode regex (.*) 2 0\nrewrite rcode exact a ServFail badcookie",
        "rewrite cname exact a b\nrewrite cname regex (.*)\\.cdn\\. {1}.other.",
        "rewrite edns0 nsid unset\nrewrite edns0 subnet unset\nrewrite edns0 local unset 0xffee",
        "rewrite edns0 local set 0xffee {client_ip} revert\nrewrite edns0 subnet set 24 56 revert",
        "rewrite name prefix a b answer auto\nrewrite name substring a b answer value c d name e f",
    ] {
        let (block, said) = configure(parse, text);
        assert_eq!((block.parts.len(), said.as_str()), (1, ""), "{text}");
    }
}

#[test]
fn what_is_malformed_is_told_with_its_place_and_the_right_form() {
    for (text, place, expected) in [
        ("rewrite", "2:1", "without a rule"),
        ("rewrite stop", "2:1", "without a rule"),
        ("rewrite nam a b", "2:9", "did you mean `name`?"),
        ("rewrite answer name a b", "2:9", "without a `name` rule"),
        ("rewrite name a", "2:14", "takes two or more words"),
        ("rewrite name sufix a b", "2:14", "did you mean `suffix`?"),
        ("rewrite name suffix a b answer", "2:25", "`answer` without"),
        ("rewrite name suffix a b auto", "2:25", "`auto` stands after the rule"),
        ("rewrite name suffix a b answer x", "2:32", "knows no `x`"),
        ("rewrite name suffix a b answer name x", "2:32", "a pattern and a replacement"),
        ("rewrite name prefix a b answer auto name c d", "2:37", "in one rule"),
        ("rewrite name regex (a b", "2:20", "no regular expression"),
        ("rewrite name regex a {1}", "2:22", "more groups"),
        ("rewrite name prefix a b answer value (c d", "2:38", "no regular expression"),
        ("rewrite type A", "2:14", "takes two words"),
        ("rewrite type A B", "2:16", "`B` is no record type"),
        ("rewrite class IN XX", "2:18", "`XX` is no class"),
        ("rewrite ttl a 30-20", "2:15", "neither seconds nor a range"),
        ("rewrite ttl a -", "2:15", "neither seconds nor a range"),
        ("rewrite ttl a +5", "2:15", "neither seconds nor a range"),
        ("rewrite ttl a", "2:13", "two or three words"),
        ("rewrite rcode a SERVFAIL", "2:17", "three or four words"),
        ("rewrite rcode a 24 0", "2:17", "`24` is no response code"),
        ("rewrite cname a", "2:15", "two or three words"),
        ("rewrite cname sideways a b", "2:15", "no way to match"),
        ("rewrite edns0 local", "2:15", "two or more words"),
        ("rewrite edns0 local put 1 2", "2:21", "knows no `put`"),
        ("rewrite edns0 cookie set 1 2", "2:15", "no option `cookie`"),
        ("rewrite edns0 local set 65536 a", "2:25", "no option code"),
        ("rewrite edns0 local set 1 0xabc", "2:27", "hexadecimal"),
        ("rewrite edns0 local set 1 {nothing}", "2:27", "no variable"),
        ("rewrite edns0 local set 1", "2:25", "another number of words"),
        ("rewrite edns0 subnet set 33 56", "2:26", "0 to 32"),
        ("rewrite edns0 subnet set 24 129", "2:29", "0 to 128"),
        ("rewrite edns0 nsid set x", "2:24", "another number of words"),
        ("rewrite name a b {\n name c d\n}", "3:2", "a rule on the line"),
        ("rewrite {\n name a b {\n x\n }\n}", "4:2", "a block within"),
    ] {
        let (block, said) = configure(parse, text);
        assert!(said.contains(&format!("Corefile:{place}: error")) && said.contains(expected), "{text}: {said}");
        assert!(said.contains("help:") && block.parts.is_empty(), "{text}: {said}");
    }
}

#[test]
fn what_has_another_effect_than_it_seems_is_a_warning() {
    for (text, place, expected) in [
        (r"rewrite name regex (.*)\.a {2}.b", "2:28", "`{2}` is text"),
        ("rewrite name a..b c", "2:14", "no name is it"),
        ("rewrite name a b..c", "2:16", "answered SERVFAIL"),
        ("rewrite name suffix a b answer name auto answer value c d", "2:37", "names that match `auto`"),
        ("rewrite edns0 local set 1 {some/label}", "2:27", "does nothing"),
        ("rewrite cname suffix .a .b", "2:22", "ends in a dot"),
    ] {
        let said = configure(parse, text).1;
        assert!(said.contains(&format!("Corefile:{place}: warning")) && said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn numbers_of_options_are_read_as_go_reads_them() {
    for (text, number) in [("0", 0), ("65535", 65535), ("0xFFEE", 65518), ("0o17", 15), ("017", 15), ("0b11", 3)] {
        assert!(configure(parse, &format!("rewrite edns0 local unset {text}")).1.is_empty(), "{text} is {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_rules_both_paths_say_the_same(
        rules in prop::collection::vec(0_usize..12, 1..4),
        name in "(old|none|[a-c]{1,3})(\\.[a-c]{1,2}){0,2}\\.(example|corp|test)\\.",
        qtype in prop::sample::select(vec![1_u16, 15, 28, 255]),
    ) {
        const RULES: [&str; 12] = [
            "name suffix .corp .example answer auto",
            "name suffix .test .example",
            "name suffix est. xample. answer auto",
            "name prefix old a answer auto",
            "name substring c d answer auto",
            r"name regex ^(.*)\.test\.$ {1}.x.example answer name (.*)\.x\.example\. {1}.test value (.*)\.example {1}.b.c",
            "type ANY MX",
            "ttl suffix .example 10",
            "rcode suffix .example NXDOMAIN NOERROR",
            "name a.corp b.example",
            r"name regex (a+)\..* {1}.{1}.example answer auto",
            "name substring .a. .b.example.c. answer auto",
        ];
        let text: String = rules.iter().map(|index| format!("rewrite continue {}\n", RULES[*index])).collect();
        let scene = Scene::new(&text);
        let reply = scene.reply(&Question::new(&name, RecordType(qtype)));
        let question = Name::read(&reply, 12).unwrap().0;
        prop_assert_eq!(question, Name::parse(&name).unwrap());
    }
}

#[test]
fn a_request_that_a_rule_has_changed_counts_whoever_answers_it() {
    let scene = Scene::new("rewrite name old.example new.example");
    let old = Question::new("old.example.", RecordType::A);
    let other = Question::new("other.example.", RecordType::A);
    scene.chain.serve_fast(&other.request(), &mut Vec::new());
    scene.chain.start().run(other.request()).now_or_never().expect("it answers at once").unwrap();
    assert_eq!(scene.rewritten(), 0);
    scene.chain.serve_fast(&old.request(), &mut Vec::new());
    assert_eq!(scene.rewritten(), 1);
    scene.chain.start().run(old.request()).now_or_never().expect("it answers at once").unwrap();
    assert_eq!(scene.rewritten(), 2);
    let refresh = Request { purpose: Purpose::Refresh, ..old.request() };
    scene.chain.start().run(refresh).now_or_never().expect("it answers at once").unwrap();
    assert_eq!(scene.rewritten(), 2, "nobody has asked");
    let packet = PacketAnswer { position: 1, note: 0 };
    for counter in scene.chain.hit_counters(&old.request(), packet) {
        counter.count(0, 0, Duration::ZERO);
    }
    assert_eq!(scene.rewritten(), 3);

    let scene = Scene::new("rewrite cname exact nowhere.test elsewhere.test");
    scene.chain.start().run(other.request()).now_or_never().expect("it answers at once").unwrap();
    assert_eq!(scene.rewritten(), 0, "no alias leads to the rule's name");
}
