//! The runner, tested: what it must tell apart, it tells apart.

use crate::case::{Case, Expectation};
use crate::compare::{Answer, differences};
use crate::scope::missing_directive;
use crate::support::client::{query, sum_of_series};
use crate::support::text::{format_record, parse_record};
use hickory_proto::op::{Message, MessageType};
use libtest_mimic::Trial;
use serde_json::json;

/// The runner's own tests, under `runner/`.
pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 7] = [
        ("runner/an-answer-as-expected-has-no-differences", answer_as_expected),
        ("runner/each-wrong-part-of-an-answer-is-told", each_wrong_part),
        ("runner/records-compare-as-sets-and-ttls-may-be-a-second-off", sets_and_ttls),
        ("runner/silence-and-an-answer-are-told-apart", silence),
        ("runner/records-go-through-the-wire-unchanged", records_round_trip),
        ("runner/a-case-is-left-out-only-for-a-directive-not-built", left_out),
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
    assert_eq!(told(&["a.example. 30 IN A 192.0.2.2", "a.example. 30 IN A 192.0.2.2"]), 2, "one record does not stand for two");
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
        missing_directive(&serde_json::from_value::<Case>(case).expect("a well-formed case"))
    };
    assert_eq!(missing(". {\n forward . 1.1.1.1 {\n  kubernetes x\n }\n cache\n}\n", ""), None, "an option is no directive");
    assert_eq!(missing("kubernetes {\n cache # kubernetes\n}\n", ""), None, "neither is a zone or a comment");
    assert_eq!(missing(". {\n cache {\n  success 1\n }\n kubernetes x\n}\n", ""), Some("kubernetes"));
    assert_eq!(missing("import f\n", "x {\n kubernetes y\n}\n"), Some("kubernetes"), "imported files count");
}

fn series() {
    let text = "# HELP x_total Of x.\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"}3 \"} 4\nx_total_more{a=\"1\"} 9\ny 5e2\n";
    assert_eq!(sum_of_series(text, "x_total{a=\"1\"}"), Some(7.0));
    assert_eq!(sum_of_series(text, "x_total{b=\"2\",a=\"1\"}"), Some(3.0));
    assert_eq!(sum_of_series(text, "x_total{a=\"2\"}"), None);
    assert_eq!(sum_of_series(text, "y"), Some(500.0));
}
