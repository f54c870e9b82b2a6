//! The `chaos` directive tells of the server itself: its version, its authors, its host name; see README.md beside this
//! file.

use crate::chain::{
    After, Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, FastPath,
    Following, Handler, Next, Outcome, ParseContext, Part, Request, host_name,
};
use crate::corefile::{Directive, value};
use crate::message::{Class, OwnAnswer, Query, Rcode, RecordType, TtlRule};
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

const KEYWORD: &str = "chaos";
const ANSWER: OwnAnswer = OwnAnswer { rcode: Rcode::NOERROR, rtype: RecordType::TXT, ttl: 0 };
/// Octets of a string of a TXT record.
const LONGEST: usize = 255;

/// Reads one `chaos` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    let words: Vec<&str> = directive.arguments.iter().map(|word| word.text.as_str()).collect();
    let (version, authors) =
        words.split_first().map_or((None, &[][..]), |(version, authors)| (Some(*version), authors));
    let default_version = concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"));
    let authors: BTreeSet<&str> =
        if authors.is_empty() { [env!("CARGO_PKG_NAME")].into() } else { authors.iter().copied().collect() };
    let chaos = Chaos {
        version: [text(version.unwrap_or(default_version))].into(),
        host: [text(&host_name())].into(),
        authors: authors.into_iter().map(text).collect(),
    };
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(chaos) });
}

/// The data of a TXT record of one string; what is too long is cut.
fn text(text: &str) -> Box<[u8]> {
    let octets = text.as_bytes().get(..LONGEST).unwrap_or(text.as_bytes());
    [&[octets.len() as u8], octets].concat().into()
}

/// Tells of the server itself, in class CH (RFC 4892).
#[derive(Clone)]
struct Chaos {
    version: Box<[Box<[u8]>]>,
    host: Box<[Box<[u8]>]>,
    authors: Box<[Box<[u8]>]>,
}

impl Configured for Chaos {
    fn build(&self, _context: &BuildContext<'_>) -> Result<Built, BuildError> {
        Ok(Built { handler: Some(Arc::new(self.clone())), ..Built::default() })
    }
}

impl Chaos {
    /// The data of the records that answer a query, if it is one of these.
    fn records(&self, query: &Query) -> Option<&[Box<[u8]>]> {
        if query.qclass != Class::CH || query.qtype != RecordType::TXT {
            return None;
        }
        match query.name.as_wire() {
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => Some(&self.version),
            b"\x08hostname\x04bind\0" | b"\x02id\x06server\0" => Some(&self.host),
            b"\x07authors\x04bind\0" => Some(&self.authors),
            _ => None,
        }
    }
}

fn answer(records: &[Box<[u8]>], request: &Request<'_>) -> Outcome {
    let response = ANSWER.response(request.query, request.wire, records.iter().map(|record| &record[..]));
    let answer = response.map(|response| Answer { response, from: KEYWORD });
    answer.map_err(|error| Failure::servfail(KEYWORD, error))
}

impl Handler for Chaos {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        match self.records(request.query) {
            Some(records) => explanation.end(answer(records, request), None),
            None => {
                explanation.say("is for the server's own names in class CH alone");
                rest.explain(request, explanation)
            }
        }
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let Some(records) = self.records(request.query) else { return FastPath::Pass };
        let data = records.iter().map(|record| &record[..]);
        ANSWER.write(request.query, request.wire, request.reply(TtlRule::Keep), data, reply);
        FastPath::Answered(After::Nothing)
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let Some(records) = self.records(request.query) else { return next.run(request) };
        let outcome = answer(records, &request);
        Box::pin(async { outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{Question, build, configure, process};
    use crate::chain::{FastPath, host_name};
    use crate::message::{Name, Query, RecordType};

    fn question(name: &str, qtype: RecordType, class: u8) -> Question {
        let mut wire = Query::compose(1, Name::parse(name).unwrap().as_wire(), qtype, true);
        *wire.last_mut().unwrap() = class;
        Question::from_wire(wire)
    }

    async fn texts(text: &str, name: &str) -> Vec<String> {
        let handler = build(&configure(parse, text).0, &process()).handler.unwrap();
        let question = question(name, RecordType::TXT, 3);
        let answer = question.ask(&handler).await.unwrap();
        let (path, fast) = question.ask_quickly(&*handler);
        if answer.from == "fixed" {
            assert_eq!(path, FastPath::Pass);
            return vec![];
        }
        assert_eq!(fast, question.reply(&answer));
        question.records(&answer).iter().map(|record| record.split_once(" 0 CH TXT ").unwrap().1.to_owned()).collect()
    }

    #[tokio::test]
    async fn version_host_and_authors_are_told() {
        let text = "chaos v1 Zoe \"Ann B\" Zoe";
        assert_eq!(texts(text, "VERSION.bind.").await, ["v1"]);
        assert_eq!(texts(text, "version.server.").await, ["v1"]);
        assert_eq!(texts(text, "authors.bind.").await, ["Ann B", "Zoe"]);
        for name in ["hostname.bind.", "id.server."] {
            assert_eq!(texts(text, name).await, [host_name()]);
        }
        assert_eq!(texts(text, "other.bind.").await, [""; 0]);
        assert!(texts("chaos", "version.bind.").await[0].starts_with("nodelocaldns-"));
        assert_eq!(texts(&format!("chaos {}", "x".repeat(300)), "version.bind.").await, ["x".repeat(255)]);
    }

    #[test]
    fn other_classes_and_types_pass() {
        let handler = build(&configure(parse, "chaos").0, &process()).handler.unwrap();
        for (qtype, class) in [(RecordType::TXT, 1), (RecordType::A, 3)] {
            assert_eq!(question("version.bind.", qtype, class).ask_quickly(&*handler).0, FastPath::Pass);
        }
        assert!(configure(parse, "chaos {\n x\n}").1.contains("error: `chaos` takes no block"));
    }
}
