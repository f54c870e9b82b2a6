//! The `header` directive sets or clears header flags of queries that go on and of answers that come back; see
//! README.md beside this file.

use crate::chain::{
    Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Effect, Explanation, Following, Handler,
    Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Diagnostics, Directive, OptionLine};
use crate::message::{Header, Query};
use futures_util::future::BoxFuture;
use std::sync::Arc;

const KEYWORD: &str = "header";
const USAGE: &str = "write `query|response set|clear FLAGS…`, FLAGS of aa, ra, rd";

/// Reads one `header` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    if let Some(argument) = directive.arguments.first() {
        let message = format!("what `header` changes stands in its block; `{}` is ignored", argument.text);
        diagnostics.warning(argument.span, message).help(USAGE);
    }
    if directive.options.is_empty() {
        diagnostics.error(directive.keyword.span, "`header` without a rule").help(USAGE);
    }
    let mut rules = HeaderRules::default();
    for line in &directive.options {
        read(line, &mut rules, diagnostics);
    }
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(rules) });
}

/// Reads `query|response set|clear FLAGS…`.
fn read(line: &OptionLine, rules: &mut HeaderRules, diagnostics: &mut Diagnostics) {
    let is_query = match line.name.text.to_ascii_lowercase().as_str() {
        "query" => true,
        "response" => false,
        _ => {
            let message = format!("`header` changes neither query nor response with `{}`", line.name.text);
            return diagnostics.error(line.name.span, message).help(USAGE);
        }
    };
    let Some((action, flags)) = line.arguments.split_first().filter(|(_, flags)| !flags.is_empty()) else {
        let message = format!("`{}` without an action and flags", line.name.text);
        return diagnostics.error(line.name.span, message).help(USAGE);
    };
    let on = match action.text.to_ascii_lowercase().as_str() {
        "set" => true,
        "clear" => false,
        _ => {
            let message = format!("`header` can set and clear flags, not `{}`", action.text);
            return diagnostics.error(action.span, message).help(USAGE);
        }
    };
    for word in flags {
        let flag = match word.text.to_ascii_lowercase().as_str() {
            "aa" => AUTHORITATIVE,
            "ra" => RECURSION_AVAILABLE,
            "rd" => RECURSION_DESIRED,
            _ => {
                let message = format!("`{}` is no flag that `header` can change", word.text);
                diagnostics.error(word.span, message).help(USAGE);
                continue;
            }
        };
        match (is_query, flag) {
            (true, RECURSION_DESIRED) => rules.recursion_desired = Some(on),
            (true, _) => {
                let message = format!("`{}` means nothing in a query, and is not sent upstream", word.text);
                diagnostics.warning(word.span, message).help("`query set rd` and `query clear rd` have an effect");
            }
            (false, RECURSION_DESIRED) => {
                let message = "an answer repeats the client's RD (RFC 1035 section 4.1.1), so this is ignored";
                diagnostics
                    .warning(word.span, message)
                    .help("take `rd` away; `query set rd` changes what is asked upstream");
            }
            (false, flag) => rules.response.push((flag, on)),
        }
    }
}

/// Header flags (RFC 1035 section 4.1.1).
const AUTHORITATIVE: u16 = 0x0400;
const RECURSION_AVAILABLE: u16 = 0x0080;
const RECURSION_DESIRED: u16 = 0x0100;

/// What is changed.
#[derive(Clone, Debug, Default)]
struct HeaderRules {
    /// RD of the query as it goes on; `None`: the client's.
    recursion_desired: Option<bool>,
    /// Flags of the response, and what they become, one after another.
    response: Vec<(u16, bool)>,
}

impl Configured for HeaderRules {
    fn build(&self, _context: &BuildContext<'_>) -> Result<Built, BuildError> {
        Ok(Built { handler: Some(Arc::new(HeaderFlags(self.clone()))), ..Built::default() })
    }
}

/// The running directive.
struct HeaderFlags(HeaderRules);

impl HeaderFlags {
    fn with_flags(&self, mut answer: Answer) -> Answer {
        for (flag, on) in &self.0.response {
            answer.response.set_flag(*flag, *on);
        }
        answer
    }

