//! The runner, tested: what it must tell apart, it tells apart.

use crate::case::{Case, Expectation, Step};
use crate::compare::{Answer, differences};
use crate::support::client::{query, sum_of_series};
use crate::support::known;
use crate::support::scope::missing_directive;
use crate::support::text::{format_record, parse_record};
use hickory_proto::op::{Edns, Message, MessageType};
use hickory_proto::rr::rdata::opt::EdnsOption;
use libtest_mimic::Trial;
use serde_json::json;

/// The runner's own tests, under `runner/`.
pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 10] = [
        ("runner/an-answer-as-expected-has-no-differences", answer_as_expected),
        ("runner/each-wrong-part-of-an-answer-is-told", each_wrong_part),
        ("runner/records-compare-as-sets-and-ttls-may-be-a-second-off", sets_and_ttls),
        ("runner/silence-and-an-answer-are-told-apart", silence),
        ("runner/records-go-through-the-wire-unchanged", records_round_trip),
        ("runner/a-case-is-left-out-only-for-a-directive-not-built", left_out),
        ("runner/an-unknown-step-or-key-is-no-case", unknown_step),
        ("runner/the-order-and-the-options-of-an-answer-are-told", order_and_options),
        ("runner/a-known-failure-must-fail", known_failure),
        ("runner/series-are-summed-by-name-and-labels", series),
    ];
    tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect()
}

fn expectation(value: serde_json::Value) -> Expectation {
    serde_json::from_value(value).expect("a well-formed expectation")
}

/// An answer with RD, RA, the question `A.example. A` and the given records.
fn answer(records: &[&str]) -> Answer {
    let mut message = query("A.example.", "A");
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.insert_answers(records.iter().map(|text| parse_record(text).0).collect());
    let wire = message.to_vec().expect("it encodes");
    Answer { message: Message::from_vec(&wire).expect("it decodes"), octets: wire.len() }
}

fn answer_as_expected() {
    let got = answer(&["a.example. 60 IN A 192.0.2.1"]);
    let want = json!({"rcode": "NOERROR", "flags": ["RD", "RA"], "question": ["A.example. IN A"], "edns": null,
        "answer": ["A.EXAMPLE. 60 IN A 192.0.2.1"], "authority": [], "additional": [], "size_at_most": 512});
    assert_eq!(differences(&expectation(want), Some(&got)), Vec::<String>::new());
}

fn each_wrong_part() {
    let got = answer(&["a.example. 60 IN A 192.0.2.1"]);
    let wrong = [
        json!({"rcode": "NXDOMAIN"}),
        json!({"flags": ["RA", "RD", "TC"]}),
        json!({"question": ["a.example. IN A"]}),
        json!({"question": ["A.example. CH A"]}),
        json!({"question": []}),
        json!({"answer": []}),
        json!({"answer": ["a.example. 60 IN A 192.0.2.2"]}),
        json!({"answer": ["b.example. 60 IN A 192.0.2.1"]}),
        json!({"answer": ["a.example. 60 CH A 192.0.2.1"]}),
        json!({"authority": ["a.example. 60 IN A 192.0.2.1"]}),
        json!({"edns": {"do": false}}),
        json!({"size_at_most": 20}),
        json!({"timeout": true}),
    ];
    for want in wrong {
        assert_ne!(differences(&expectation(want.clone()), Some(&got)), Vec::<String>::new(), "{want} passed");
    }
}

fn sets_and_ttls() {
    let got = answer(&["a.example. 60 IN A 192.0.2.1", "a.example. 30 IN A 192.0.2.2"]);
    let told = |records: &[&str]| differences(&expectation(json!({ "answer": records })), Some(&got)).len();
    assert_eq!(told(&["a.example. 30 IN A 192.0.2.2", "a.example. 60 IN A 192.0.2.1"]), 0, "the order does not count");
    assert_eq!(told(&["a.example. 31 IN A 192.0.2.2", "a.example. ? IN A 192.0.2.1"]), 0, "a second is forgiven");
    assert_eq!(told(&["a.example. 32 IN A 192.0.2.2", "a.example. 58 IN A 192.0.2.1"]), 2, "two seconds are not");
    assert_eq!(
        told(&["a.example. 30 IN A 192.0.2.2", "a.example. 30 IN A 192.0.2.2"]),
        2,
        "one record does not stand for two"
    );
}

fn silence() {
    assert_eq!(differences(&expectation(json!({"timeout": true})), None).len(), 0);
    assert_eq!(differences(&expectation(json!({"rcode": "NOERROR"})), None).len(), 1);
}

