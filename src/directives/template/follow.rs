//! The target of an alias that a template makes, asked of this server itself: a client that wants an address gets it
//! with the alias.

use super::KEYWORD;
use crate::chain::{Lookup, OwnedRequest, Request};
use crate::message::{Name, Query, Response, Section};

/// The target of a CNAME record in wire form.
pub(super) fn target(record: &[u8]) -> Option<Name> {
    let (_, after) = Name::read(record, 0).ok()?;
    // Type, class, TTL and length come before the data.
    Name::read(record, after + 10).ok().map(|(name, _)| name)
}

/// What this server answers to the client's query with another name; `None` if that fails, and the alias is then all
/// there is.
pub(super) async fn ask(request: &Request<'_>, target: &Name, lookup: &Lookup) -> Option<Response> {
    let asked = question(request, target)?;
    match lookup.ask(&asked, KEYWORD).await {
        Ok(answer) => Some(answer.response),
        Err(failure) => {
            tracing::debug!("template: the CNAME target {target} has no answer: {failure}");
            None
        }
    }
}

/// The client's query with another name.
pub(super) fn question(request: &Request<'_>, target: &Name) -> Option<OwnedRequest> {
    let (before, rest) = request.wire.split_at_checked(12)?;
    let after = rest.get(usize::from(request.query.question_end).checked_sub(12)?..)?;
    let (qtype, qclass) = (request.query.qtype.0.to_be_bytes(), request.query.qclass.0.to_be_bytes());
    let wire = [before, target.as_wire(), &qtype, &qclass, after].concat();
    let query = Query::read(&wire).ok()?;
    Some(Request { wire: &wire, query: &query, ..*request }.to_owned())
}

/// The answer section, names written out.
pub(super) fn answers(response: &Response) -> Vec<(Section, Vec<u8>)> {
    let records = response.records().take(response.answer_count());
    let written = records.filter_map(|record| {
        let content = record.data().ok()?;
        let mut data = content.head.to_vec();
        content.names.iter().for_each(|name| data.extend_from_slice(name.as_wire()));
        data.extend_from_slice(content.rest);
        let mut wire = record.owner().as_wire().to_vec();
        wire.extend_from_slice(&record.rtype.0.to_be_bytes());
        wire.extend_from_slice(&record.class.0.to_be_bytes());
        wire.extend_from_slice(&record.ttl.to_be_bytes());
        wire.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        wire.extend_from_slice(&data);
        Some((Section::Answer, wire))
    });
    written.collect()
}
