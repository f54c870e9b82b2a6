//! The `any` directive answers questions for records of all types (ANY) with one HINFO record that says that this is
//! obsolete (RFC 8482); see README.md beside this file.

use crate::chain::{
    After, Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, FastPath,
    Following, Handler, Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Directive, value};
use crate::message::{OwnAnswer, Rcode, RecordType, TtlRule};
use futures_util::future::BoxFuture;
use std::sync::Arc;

const KEYWORD: &str = "any";
/// CPU and OS of a HINFO record, as RFC 8482 section 4.2 proposes them and the reference writes them.
const DATA: &[u8] = b"\x0dANY obsoleted\x0cSee RFC 8482";
const ANSWER: OwnAnswer = OwnAnswer { rcode: Rcode::NOERROR, rtype: RecordType::HINFO, ttl: 8482 };

/// Reads one `any` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    value::no_options(directive, context.diagnostics);
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(Any) });
}

/// Answers questions for records of all types with one that says so.
struct Any;

impl Configured for Any {
    fn build(&self, _context: &BuildContext<'_>) -> Result<Built, BuildError> {
        Ok(Built { handler: Some(Arc::new(Any)), ..Built::default() })
    }
}

fn answer(request: &Request<'_>) -> Outcome {
    let response = ANSWER.response(request.query, request.wire, std::iter::once(DATA));
    let answer = response.map(|response| Answer { response, from: KEYWORD });
    answer.map_err(|error| Failure::servfail(KEYWORD, error))
}

impl Handler for Any {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        if request.query.qtype != RecordType::ANY {
            explanation.say("is for questions of type ANY alone");
            return rest.explain(request, explanation);
        }
        explanation.say("records of all types are not given (RFC 8482)");
        explanation.end(answer(request), None)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        if request.query.qtype != RecordType::ANY {
            return FastPath::Pass;
        }
        ANSWER.write(request.query, request.wire, request.reply(TtlRule::Keep), std::iter::once(DATA), reply);
        FastPath::Answered(After::CachePacket { millis: 1000, note: 0 })
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        if request.query.qtype != RecordType::ANY {
            return next.run(request);
        }
        let outcome = answer(&request);
        Box::pin(async { outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::FastPath;
    use crate::chain::testing::{Question, build, configure, process};
    use crate::message::RecordType;

    #[tokio::test]
    async fn any_is_answered_with_hinfo_on_both_paths_and_other_types_pass() {
        let handler = build(&configure(parse, "any").0, &process()).handler.unwrap();
        let question = Question::new("A.example.", RecordType::ANY);
        let answer = question.ask(&handler).await.unwrap();
        assert_eq!(question.records(&answer), ["answer A.example. 8482 IN HINFO ANY obsoleted See RFC 8482"]);
        assert_eq!(question.ask_quickly(&*handler).1, question.reply(&answer));
        let other = Question::new("a.example.", RecordType::A);
        assert_eq!(other.ask_quickly(&*handler).0, FastPath::Pass);
        assert_eq!(other.ask(&handler).await.unwrap().from, "fixed");
        assert!(configure(parse, "any x").1.contains("error: `any` takes no argument"));
    }
}
