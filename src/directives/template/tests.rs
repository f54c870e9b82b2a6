//! What the conformance cases do not show: diagnostics, the fast path, limits.

use super::parse;
use crate::chain::testing::{Question, build, configure, process};
use crate::chain::{After, Answer, Failure, FastPath, Handler, ProcessContext, Spans};
use crate::message::{Name, Query, Rcode, RecordType};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The block's handler; its diagnostics must be these.
fn handler_with(process: &ProcessContext, directives: &str, says: &str) -> Arc<dyn Handler> {
    let (block, said) = configure(parse, directives);
    assert!(if says.is_empty() { said.is_empty() } else { said.contains(says) }, "{said}");
    build(&block, process).handler.unwrap()
}

fn handler(process: &ProcessContext, directives: &str) -> Arc<dyn Handler> {
    handler_with(process, directives, "")
}

async fn ask(handler: &Arc<dyn Handler>, name: &str, qtype: RecordType) -> Result<(Rcode, Vec<String>), Failure> {
    let question = Question::new(name, qtype);
    question.ask(handler).await.map(|answer: Answer| (answer.response.rcode(), question.records(&answer)))
}

#[tokio::test]
async fn the_first_template_that_is_for_a_query_answers_it() {
    let process = process();
    let handler = handler(
        &process,
        r#"template IN A example {
          match "^ip-([0-9]+)[.]" "^(?P<n>[a-z]+)[.]example"
          answer "{{ .Name }} 5 IN A 192.0.2.{{ index .Match 1 }}"
          fallthrough b.example
        }
        template ANY TXT example. other.test {
          answer "{{ .Name }} 5 IN TXT {{ .Zone }}" "{{ .Name }} 5 IN TXT {{ .Type }}"
          authority "{{ .Zone }} 6 IN NS ns.{{ .Zone }}"
          additional "ns.{{ .Zone }} 7 IN A 192.0.2.9"
        }"#,
    );
    let answered = |record: &str| (Rcode::NOERROR, vec![record.to_owned()]);
    let a = RecordType::A;
    assert_eq!(ask(&handler, "ip-7.example.", a).await.unwrap(), answered("answer ip-7.example. 5 IN A 192.0.2.7"));
    // Not a record, since the second pattern has letters.
    assert!(ask(&handler, "letters.example.", a).await.is_err());
    // No pattern: refused, or handed on.
    assert_eq!(ask(&handler, "0.example.", a).await.unwrap(), (Rcode::SERVFAIL, vec![]));
    assert_eq!(ask(&handler, "0.b.example.", a).await.unwrap(), (Rcode::REFUSED, vec![]));
    assert_eq!(ask(&handler, "ip-7.test.", a).await.unwrap().0, Rcode::REFUSED);
    let (rcode, records) = ask(&handler, "X.other.test.", RecordType::TXT).await.unwrap();
    assert_eq!(rcode, Rcode::NOERROR);
    assert_eq!(
        records,
        [
            "answer X.other.test. 5 IN TXT other.test.",
            "answer X.other.test. 5 IN TXT TXT",
            "authority other.test. 6 IN NS ns.other.test.",
            "additional ns.other.test. 7 IN A 192.0.2.9"
        ]
    );
}

