//! `cname`: the target of a CNAME record is rewritten, and asked for in place of the old one.

use super::KEYWORD;
use super::name_match::Subject;
use super::name_rule::NameRule;
use crate::chain::{Lookup, OwnedRequest};
use crate::message::{Class, LowerName, RecordType, Response};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::CNAME;
use smallvec::SmallVec;

/// Which targets become which.
#[derive(Debug)]
pub(super) struct CnameRule(pub NameRule);

/// An alias of an answer that is to lead elsewhere.
pub(super) struct NewAlias {
    /// Its place in the answer section.
    place: usize,
    pub target: LowerName,
}

impl CnameRule {
    /// The answer with the first alias that the rule is for leading elsewhere: the aliases up to that one, its target
    /// rewritten, and what this server answers to a question for the new target. `None` if the rule is for none, or
    /// that question has no answer.
    pub(super) async fn follow(
        &self,
        response: &Response,
        request: &OwnedRequest,
        lookup: &Lookup,
    ) -> Option<Response> {
        let alias = self.find(response, |target, text| {
            tracing::warn!("rewrite: the CNAME target {target} becomes `{text}`, which is no name");
        })?;
        match lookup.ask(&alias.question(request), KEYWORD).await {
            Ok(answer) => alias.join(response, &answer.response),
            Err(failure) => {
                tracing::debug!("rewrite: the CNAME target {} has no answer: {failure}", alias.target);
                None
            }
        }
    }

    /// The first alias that the rule is for. `tell` is told of each that would lead to a text that is no name.
    pub(super) fn find(&self, response: &Response, tell: impl Fn(&LowerName, &str)) -> Option<NewAlias> {
        let answers = response.records().take(response.answer_count()).enumerate();
        for (place, record) in answers.filter(|(_, record)| record.rtype == RecordType::CNAME) {
            let target = record.data().ok()?.names.first()?.to_lower();
            match self.0.apply(&Subject::new(&target)) {
                Some(Ok(target)) => return Some(NewAlias { place, target }),
                Some(Err(text)) => tell(&target, &text),
                None => {}
            }
        }
        None
    }
}

impl NewAlias {
    /// The request with the question for the new target, class IN.
    pub(super) fn question(&self, request: &OwnedRequest) -> OwnedRequest {
        let mut wire = SmallVec::new();
        let borrowed = request.borrow();
        let question = (&self.target, request.query.qtype, Class::IN);
        let query = request.query.with_question(&request.wire, question, &mut wire);
        OwnedRequest { wire, query, ..borrowed.to_owned() }
    }

    /// The answer with this alias in it, and what it leads to.
    pub(super) fn join(&self, response: &Response, found: &Response) -> Option<Response> {
        join(response, self.place, &self.target, found).ok()
    }
}

/// The aliases of an answer up to the one at `place`, which gets this target, and then the answers to the question for
/// that.
fn join(
    response: &Response,
    place: usize,
    target: &LowerName,
    found: &Response,
) -> Result<Response, Box<dyn std::error::Error>> {
    let mut message = response.to_message()?;
    let mut answers = std::mem::take(&mut message.answers);
    answers.truncate(place + 1);
    if let Some(alias) = answers.last_mut() {
        alias.data = RData::CNAME(CNAME(target.to_name().to_hickory()?));
    }
    answers.retain(|record| matches!(record.data, RData::CNAME(_)));
    // What is said of the old target, that it is not there perhaps, does not hold for the new one.
    let found_message = found.to_message()?;
    answers.extend(found_message.answers);
    message.answers = answers;
    message.authorities = found_message.authorities;
    message.metadata.response_code = found_message.metadata.response_code;
    message.metadata.truncation = found.is_truncated();
    Ok(Response::from_message(&message)?)
}
