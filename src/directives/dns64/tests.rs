use super::{Dns64Config, parse};
use crate::chain::testing::{Question, build, configure, process, responder};
use crate::chain::{After, Answer, Chain, FastPath, Handler, Next, Outcome, Request};
use crate::message::{Rcode, RecordType, Response, Section};
use futures_util::future::BoxFuture;
use hickory_proto::rr::{Name, RData, Record, rdata};
use std::any::Any;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

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
    responder("upstream", |request| {
        let (rcode, records) = known(request);
        let mut response = Response::from_records(request.query, request.wire, rcode, &records).unwrap();
        response.set_flag(0x0080, true);
        Ok(response)
    })
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

/// Gives this reply on the fast path.
struct Says(Vec<u8>, After);

impl Handler for Says {
    fn keyword(&self) -> &'static str {
        "says"
    }
    fn serve_fast(&self, _request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        reply.extend_from_slice(&self.0);
        FastPath::Answered(self.1)
    }
    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        next.run(request)
    }
}

#[test]
fn replies_of_the_fast_path_are_reviewed_where_an_address_may_have_to_be_made() {
    let handler = |text: &str| build(&configure(parse, text).0, &process()).handler.unwrap();
    let path = |text: &str, qtype, is_v6| question("v4.example.", qtype, is_v6).ask_quickly(&*handler(text)).0;
    assert_eq!(path("dns64", RecordType::AAAA, true), FastPath::Through);
    assert_eq!(path("dns64", RecordType::AAAA, false), FastPath::Pass);
    assert_eq!(path("dns64", RecordType::A, true), FastPath::Pass);
    assert_eq!(path("dns64 {\n translate_all\n}", RecordType::AAAA, true), FastPath::Slow);
    for (name, accepted) in
        [("both.example.", true), ("gone.example.", true), ("v4.example.", false), ("half.example.", false)]
    {
        let question = question(name, RecordType::AAAA, true);
        let (rcode, records) = known(&question.request());
        let response = Response::from_records(&question.query, &question.wire, rcode, &records).unwrap();
        let reply = question.reply(&Answer { response, from: "upstream" });
        for (after, anew) in [(After::Nothing, FastPath::Slow), (After::Refresh, FastPath::SlowAndRefresh)] {
            let chain = Chain { handlers: Box::new([handler("dns64"), Arc::new(Says(reply.clone(), after))]) };
            let mut written = b"before".to_vec();
            let (said, _) = chain.serve_fast(&question.request(), &mut written);
            let expected = if accepted { (FastPath::Answered(after), &reply[..]) } else { (anew, &b""[..]) };
            assert_eq!((said, &written[6..]), expected, "{name}");
        }
    }
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