#[tokio::test]
async fn what_is_the_same_for_all_names_is_answered_on_the_fast_path_once_it_has_been_counted() {
    let process = process();
    let handler = handler(
        &process,
        r#"template IN AAAA example {
          rcode NXDOMAIN
          authority "{{ .Zone }} 60 {{ .Class }} SOA ns.{{ .Zone }} host.{{ .Zone }} (1 2 3 4 5)"
          ederror 15 "no IPv6"
        }
        template IN ANY example {
          match ^block
          rcode REFUSED
          fallthrough
        }"#,
    );
    let question = Question::new("Some.Example.", RecordType::AAAA);
    assert_eq!(question.ask_quickly(&*handler), (FastPath::Slow, vec![]));
    let slow = question.ask(&handler).await.unwrap();
    let (said, reply) = question.ask_quickly(&*handler);
    assert_eq!(said, FastPath::Answered(After::CachePacket { millis: 60_000, note: 0 }));
    assert!(reply[12..].starts_with(question.query.question(&question.wire)));
    let read = |octets: &[u8]| {
        let message = hickory_proto::op::Message::from_vec(octets).unwrap();
        (message.metadata.response_code, message.authorities.clone(), message.answers.len(), message.additionals.len())
    };
    assert_eq!(read(&reply), read(&question.reply(&slow)));
    // What the packet cache answers is counted too.
    let counter = handler.hit_counter(&question.request(), 0).unwrap();
    counter.count(1, 1, Duration::ZERO);
    let text = process.registry.encode();
    let labels = r#"class="IN",server="dns://127.0.0.1:53",type="AAAA",view="",zone="example.""#;
    assert!(text.contains(&format!("coredns_template_matches_total{{{labels}}} 3\n")), "{text}");

    for (name, expected) in [("example.", true), ("test.", false)] {
        let said = Question::new(name, RecordType::AAAA).ask_quickly(&*handler).0;
        assert_eq!(said != FastPath::Pass, expected, "{name}");
    }
    // A pattern is looked at on the fast path; what it does not match is handed on.
    let blocked = Question::new("block.example.", RecordType::A);
    blocked.ask(&handler).await.unwrap();
    assert!(matches!(blocked.ask_quickly(&*handler).0, FastPath::Answered(After::CachePacket { note: 1, .. })));
    assert_eq!(Question::new("fine.example.", RecordType::A).ask_quickly(&*handler).0, FastPath::Pass);
    // A question for any type is for the first of them; another class is never the same.
    let any = Question::new("block.example.", RecordType::ANY).ask_quickly(&*handler).0;
    assert!(matches!(any, FastPath::Answered(After::CachePacket { note: 0, .. })), "{any:?}");
    let mut wire = Query::compose(1, Name::parse("x.example.").unwrap().as_wire(), RecordType::AAAA, true);
    *wire.last_mut().unwrap() = 255;
    assert_eq!(Question::from_wire(wire).ask_quickly(&*handler).0, FastPath::Slow);
}

