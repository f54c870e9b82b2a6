//! The `whoami` directive tells a client how we see it; see README.md beside this file.

use crate::chain::{
    Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, Following, Handler,
    Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Directive, value};
use crate::message::{Rcode, Response, Section, WireError};
use futures_util::future::BoxFuture;
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, DecodeError};
use std::net::IpAddr;
use std::sync::Arc;

const KEYWORD: &str = "whoami";
const AUTHORITATIVE: u16 = 0x0400;

/// Reads one `whoami` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    value::no_options(directive, context.diagnostics);
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(Whoami) });
}

/// Tells every client its own address, port and transport.
struct Whoami;

impl Configured for Whoami {
    fn build(&self, _context: &BuildContext<'_>) -> Result<Built, BuildError> {
        Ok(Built { handler: Some(Arc::new(Whoami)), ..Built::default() })
    }
}

impl Handler for Whoami {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, _rest: Following<'_>, explanation: &mut Explanation) -> Course {
        explanation.say("tells every client its own address, port and transport");
        explanation.end(tell(*request).map_err(|error| Failure::servfail(KEYWORD, error)), None)
    }

    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { tell(request).map_err(|error| Failure::servfail(KEYWORD, error)) })
    }
}

/// Why an answer could not be made, which a name that was read from a query should never cause.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error("the name asked for cannot be read: {0}")]
    Name(#[from] DecodeError),
    #[error("the answer cannot be written: {0}")]
    Answer(#[from] WireError),
}

fn tell(request: Request<'_>) -> Result<Answer, TellError> {
    // In lower case it compresses to a pointer to the question, which has the client's case.
    let name = Name::from_bytes(request.query.name.as_wire())?;
    let class = DNSClass::from(request.query.qclass.0);
    let record = |name: Name, data: RData| {
        let mut record = Record::from_rdata(name, 0, data);
        record.dns_class = class;
        (Section::Additional, record)
    };
    // A socket for both families sees IPv4 clients as ::ffff:192.0.2.1.
    let address = match request.peer.client.ip().to_canonical() {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    let mut records = vec![record(name.clone(), address)];
    let label = format!("_{}", request.peer.transport.label());
    // A name that leaves no room for one more label is told without its SRV record.
    if let Ok(service) = name.prepend_label(label.as_bytes()) {
        records.push(record(service, RData::SRV(SRV::new(0, 0, request.peer.client.port(), Name::root()))));
    }
    let mut response = Response::from_records(request.query, request.wire, Rcode::NOERROR, &records)?;
    response.set_flag(AUTHORITATIVE, true);
    Ok(Answer { response, from: KEYWORD })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{Question, build, configure};
    use crate::chain::{Answer, ProcessContext, Transport};
    use crate::message::{Rcode, RecordType};

    async fn answer_to(question: Question) -> (Answer, Vec<String>) {
        let (block, said) = configure(parse, "whoami");
        assert_eq!(said, "");
        let handler = build(&block, &ProcessContext::new(1, 0)).handler.unwrap();
        let answer = question.ask(&handler).await.unwrap();
        let records = question.records(&answer);
        (answer, records)
    }

    #[tokio::test]
    async fn an_ipv4_client_is_told_in_the_additional_section() {
        let (answer, records) = answer_to(Question::new("x.Example.org.", RecordType::AAAA)).await;
        assert_eq!(answer.response.rcode(), Rcode::NOERROR);
        assert!(answer.response.is_authoritative());
        assert_eq!(
            records,
            ["additional x.Example.org. 0 IN A 10.240.0.1", "additional _udp.x.Example.org. 0 IN SRV 0 0 40212 ."]
        );
    }

    #[tokio::test]
    async fn an_ipv6_client_over_tcp_is_told() {
        let mut question = Question::new("x.example.", RecordType::A);
        question.peer.client = "[2001:db8::1]:53000".parse().unwrap();
        question.peer.transport = Transport::Tcp;
        assert_eq!(
            answer_to(question).await.1,
            ["additional x.example. 0 IN AAAA 2001:db8::1", "additional _tcp.x.example. 0 IN SRV 0 0 53000 ."]
        );
    }

    #[tokio::test]
    async fn an_ipv4_client_of_a_socket_for_both_families_is_told_its_ipv4_address() {
        let mut question = Question::new(".", RecordType::NS);
        question.peer.client = "[::ffff:192.0.2.9]:1025".parse().unwrap();
        assert_eq!(
            answer_to(question).await.1,
            ["additional . 0 IN A 192.0.2.9", "additional _udp. 0 IN SRV 0 0 1025 ."]
        );
    }

    #[tokio::test]
    async fn a_name_of_full_length_is_answered_without_the_srv_record() {
        let label = "a".repeat(63);
        let name = format!("{label}.{label}.{label}.{}.", "b".repeat(61));
        assert_eq!(answer_to(Question::new(&name, RecordType::A)).await.1.len(), 1);
    }

    #[tokio::test]
    async fn records_have_the_class_that_was_asked() {
        let mut wire = Question::new("x.", RecordType::TXT).wire;
        *wire.last_mut().unwrap() = 3;
        assert_eq!(
            answer_to(Question::from_wire(wire)).await.1,
            ["additional x. 0 CH A 10.240.0.1", "additional _udp.x. 0 CH SRV 0 0 40212 ."]
        );
    }

    #[test]
    fn arguments_and_options_are_refused() {
        assert!(configure(parse, "whoami me").1.contains("Corefile:2:"));
        assert!(configure(parse, "whoami {\n a b\n}").1.contains("whoami"));
    }
}
