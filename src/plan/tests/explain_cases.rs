//! What each directive says that it would do with a question: a case or more for each.

use super::config;
use super::explain::{asked, report};
use crate::chain::testing::process;
use crate::directives::{ORDER, Support};
use crate::plan::StepReport;
use std::time::Instant;

/// `DIRECTIVE at LINE does: says; says`.
fn line(step: &StepReport) -> String {
    let at = step.at.as_deref().unwrap_or("-").trim_start_matches("Corefile:");
    let does = serde_json::to_value(step.does).unwrap();
    let says = if step.says.is_empty() { String::new() } else { format!(": {}", step.says.join("; ")) };
    format!("{at} {} {}{says}", step.directive, does.as_str().unwrap())
}

/// The verdict with its place, and the lines of the steps.
fn explained(text: &str, name: &str, qtype: &str, client: &str) -> Vec<String> {
    let process = process();
    // What is warned of, such as certificates that this machine lacks, is explained all the same.
    let plan = config(text).build(&process).unwrap();
    let report = report(&plan, &asked(name, qtype, client), Instant::now());
    let at = report.at.map(|at| format!(" ({at})")).unwrap_or_default();
    [vec![format!("{}{at}", report.verdict)], report.steps.iter().map(line).collect()].concat()
}

struct Case {
    /// What the block holds, from line 2 on.
    block: &'static str,
    asked: (&'static str, &'static str, &'static str),
    expected: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        block: "any\nwhoami",
        asked: ("a.example.", "ANY", ""),
        expected: &[
            "answered by any (Corefile:3)",
            "3 any answers: records of all types are not given (RFC 8482)",
            "4 whoami not_reached",
        ],
    },
    Case {
        block: "any\nwhoami",
        asked: ("a.example.", "A", "10.1.2.3"),
        expected: &[
            "answered by whoami, without records (Corefile:4)",
            "3 any passes: is for questions of type ANY alone",
            "4 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "errors\nlog example. {\n class denial error\n}\nprometheus\nloadbalance\nwhoami",
        asked: ("a.example.", "A", ""),
        expected: &[
            "answered by whoami, without records (Corefile:9)",
            "7 prometheus observes: counts it",
            "3 errors observes: writes a line if it fails",
            "4 log observes: writes a line if the answer is of class denial or error, by its rule for example.",
            "8 loadbalance changes: the addresses of the answer come in any order",
            "9 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "log\nerrors {\n consolidate 5m x\n}\nwhoami",
        asked: ("a.test.", "A", ""),
        expected: &[
            "answered by whoami, without records (Corefile:7)",
            "4 errors observes: writes a line if it fails, or one for many alike",
            "3 log observes: writes a line, by its rule for .",
            "7 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "bufsize 600\nnsid node-7\nclient_subnet 20 48\nmetadata\ncancel 3s\nheader {\n query clear rd\n response set aa\n}\nminimal\nwhoami",
        asked: ("a.test.", "A", ""),
        expected: &[
            "answered by whoami, without records (Corefile:13)",
            "6 metadata sets: directives say what they know of names below .",
            "7 cancel passes: an answer that takes longer than 3s is given up: SERVFAIL",
            "5 client_subnet sets: a client subnet in the query goes upstream, 20 bits of IPv4 and 48 of IPv6 at most",
            "4 nsid sets: a client that asks which server this is gets \"node-7\"",
            "3 bufsize sets: replies over UDP have 600 octets at most",
            "8 header changes: the query goes on with RD clear; AA of the answer is set",
            "12 minimal changes: the answer loses its authority and additional sections, unless it is a denial or a referral",
            "13 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "trace zipkin 127.0.0.1:9 {\n every 10\n}\ndnstap tcp://127.0.0.1:9\nwhoami",
        asked: ("a.test.", "A", ""),
        expected: &[
            "answered by whoami, without records (Corefile:7)",
            "3 trace observes: one of 10 is traced",
            "6 dnstap observes: writes it to tcp://127.0.0.1:9",
            "7 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "local\nchaos\nwhoami",
        asked: ("localhost.", "A", ""),
        expected: &[
            "answered by local (Corefile:3)",
            "3 local answers: the name means this machine (RFC 6761 section 6.3)",
            "4 chaos not_reached",
            "5 whoami not_reached",
        ],
    },
    Case {
        block: "local\nchaos\nwhoami",
        asked: ("a.127.in-addr.arpa.", "PTR", ""),
        expected: &[
            "NXDOMAIN by local (Corefile:3)",
            "3 local answers: a reverse zone of this machine alone (RFC 6303 section 4)",
            "4 chaos not_reached",
            "5 whoami not_reached",
        ],
    },
    Case {
        block: "local\nchaos\nwhoami",
        asked: ("a.test.", "TXT", ""),
        expected: &[
            "answered by whoami, without records (Corefile:5)",
            "3 local passes: no name of this machine, of localhost or of loopback addresses",
            "4 chaos passes: is for the server's own names in class CH alone",
            "5 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "acl example. {\n allow net 10.0.0.0/8\n block type TXT\n filter type MX\n drop net 192.0.2.0/24\n}\nwhoami",
        asked: ("a.example.", "TXT", "172.16.0.1"),
        expected: &[
            "refused by acl (Corefile:5)",
            "5 acl answers: 172.16.0.1 is refused, as this policy says",
            "9 whoami not_reached",
        ],
    },
    Case {
        block: "acl example. {\n allow net 10.0.0.0/8\n block type TXT\n filter type MX\n drop net 192.0.2.0/24\n}\nwhoami",
        asked: ("a.example.", "MX", "172.16.0.1"),
        expected: &[
            "answered without records by acl (Corefile:6)",
            "6 acl answers: 172.16.0.1 gets no records, as this policy says",
            "9 whoami not_reached",
        ],
    },
    Case {
        block: "acl example. {\n allow net 10.0.0.0/8\n block type TXT\n filter type MX\n drop net 192.0.2.0/24\n}\nwhoami",
        asked: ("a.example.", "A", "192.0.2.7"),
        expected: &[
            "dropped by acl (Corefile:7)",
            "7 acl drops: 192.0.2.7 gets no answer, as this policy says",
            "9 whoami not_reached",
        ],
    },
    Case {
        block: "acl example. {\n allow net 10.0.0.0/8\n block\n}\nwhoami",
        asked: ("a.example.", "A", "10.1.2.3"),
        expected: &[
            "answered by whoami, without records (Corefile:7)",
            "4 acl passes: allows 10.1.2.3, as this policy says",
            "7 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "hosts {\n 192.0.2.7 a.example\n}\nwhoami",
        asked: ("a.example.", "A", ""),
        expected: &["answered by hosts (Corefile:3)", "3 hosts answers: an entry has the name", "6 whoami not_reached"],
    },
    Case {
        block: "hosts {\n 192.0.2.7 a.example\n}\nwhoami",
        asked: ("a.example.", "AAAA", ""),
        expected: &[
            "answered by hosts, without records (Corefile:3)",
            "3 hosts answers: an entry has the name, and none an address of this type",
            "6 whoami not_reached",
        ],
    },
    Case {
        block: "hosts {\n 192.0.2.7 a.example\n}\nwhoami",
        asked: ("b.example.", "A", ""),
        expected: &[
            "SERVFAIL by hosts (Corefile:3)",
            "3 hosts answers: no entry has the name, and it does not fall through",
            "6 whoami not_reached",
        ],
    },
    Case {
        block: "hosts {\n 192.0.2.7 a.example\n fallthrough\n}\nwhoami",
        asked: ("b.example.", "A", ""),
        expected: &[
            "answered by whoami, without records (Corefile:7)",
            "3 hosts passes: no entry has the name: falls through",
            "7 whoami answers: tells every client its own address, port and transport",
        ],
    },
    Case {
        block: "template IN A gone.example. {\n rcode NXDOMAIN\n}\ntemplate IN A example. {\n match ^a[.]\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}\nwhoami",
        asked: ("x.gone.example.", "A", ""),
        expected: &[
            "NXDOMAIN by template (Corefile:3)",
            "3 template answers: this template is for it, by its zone gone.example.",
            "10 whoami not_reached",
        ],
    },
    Case {
        block: "template IN A gone.example. {\n rcode NXDOMAIN\n}\ntemplate IN A example. {\n match ^a[.]\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}\nwhoami",
        asked: ("a.example.", "A", ""),
        expected: &[
            "answered by template (Corefile:6)",
            "6 template answers: this template is for it, by its zone example. and its pattern ^a[.]",
            "10 whoami not_reached",
        ],
    },
    Case {
        block: "template IN A gone.example. {\n rcode NXDOMAIN\n}\ntemplate IN A example. {\n match ^a[.]\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}\nwhoami",
        asked: ("b.example.", "A", ""),
        expected: &[
            "SERVFAIL by template (Corefile:3)",
            "3 template answers: no pattern of a template for it matches, and it does not fall through",
            "10 whoami not_reached",
        ],
    },
    Case {
        block: "template IN A alias.example. {\n answer \"{{ .Name }} 60 IN CNAME a.example.\"\n}\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("alias.example.", "A", ""),
        expected: &[
            "answered by template (Corefile:3)",
            "3 template answers: this template is for it, by its zone alias.example.; its answer is an alias for a.example., \
             which is asked for in turn:",
            "3 template passes: no template is for it",
            "6 hosts answers: an entry has the name",
            "3 template answers: adds what that is answered",
        ],
    },
    Case {
        block: "rewrite continue name suffix .corp .example answer auto\nrewrite type TXT A\nrewrite ttl example. 30\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("a.corp.", "A", ""),
        expected: &[
            "answered by hosts (Corefile:6)",
            "3 rewrite changes: the name becomes a.example.; names of the answer are written back",
            "6 hosts answers: an entry has the name",
        ],
    },
    Case {
        block: "rewrite continue name suffix .corp .example answer auto\nrewrite type TXT A\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("a.corp.", "TXT", ""),
        expected: &[
            "answered by hosts (Corefile:5)",
            "3 rewrite changes: the name becomes a.example.; names of the answer are written back",
            "4 rewrite changes: type TXT becomes A",
            "5 hosts answers: an entry has the name",
        ],
    },
    Case {
        block: "rewrite name a.corp b.example\nrewrite rcode b.example SERVFAIL NXDOMAIN\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("x.corp.", "A", ""),
        expected: &[
            "SERVFAIL by hosts (Corefile:5)",
            "3 rewrite passes: no rule is for it",
            "5 hosts answers: no entry has the name, and it does not fall through",
        ],
    },
    Case {
        block: "rewrite rcode a.example NOERROR NXDOMAIN\nwhoami",
        asked: ("a.example.", "A", ""),
        expected: &[
            "NXDOMAIN by rewrite (Corefile:3)",
            "3 rewrite changes: NOERROR of the answer becomes NXDOMAIN",
            "4 whoami answers: tells every client its own address, port and transport",
            "3 rewrite changes: NOERROR becomes NXDOMAIN",
        ],
    },
    Case {
        block: "rewrite edns0 local set 0xffee abc\nrewrite cname exact b.example a.example\ncache\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("a.example.", "A", ""),
        expected: &[
            "answered by hosts (Corefile:6)",
            "3 rewrite changes: sends EDNS option 65518 upstream",
            "5 cache passes: answers to queries with EDNS options are kept apart, and not looked for here",
            "6 hosts answers: an entry has the name",
        ],
    },
    Case {
        block: "rewrite cname exact b.example. a.example.\ntemplate IN A c.example. {\n answer \"{{ .Name }} 60 IN CNAME b.example.\"\n}\nhosts {\n 192.0.2.7 a.example\n fallthrough\n}",
        asked: ("c.example.", "A", ""),
        expected: &[
            "answered by template (Corefile:4)",
            "3 rewrite changes: targets of aliases in the answer that it is for lead elsewhere",
            "4 template answers: this template is for it, by its zone c.example.; its answer is an alias for b.example., \
             which is asked for in turn:",
            "3 rewrite changes: targets of aliases in the answer that it is for lead elsewhere",
            "4 template passes: no template is for it",
            "7 hosts passes: no entry has the name: falls through",
            "4 template answers: that has no answer, so the alias is all",
            "3 rewrite changes: the alias leads to a.example. instead, which is asked for in turn:",
            "3 rewrite changes: targets of aliases in the answer that it is for lead elsewhere",
            "4 template passes: no template is for it",
            "7 hosts answers: an entry has the name",
        ],
    },
    Case {
        block: "dns64\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("a.example.", "AAAA", "fd00::1"),
        expected: &[
            "answered by dns64 (Corefile:3)",
            "3 dns64 passes: if the answer has no IPv6 address, asks for IPv4 addresses, and makes IPv6 addresses of them",
            "4 hosts answers: an entry has the name, and none an address of this type",
            "3 dns64 changes: asks for type A, as that answer has no IPv6 address that is to be given",
            "4 hosts answers: an entry has the name",
            "3 dns64 answers: makes the answer of that one",
        ],
    },
    Case {
        block: "dns64\nhosts {\n 192.0.2.7 a.example\n}",
        asked: ("a.example.", "AAAA", "10.0.0.1"),
        expected: &[
            "answered by hosts, without records (Corefile:4)",
            "3 dns64 passes: the client has IPv4",
            "4 hosts answers: an entry has the name, and none an address of this type",
        ],
    },
    Case {
        block: "cache 60 example.\nloop\nforward example. 192.0.2.1 {\n except b.example.\n}\nforward . 192.0.2.2 192.0.2.3:54 {\n force_tcp\n policy sequential\n}",
        asked: ("a.example.", "A", ""),
        expected: &[
            "asks 192.0.2.1:53 over UDP (Corefile:5)",
            "3 cache passes: keeps no answer to it",
            "4 loop passes: no upstream leads back to us",
            "5 forward asks: 192.0.2.1:53 over UDP: up",
            "8 forward not_reached",
        ],
    },
    Case {
        block: "cache 60 example.\nloop\nforward example. 192.0.2.1 {\n except b.example.\n}\nforward . 192.0.2.2 192.0.2.3:54 {\n force_tcp\n policy sequential\n}",
        asked: ("x.b.example.", "A", ""),
        expected: &[
            "asks 192.0.2.2:53 over TCP (Corefile:8)",
            "3 cache passes: keeps no answer to it",
            "4 loop passes: no upstream leads back to us",
            "5 forward passes: forwards no names of b.example. (except)",
            "8 forward asks: asks its 2 upstreams until one answers, in this order (policy sequential):; \
             192.0.2.2:53 over TCP: up; 192.0.2.3:54 over TCP: up",
        ],
    },
    Case {
        block: "cache 60 example.\nforward example. 192.0.2.1\nforward . tls://192.0.2.2 192.0.2.3 {\n tls_servername dns.test\n failover REFUSED\n}",
        asked: ("a.test.", "A", ""),
        expected: &[
            "asks one of 2 upstreams (Corefile:5)",
            "3 cache passes: the name is in none of its zones",
            "4 forward passes: forwards names of example. alone",
            "5 forward asks: asks its 2 upstreams until one answers, in any order (policy random):; \
             192.0.2.2:853 over TLS: up; 192.0.2.3:53 over UDP: up; after REFUSED the next upstream is asked (failover)",
        ],
    },
    Case {
        block: "forward . 192.0.2.1 192.0.2.2 {\n policy round_robin\n next NXDOMAIN\n}\nforward . 192.0.2.3",
        asked: ("a.test.", "A", ""),
        expected: &[
            "asks 192.0.2.2:53 over UDP (Corefile:3)",
            "3 forward asks: asks its 2 upstreams until one answers, by turns (policy round_robin):; \
             192.0.2.1:53 over UDP: up; 192.0.2.2:53 over UDP: up; after NXDOMAIN the next forward is asked (next)",
            "7 forward not_reached",
        ],
    },
    Case {
        block: "cache",
        asked: ("a.test.", "A", ""),
        expected: &["SERVFAIL: no directive of the block answers it", "3 cache passes: keeps no answer to it"],
    },
];

/// What no case is for: it has nothing to do with a question.
const SILENT: &[&str] = &[
    "bind",
    "debug",
    "fairness",
    "health",
    "https",
    "multisocket",
    "pprof",
    "ready",
    "reload",
    "root",
    "shed",
    "timeouts",
    "tls",
    "view",
];

#[tokio::test]
async fn every_directive_says_what_it_would_do() {
    for Case { block, asked: (name, qtype, client), expected } in CASES {
        let found = explained(&format!(".:53 {{\n bind 127.0.0.1\n{block}\n}}\n"), name, qtype, client);
        assert_eq!(found, *expected, "{name} {qtype} {client}\n{block}");
    }
}

#[tokio::test]
async fn a_question_that_an_alias_leads_to_does_not_decide_what_becomes_of_the_first() {
    let block = "acl b.example. {\n drop net 0.0.0.0/0\n}\nrewrite cname exact c.example. b.example.\n\
                 template IN A a.example. {\n answer \"{{ .Name }} 60 IN CNAME c.example.\"\n}";
    let found = explained(&format!(".:53 {{\n bind 127.0.0.1\n{block}\n}}\n"), "a.example.", "A", "");
    assert!(found[0].starts_with("answered by template"), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("acl drops")), "{found:#?}");
}

#[test]
fn every_directive_has_a_case() {
    let words = || CASES.iter().flat_map(|case| case.block.split_whitespace());
    for keyword in ORDER {
        let is_here = matches!(keyword.support, Support::Here { .. });
        let is_tried = words().any(|word| word == keyword.name);
        assert!(!is_here || is_tried != SILENT.contains(&keyword.name), "{}", keyword.name);
    }
}
