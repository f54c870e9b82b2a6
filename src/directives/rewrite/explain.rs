//! What the rules of a server block would do with a request, in words.

use super::change::RewrittenRequest;
use super::edns::{EdnsOperation, EdnsOption, EdnsRule};
use super::rule::{RewriteAction, RewriteOutcome, RewriteRule, judge};
use super::{KEYWORD, Rewrite, rewritten};
use crate::chain::{Answer, Course, Effect, Explanation, Failure, Following, Request};
use crate::message::{Edit, Rcode};
use std::slice::from_ref;

impl Rewrite {
    /// See [`crate::chain::Handler::explain`].
    pub(super) fn explain_rules(
        &self,
        request: &Request<'_>,
        rest: Following<'_>,
        explanation: &mut Explanation,
    ) -> Course {
        let step = explanation.step();
        let mut change = RewrittenRequest::new(request.query);
        let mut matched = 0;
        let mut code_place = None;
        for rule in self.rules.iter() {
            // Judged one by one, each says whether it is for what those before have made.
            change.is_touched = false;
            let outcome = judge(from_ref(rule), request, false, &mut change);
            if matches!(outcome, RewriteOutcome::Untouched | RewriteOutcome::Slow) {
                continue;
            }
            if matched > 0 {
                explanation.again(step);
            }
            matched += 1;
            explanation.set_place(rule.place);
            if let RewriteOutcome::NoName(text) = outcome {
                explanation.say(format!("makes `{text}` of the name, which is none"));
                let failure = Failure::servfail(KEYWORD, format!("invalid name after rewrite: {text}"));
                return explanation.end(Err(failure), None);
            }
            explanation.set_effect(Effect::Changes);
            explanation.say(rule.words(&change));
            if matches!(rule.action, RewriteAction::Rcode(..)) {
                code_place = Some(rule.place);
            }
            if !rule.goes_on {
                break;
            }
        }
        if matched == 0 {
            explanation.say("no rule is for it");
            return rest.explain(request, explanation);
        }
        // That the answer has another code when it comes back.
        let tell_code = |explanation: &mut Explanation, from: Rcode, to: Rcode| {
            if from != to {
                explanation.again(step);
                code_place.into_iter().for_each(|place| explanation.set_place(place));
                explanation.say(format!("{from} becomes {to}"));
                explanation.settle(Effect::Changes, format!("{to} by {KEYWORD}"));
            }
        };
        let asked = rewritten(request, &change);
        match rest.explain(&asked.borrow(), explanation) {
            Course::Known(Ok(Answer { mut response, from })) => {
                for rule in change.cname_rules() {
                    let Some(lookup) = self.lookup.get() else { continue };
                    let Some(alias) = rule.find(&response, |_, _| {}) else { continue };
                    explanation.again(step);
                    explanation.set_effect(Effect::Changes);
                    explanation
                        .say(format!("the alias leads to {} instead, which is asked for in turn:", alias.target));
                    // What becomes of that question does not decide what becomes of this one.
                    let verdict = explanation.verdict.clone();
                    match lookup.explain(&alias.question(&asked), explanation) {
                        Course::Asks => return Course::Asks,
                        Course::Known(Ok(found)) => {
                            response = alias.join(&response, &found.response).unwrap_or(response)
                        }
                        Course::Known(Err(_)) => {}
                    }
                    explanation.verdict = verdict;
                }
                if change.leaves_records() {
                    return Course::Known(Ok(Answer { response, from }));
                }
                match response.edited(request.query, request.wire, &change) {
                    Ok(edited) => {
                        tell_code(explanation, response.rcode(), edited.rcode());
                        Course::Known(Ok(Answer { response: edited, from }))
                    }
                    Err(error) => {
                        explanation.again(step);
                        let failure = Failure::servfail(KEYWORD, format!("the answer cannot be rewritten: {error}"));
                        explanation.end(Err(failure), None)
                    }
                }
            }
            Course::Known(Err(failure)) => {
                let rcode = change.rcode(failure.rcode);
                tell_code(explanation, failure.rcode, rcode);
                Course::Known(Err(Failure { rcode, ..failure }))
            }
            Course::Asks => Course::Asks,
        }
    }
}

impl RewriteRule {
    /// What it has done, which is the last that `change` has in it.
    fn words(&self, change: &RewrittenRequest<'_>) -> String {
        match &self.action {
            RewriteAction::Name(rule) => {
                let back = match rule.auto || !rule.answers.is_empty() {
                    true => "; names of the answer are written back",
                    false => "",
                };
                format!("the name becomes {}{back}", change.name())
            }
            RewriteAction::Type(from, to) => format!("type {from} becomes {to}"),
            RewriteAction::Class(from, to) => format!("class {from} becomes {to}"),
            RewriteAction::Edns(rule) => rule.words(),
            RewriteAction::Ttl(_, least, most) if least == most => format!("TTLs of the answer become {least} s"),
            RewriteAction::Ttl(_, least, u32::MAX) => format!("TTLs of the answer are {least} s at least"),
            RewriteAction::Ttl(_, least, most) => format!("TTLs of the answer are {least} to {most} s"),
            RewriteAction::Rcode(_, from, to) => format!("{from} of the answer becomes {to}"),
            RewriteAction::Cname(_) => "targets of aliases in the answer that it is for lead elsewhere".to_owned(),
        }
    }
}

impl EdnsRule {
    fn words(&self) -> String {
        let option = match &self.option {
            EdnsOption::Local(code, _) => format!("EDNS option {code}"),
            EdnsOption::Nsid => "the EDNS option NSID".to_owned(),
            EdnsOption::Subnet(_) => "the client subnet".to_owned(),
        };
        match self.operation {
            EdnsOperation::Set => format!("sends {option} upstream"),
            EdnsOperation::Append => format!("sends {option} upstream, unless the client has sent one"),
            EdnsOperation::Replace => format!("sends {option} upstream in the place of the client's"),
            EdnsOperation::Unset => format!("does not send {option} upstream"),
        }
    }
}