fn records_round_trip() {
    let records = [
        "a.example. 60 IN A 192.0.2.1",
        "a.example. 60 IN AAAA 2001:db8::1",
        "a.example. 60 IN CNAME b.example.",
        "a.example. 60 IN NS ns.example.",
        "a.example. 60 IN PTR b.example.",
        "a.example. 60 IN MX 10 mail.example.",
        "a.example. 60 IN SRV 0 100 53 ns.example.",
        "a.example. 60 IN SOA ns.example. host.example. 7 7200 900 1209600 60",
        "a.example. 60 IN TXT \"hello world\" \"second\"",
        "a.example. 60 IN CAA 0 issue \"ca.example\"",
        "a.example. 60 IN TYPE65400 \\# 3 010203",
    ];
    let got = answer(&records);
    let written: Vec<String> = got.message.answers.iter().map(format_record).collect();
    assert_eq!(written, records);
    let https = answer(&["a.example. 60 IN HTTPS 1 . alpn=h2"]);
    let want = expectation(json!({"answer": ["a.example. 60 IN HTTPS 1 . alpn=\"h2\""]}));
    assert_eq!(differences(&want, Some(&https)), Vec::<String>::new());
    let two_strings = expectation(json!({"answer": ["a.example. 60 IN TXT \"ab\" \"c\""]}));
    assert_ne!(differences(&two_strings, Some(&answer(&["a.example. 60 IN TXT \"a\" \"bc\""]))), Vec::<String>::new());
}

fn left_out() {
    let missing = |corefile: &str, file: &str| {
        let case = json!({"name": "x/y", "corefile": corefile, "files": {"f": file}, "steps": []});
        missing_directive(serde_json::from_value::<Case>(case).expect("a well-formed case").texts())
    };
    assert_eq!(
        missing(". {\n forward . 1.1.1.1 {\n  kubernetes x\n }\n cache\n}\n", ""),
        None,
        "an option is no directive"
    );
    assert_eq!(missing("kubernetes {\n cache # kubernetes\n}\n", ""), None, "neither is a zone or a comment");
    assert_eq!(missing(". {\n cache {\n  success 1\n }\n kubernetes x\n}\n", ""), Some("kubernetes"));
    assert_eq!(missing("x{\n kubernetes y\n}\n", ""), Some("kubernetes"), "a brace may be glued");
    assert_eq!(missing("import f\n", "x {\n kubernetes y\n}\n"), Some("kubernetes"), "imported files count");
}

fn unknown_step() {
    let is_step = |value: serde_json::Value| serde_json::from_value::<Step>(value).is_ok();
    for step in [
        json!({"log": "x", "expect": 1}),
        json!({"write": "f", "text": null}),
        json!({"upstream_saw": "up1", "expect": {}, "options": true}),
        json!({"query": {"name": "a.", "at": "::1"}, "expect": {"options": [], "answer_starts": []}}),
    ] {
        assert!(is_step(step.clone()), "{step} is refused");
    }
    for step in [
        json!({"log": "x"}),
        json!({"write": "f"}),
        json!({"log": "x", "expect": 1, "more": 2}),
        json!({"upstream_saw": "up1", "expect": {}, "option": true}),
        json!({"query": {"name": "a.", "from": "::1"}, "expect": {}}),
        json!({"query": {"name": "a."}, "expect": {"answer_ends": []}}),
        json!({"sleep": 1, "wake": 2}),
        json!({"shout": "x"}),
    ] {
        assert!(!is_step(step.clone()), "{step} is taken");
    }
}

fn order_and_options() {
    let mut got = answer(&["a.example. 60 IN A 192.0.2.1", "a.example. 60 IN A 192.0.2.2"]);
    let told = |want: serde_json::Value, got: &Answer| differences(&expectation(want), Some(got)).len();
    assert_eq!(told(json!({"answer_starts": ["a.example. 1 IN A 192.0.2.1"]}), &got), 0, "TTLs do not count");
    assert_eq!(
        told(json!({"answer_starts": ["a.example. 60 IN A 192.0.2.2"]}), &got),
        1,
        "the second is not the first"
    );
    let three = json!({"answer_starts": ["a.example. 1 IN A 192.0.2.1", "a.example. 1 IN A 192.0.2.2", "a.example. 1 IN A 192.0.2.3"]});
    assert_eq!(told(three, &got), 1, "two are not three");
    assert_eq!(told(json!({"options": []}), &got), 1, "no OPT record has no options");
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(65518, b"abcd".to_vec()));
    got.message.set_edns(edns);
    assert_eq!(told(json!({"options": ["65518=61626364"]}), &got), 0);
    assert_eq!(told(json!({"options": ["65518=61626365"]}), &got), 1);
    assert_eq!(told(json!({"options": []}), &got), 1);
}

fn known_failure() {
    let failed = || Err("it differs".to_owned());
    assert_eq!(known::judge(failed(), None), failed());
    assert_eq!(known::judge(Ok(()), None), Ok(()));
    assert_eq!(known::judge(failed(), Some("a cause")), Ok(()));
    assert!(known::judge(Ok(()), Some("a cause")).is_err_and(|why| why.contains("a cause")));
}

fn series() {
    let text = "# HELP x_total Of x.\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"}3 \"} 4\nx_total_more{a=\"1\"} 9\ny 5e2\n";
    assert_eq!(sum_of_series(text, "x_total{a=\"1\"}"), Some(7.0));
    assert_eq!(sum_of_series(text, "x_total{b=\"2\",a=\"1\"}"), Some(3.0));
    assert_eq!(sum_of_series(text, "x_total{a=\"2\"}"), None);
    assert_eq!(sum_of_series(text, "y"), Some(500.0));
}