#[test]
fn what_depends_on_the_query_takes_the_slow_path() {
    for options in [
        r#"answer "{{ .Name }} 5 IN A 192.0.2.1""#,
        r#"answer "x. 5 IN A {{ .Remote }}""#,
        r#"answer "x. 5 IN CNAME y.""#,
        "rcode SERVFAIL",
        "rcode BADVERS",
    ] {
        let handler = handler(&process(), &format!("template IN A {{\n{options}\n}}"));
        let question = Question::new("a.example.", RecordType::A);
        futures_util::FutureExt::now_or_never(question.ask(&handler)).unwrap().ok();
        assert_eq!(question.ask_quickly(&*handler).0, FastPath::Slow, "{options}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_made_is_servfail_with_the_reason_and_counted() {
    let process = process();
    let handler = handler(
        &process,
        r#"template IN A index {
          answer "{{ .Name }} 60 IN A {{ index .Match 5 }}"
        }
        template IN A text {
          additional "{{ .Name }} 60 IN A {{ .Zone }}"
        }
        template IN A endless {
          answer "{{ .Name }} 60 IN TXT {{ range 9999999 }}x{{ end }}"
        }"#,
    );
    for (name, says) in [
        ("index.", "the template fails at octet 24: index: the index 5 is out of range"),
        ("text.", "`text. 60 IN A text.` is no record: `text.` is not an IPv4 address"),
        ("endless.", "takes more than 20000 steps"),
    ] {
        let failure = ask(&handler, name, RecordType::A).await.unwrap_err();
        assert_eq!(failure.rcode, Rcode::SERVFAIL);
        assert!(failure.to_string().starts_with("plugin/template: ") && failure.cause.contains(says), "{failure}");
    }
    let text = process.registry.encode();
    for line in [
        concat!(
            r#"coredns_template_template_failures_total{class="IN",section="answer",server="dns://127.0.0.1:53","#,
            r#"template="{{ .Name }} 60 IN A {{ index .Match 5 }}",type="A",view="",zone="index."} 1"#
        ),
        concat!(
            r#"coredns_template_rr_failures_total{class="IN",section="additional",server="dns://127.0.0.1:53","#,
            r#"template="{{ .Name }} 60 IN A {{ .Zone }}",type="A",view="",zone="text."} 1"#
        ),
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn the_trace_of_a_query_is_a_label() {
    let handler = handler(
        &process(),
        "template IN TXT {\n answer \"{{ .Name }} 60 IN TXT \\\"<{{ .Meta `trace/traceid` }}>\\\"\"\n}",
    );
    let text = async || ask(&handler, "a.example.", RecordType::TXT).await.unwrap().1.concat();
    assert!(text().await.contains("<>"));
    let traced = Arc::new(Spans::new(0xab, Instant::now())).scope(text()).await;
    assert!(traced.contains("<00000000000000ab>"), "{traced}");
}

#[test]
fn types_without_a_name_count_together() {
    let process = process();
    let handler = handler(&process, "template IN ANY {\nrcode NOERROR\n}");
    for number in 65_000..65_100 {
        let question = Question::new("a.example.", RecordType(number));
        futures_util::FutureExt::now_or_never(question.ask(&handler)).unwrap().unwrap();
    }
    assert_eq!(process.registry.encode().matches("coredns_template_matches_total{").count(), 1);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_right_form() {
    for (text, place, says, help) in [
        ("template", "2:1", "needs a class and a type", "write `template CLASS TYPE"),
        ("template IN", "2:1", "needs a class and a type", "write `template CLASS TYPE"),
        ("template in A {\n}", "2:10", "`in` is no class", "write `IN`"),
        ("template XX A {\n}", "2:10", "`XX` is no class", "classes are IN"),
        ("template IN aaaa {\n}", "2:13", "`aaaa` is no record type", "write `AAAA`"),
        ("template IN AX {\n}", "2:13", "`AX` is no record type", "in capitals"),
        ("template IN A {\nmatch\n}", "3:1", "match needs at least one", "write `match REGEX...`"),
        ("template IN A {\nmatch (a\n}", "3:7", "no regular expression, at octet 3: a `(` is not closed", "RE2"),
        ("template IN A {\nanswer\n}", "3:1", "answer needs at least one record", "write `answer"),
        (
            "template IN A {\nanswer \"{{ .Name\"\n}",
            "3:8",
            "this is no template, at octet 1: `{{` is not closed",
            "text/template",
        ),
        ("template IN A {\nauthority \"{{ nope }}\"\n}", "3:11", "`nope` is no function", "text/template"),
        ("template IN A {\nrcode\n}", "3:1", "takes 1 argument", "rcode NXDOMAIN"),
        ("template IN A {\nrcode nxdomain\n}", "3:7", "`nxdomain` is no response code", "write `NXDOMAIN`"),
        ("template IN A {\nrcode WHAT\n}", "3:7", "`WHAT` is no response code", "by its name"),
        ("template IN A {\nederror\n}", "3:1", "needs a code", "ederror 15"),
        ("template IN A {\nederror x\n}", "3:9", "not a whole number", "whole number"),
        ("template IN A {\nederror 65536\n}", "3:9", "out of range", "whole number"),
        ("template IN A {\nederror 1 a b\n}", "3:13", "takes a code and one text", "ederror 15"),
        ("template IN A {\nvar x 1\n}", "3:1", "came to the reference after 1.14.7", "`match`"),
        ("template IN A {\nanswr x\n}", "3:1", "unknown option `answr`", "did you mean `answer`"),
    ] {
        let said = configure(parse, text).1;
        assert!(
            said.contains(&format!("Corefile:{place}: error: ")) && said.contains(says) && said.contains(help),
            "{text}: {said}"
        );
    }
    let malformed = configure(parse, "template IN A {\nanswer \"{{\"\n}").1;
    assert!(malformed.contains("3:8: error: ") && !malformed.contains("neither"), "{malformed}");
}

#[test]
fn what_the_reference_takes_without_heeding_it_is_a_warning() {
    for (text, place, says) in [
        ("template IN A", "2:1", "with no records"),
        ("template ANY ANY {\nmatch .*\n}", "2:1", "with no records"),
        ("template IN A {\nanswer nonsense\n}", "3:8", "`nonsense` is no record: it ends before the record's type"),
        ("template IN A {\nanswer \"{{ index nil 1 }}\"\n}", "3:8", "the template fails at octet 4: index"),
        ("template IN A a..b {\nrcode NXDOMAIN\n}", "2:15", "no query is for it"),
        ("template IN A {\nrcode NXDOMAIN\nfallthrough a..b\n}", "4:13", "no query is for it"),
        ("template IN A {\nrcode NXDOMAIN\nupstream 8.8.8.8\n}", "4:1", "upstream has no effect"),
        ("template IN A {\nanswer \"{{ .Nmae }} 1 IN A 192.0.2.1\"\n}", "3:8", "there is no field `.Nmae` (octet 4)"),
        ("template IN A {\nanswer \"{{ .Var.x }} 1 IN A 192.0.2.1\"\n}", "3:8", "there is no field `.Var`"),
    ] {
        let said = configure(parse, text).1;
        assert!(said.contains(&format!("Corefile:{place}: warning: ")) && said.contains(says), "{text}: {said}");
        assert!(!said.contains("error: "), "{text}: {said}");
    }
}

#[tokio::test]
async fn a_template_for_a_zone_that_is_no_name_serves_and_answers_nobody() {
    let handler = handler_with(&process(), "template IN A a..b {\nrcode NXDOMAIN\n}", "no query is for it");
    assert_eq!(ask(&handler, "a.b.", RecordType::A).await.unwrap().0, Rcode::REFUSED);
}