    /// The query with another RD; `None` if it stays.
    fn changed(&self, query: &Query) -> Option<Query> {
        let flags = match self.0.recursion_desired? {
            true => query.header.flags | RECURSION_DESIRED,
            false => query.header.flags & !RECURSION_DESIRED,
        };
        (flags != query.header.flags).then(|| Query { header: Header { flags, ..query.header }, ..query.clone() })
    }
}

impl Handler for HeaderFlags {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let changed = self.changed(request.query);
        if let Some(query) = &changed {
            explanation.set_effect(Effect::Changes);
            let is_set = query.header.flags & RECURSION_DESIRED != 0;
            explanation.say(format!("the query goes on with RD {}", if is_set { "set" } else { "clear" }));
        }
        for (flag, on) in &self.0.response {
            explanation.set_effect(Effect::Changes);
            let name = if *flag == AUTHORITATIVE { "AA" } else { "RA" };
            explanation.say(format!("{name} of the answer is {}", if *on { "set" } else { "cleared" }));
        }
        let query = changed.as_ref().unwrap_or(request.query);
        match rest.explain(&Request { query, ..*request }, explanation) {
            Course::Known(Ok(answer)) => Course::Known(Ok(self.with_flags(answer))),
            course => course,
        }
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let changed = self.changed(request.query);
            let query = changed.as_ref().unwrap_or(request.query);
            Ok(self.with_flags(next.run(Request { query, ..request }).await?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{RECURSION_AVAILABLE, RECURSION_DESIRED, parse};
    use crate::chain::testing::{Question, build, configure, responder};
    use crate::chain::{Chain, ProcessContext};
    use crate::message::{Rcode, RecordType, Response};
    use futures_util::FutureExt;
    use std::sync::Arc;

    /// Flags of the reply to a query with RD as told.
    fn flags(rules: &str, recursion_desired: bool) -> u16 {
        let (block, said) = configure(parse, &format!("header {{\n{rules}\n}}"));
        assert!(!said.contains("error"), "{said}");
        let handler = build(&block, &ProcessContext::new(1, 0)).handler.unwrap();
        // RA as the query's RD is.
        let repeats = responder("repeats", |request| {
            let mut response = Response::empty(request.query, request.wire, Rcode::NOERROR);
            response.set_flag(RECURSION_AVAILABLE, request.query.header.recursion_desired());
            Ok(response)
        });
        let chain = Arc::new(Chain { handlers: Box::new([handler, repeats]) });
        let mut wire = Question::new("a.example.", RecordType::A).wire;
        wire[2] = u8::from(recursion_desired);
        let question = Question::from_wire(wire);
        let answer = chain.start().run(question.request()).now_or_never().unwrap().unwrap();
        let reply = question.reply(&answer);
        u16::from_be_bytes([reply[2], reply[3]])
    }

    #[test]
    fn flags_of_the_response_are_set_and_cleared_in_order() {
        assert_eq!(flags("response set aa", false), 0x8400);
        assert_eq!(flags("response clear ra", true), 0x8100);
        assert_eq!(flags("Response SET RA AA\nresponse clear aa", false), 0x8080);
    }

    #[test]
    fn rd_of_the_query_is_changed_for_those_who_answer_and_the_client_gets_its_own_back() {
        assert_eq!(flags("query set rd", false) & (RECURSION_AVAILABLE | RECURSION_DESIRED), RECURSION_AVAILABLE);
        assert_eq!(flags("query clear rd", true) & (RECURSION_AVAILABLE | RECURSION_DESIRED), RECURSION_DESIRED);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_has_no_effect_is_a_warning() {
        for (text, place, expected) in [
            ("header", "2:1: error", "without a rule"),
            ("header {\n request set ra\n}", "3:2: error", "`request`"),
            ("header {\n response\n}", "3:2: error", "without an action"),
            ("header {\n response set\n}", "3:2: error", "without an action"),
            ("header {\n response put ra\n}", "3:11: error", "`put`"),
            ("header {\n response set ra tc\n}", "3:18: error", "`tc`"),
            ("header x {\n response set ra\n}", "2:8: warning", "`x` is ignored"),
            ("header {\n query set ra\n}", "3:12: warning", "means nothing"),
            ("header {\n response clear rd\n}", "3:17: warning", "repeats the client's RD"),
        ] {
            let said = configure(parse, text).1;
            assert!(said.contains(&format!("Corefile:{place}")) && said.contains(expected), "{text}: {said}");
            assert!(said.contains("help:"), "{said}");
        }
    }
}
