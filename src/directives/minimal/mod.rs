//! The `minimal` directive leaves the authority and additional sections out of answers, so that they are as small as
//! they can be; see README.md beside this file.

use crate::chain::{
    Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Effect, Explanation, Following, Handler,
    Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Directive, value};
use crate::message::{Rcode, RecordType, Response, Section};
use futures_util::future::BoxFuture;
use std::sync::Arc;

const KEYWORD: &str = "minimal";

/// Reads one `minimal` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    value::no_options(directive, context.diagnostics);
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(MinimalConfig) });
}

struct MinimalConfig;

impl Configured for MinimalConfig {
    fn build(&self, _context: &BuildContext<'_>) -> Result<Built, BuildError> {
        Ok(Built { handler: Some(Arc::new(Minimal)), ..Built::default() })
    }
}

/// Leaves out what was not asked for.
struct Minimal;

impl Handler for Minimal {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        explanation.set_effect(Effect::Changes);
        explanation.say("the answer loses its authority and additional sections, unless it is a denial or a referral");
        match rest.explain(request, explanation) {
            Course::Known(Ok(answer)) => Course::Known(Ok(shortened(answer))),
            course => course,
        }
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(shortened(next.run(request).await?)) })
    }
}

fn shortened(mut answer: Answer) -> Answer {
    if is_answer(&answer.response) {
        answer.response.keep_answers_only();
    }
    answer
}

/// Neither an error, nor a denial, which is proven by its authority section, nor a referral, which consists of it.
fn is_answer(response: &Response) -> bool {
    if response.rcode() != Rcode::NOERROR {
        return false;
    }
    let in_authority = |rtype: RecordType| {
        response.records().any(|record| record.section == Section::Authority && record.rtype == rtype)
    };
    response.answer_count() > 0 || !in_authority(RecordType::SOA) && !in_authority(RecordType::NS)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{Question, build, configure, responder};
    use crate::chain::{Chain, ProcessContext};
    use crate::message::{Name, Rcode, RecordType, Response, Section};
    use futures_util::FutureExt;
    use hickory_proto::rr::rdata::{A, NS, SOA};
    use hickory_proto::rr::{RData, Record};
    use std::sync::Arc;

    fn record(section: Section, data: RData) -> (Section, Record) {
        (section, Record::from_rdata(Name::parse("a.example.").unwrap().to_hickory().unwrap(), 60, data))
    }

    /// Records of each section of what the client gets.
    fn sections(rcode: Rcode, records: Vec<(Section, Record)>) -> [usize; 3] {
        let (block, said) = configure(parse, "minimal");
        assert_eq!(said, "");
        let handler = build(&block, &ProcessContext::new(1, 0)).handler.unwrap();
        let records = responder("records", move |request| {
            Ok(Response::from_records(request.query, request.wire, rcode, &records).unwrap())
        });
        let chain = Arc::new(Chain { handlers: Box::new([handler, records]) });
        let question = Question::new("a.example.", RecordType::A);
        let answer = chain.start().run(question.request()).now_or_never().unwrap().unwrap();
        [Section::Answer, Section::Authority, Section::Additional]
            .map(|section| answer.response.records().filter(|record| record.section == section).count())
    }

    #[test]
    fn an_answer_loses_what_was_not_asked_for_and_denials_referrals_and_errors_keep_it() {
        let name = || Name::parse("ns.example.").unwrap().to_hickory().unwrap();
        let address = |section| record(section, RData::A(A::new(192, 0, 2, 1)));
        let server = || record(Section::Authority, RData::NS(NS(name())));
        let start = || record(Section::Authority, RData::SOA(SOA::new(name(), name(), 1, 1, 1, 1, 1)));
        let (answer, glue) = (|| address(Section::Answer), || address(Section::Additional));
        assert_eq!(sections(Rcode::NOERROR, vec![answer(), server(), glue()]), [1, 0, 0]);
        assert_eq!(sections(Rcode::NOERROR, vec![glue()]), [0, 0, 0]);
        assert_eq!(sections(Rcode::NOERROR, vec![server(), glue()]), [0, 1, 1]);
        assert_eq!(sections(Rcode::NOERROR, vec![start()]), [0, 1, 0]);
        assert_eq!(sections(Rcode::NXDOMAIN, vec![answer(), start()]), [1, 1, 0]);
        assert_eq!(sections(Rcode::SERVFAIL, vec![server(), glue()]), [0, 1, 1]);
    }

    #[test]
    fn arguments_and_options_are_refused() {
        assert!(configure(parse, "minimal all").1.contains("Corefile:2:9"));
        assert!(configure(parse, "minimal {\n a b\n}").1.contains("minimal"));
    }
}
