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
        let (place, target) = self.find(response)?;
        let asked = asking_for(&target, request);
        let found = match lookup.ask(&asked, KEYWORD).await {
            Ok(answer) => answer.response,
            Err(failure) => {
                tracing::debug!("rewrite: the CNAME target {target} has no answer: {failure}");
                return None;
            }
        };
        join(response, place, &target, &found).ok()
    }

    /// The first alias that the rule is for: its place in the answer section, and the new target.
    fn find(&self, response: &Response) -> Option<(usize, LowerName)> {
        let answers = response.records().take(response.answer_count()).enumerate();
        for (place, record) in answers.filter(|(_, record)| record.rtype == RecordType::CNAME) {
            let target = record.data().ok()?.names.first()?.to_lower();
            match self.0.apply(&Subject::new(&target)) {
                Some(Ok(target)) => return Some((place, target)),
                Some(Err(text)) => {
                    tracing::warn!("rewrite: the CNAME target {target} becomes `{text}`, which is no name")
                }
                None => {}
            }
        }
        None
    }
}

/// The request with the question for `target`, class IN.
fn asking_for(target: &LowerName, request: &OwnedRequest) -> OwnedRequest {
    let mut wire = SmallVec::new();
    let borrowed = request.borrow();
    let query = request.query.with_question(&request.wire, (target, request.query.qtype, Class::IN), &mut wire);
    OwnedRequest { wire, query, ..borrowed.to_owned() }
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
