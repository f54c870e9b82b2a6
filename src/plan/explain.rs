//! What a plan would do with a question, and why: which server block takes it, and what each of its directives says
//! ([`crate::chain::Handler::explain`]). Nobody is asked, and nothing is counted, kept or marked as used.

use super::explain_report::{BlockReport, ExplainReport, OutcomeKind, QuestionReport, StepReport};
use super::near_zones::near_zones;
use super::{Choice, Listener, ZoneBinding};
use crate::chain::{Answer, Course, Explanation, Following, Peer, Request, Transport};
use crate::corefile::Span;
use crate::message::{Name, Query, Rcode, RecordType, Response};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Zones, other blocks and other listen addresses that are told of.
const MOST_HINTS: usize = 8;

/// The port that a client is said to have.
const CLIENT_PORT: u16 = 53_000;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub name: Name,
    pub qtype: RecordType,
    /// Who asks; `None`: this machine itself.
    pub client: Option<IpAddr>,
    /// Which listen address is asked; `None`: the first that has a block for it.
    pub server: Option<SocketAddr>,
}

/// A question in wire form, and between whom.
pub(super) struct ExplainedQuestion {
    pub wire: Vec<u8>,
    pub query: Query,
    pub peer: Peer,
}

impl ExplainedQuestion {
    /// A query as a stub resolver sends it, without EDNS, and over UDP unless the listener speaks TLS.
    pub(super) fn new(asked: &Asked, listener: &Listener) -> Result<Self, ExplainError> {
        let wire = Query::compose(0, asked.name.as_wire(), asked.qtype, true);
        let query = Query::read(&wire).map_err(|rejection| ExplainError::Unreadable(rejection.to_string()))?;
        let local = local_address(listener.address, asked);
        let own: IpAddr = match local {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let client = SocketAddr::new(asked.client.unwrap_or(own), CLIENT_PORT);
        let transport = if listener.protocol.is_plain() { Transport::Udp } else { Transport::Tcp };
        Ok(Self { wire, query, peer: Peer { client, local, transport } })
    }

    pub(super) fn request(&self, received: Instant) -> Request<'_> {
        Request::new(&self.wire, &self.query, &self.peer, received)
    }
}

/// The address that the query comes to. A listener without `bind` has all addresses of this machine: the one that is
/// asked is meant, else loopback of the client's family, and of IPv4 if nobody says which.
fn local_address(listener: SocketAddr, asked: &Asked) -> SocketAddr {
    if !listener.ip().is_unspecified() {
        return listener;
    }
    let own: IpAddr = match (asked.client, listener) {
        (Some(IpAddr::V6(_)), SocketAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    let server = asked.server.map(|server| server.ip()).filter(|server| !server.is_unspecified());
    SocketAddr::new(server.unwrap_or(own), listener.port())
}

/// Whether queries to `server` come to a listener that has all addresses of this machine, or all of IPv4.
fn takes_all(listener: SocketAddr, server: SocketAddr) -> bool {
    listener.ip().is_unspecified() && listener.port() == server.port() && (listener.is_ipv6() || server.is_ipv4())
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    #[error("nothing is served")]
    NothingServed,
    #[error("nothing is served at {0}; there are: {1}")]
    NotServed(SocketAddr, String),
    #[error("the query that was made for it cannot be read: {0}; please report this")]
    Unreadable(String),
}

/// What the listener that is asked, of these, would do with a question at `now`.
///
/// # Errors
/// There is no such listener, or no such query.
pub(crate) fn explain(listeners: &[Arc<Listener>], asked: &Asked, now: Instant) -> Result<ExplainReport, ExplainError> {
    let (listener, others) = choose_listener(listeners, asked)?;
    let question = ExplainedQuestion::new(asked, listener)?;
    let mut report = listener.report(&question, now);
    report.hints.extend(others);
    Ok(report)
}

/// The listener that is meant, and what to know of the others.
pub(super) fn choose_listener<'l>(
    listeners: &'l [Arc<Listener>],
    asked: &Asked,
) -> Result<(&'l Arc<Listener>, Option<String>), ExplainError> {
    let addresses = |listeners: &mut dyn Iterator<Item = &Arc<Listener>>| {
        let texts: Vec<String> = listeners.take(MOST_HINTS).map(|listener| listener.address.to_string()).collect();
        texts.join(", ")
    };
    if let Some(server) = asked.server {
        let exact = listeners.iter().find(|listener| listener.address == server);
        let found = exact.or_else(|| listeners.iter().find(|listener| takes_all(listener.address, server)));
        return match found {
            Some(listener) => Ok((listener, None)),
            None => Err(ExplainError::NotServed(server, addresses(&mut listeners.iter()))),
        };
    }
    let block_of = |listener: &Listener| {
        let question = ExplainedQuestion::new(asked, listener).ok()?;
        let choice = listener.choose(&question.query, &question.wire, &question.peer)?;
        Some((choice.site.place, Arc::as_ptr(&choice.site.block)))
    };
    // Clients of pods speak plain DNS.
    let mut candidates: Vec<&Arc<Listener>> = listeners.iter().collect();
    candidates.sort_by_key(|listener| (block_of(listener).is_none(), !listener.protocol.is_plain()));
    let (first, rest) = candidates.split_first().ok_or(ExplainError::NothingServed)?;
    let block = block_of(first);
    let mut others = rest.iter().copied().filter(|other| block_of(other).is_some_and(|other| Some(other) != block));
    let others = addresses(&mut others);
    let hint = (!others.is_empty()).then(|| format!("another server block takes it at {others} (--server)"));
    Ok((first, hint))
}

impl Listener {
    fn report(&self, question: &ExplainedQuestion, now: Instant) -> ExplainReport {
        let ExplainedQuestion { query, wire, peer } = question;
        let mut report = ExplainReport {
            question: QuestionReport {
                name: query.name.to_string(),
                r#type: type_text(query.qtype),
                client: peer.client.ip().to_string(),
                server: peer.local.to_string(),
                transport: match self.protocol.is_plain() {
                    true => peer.transport.label().to_owned(),
                    false => self.protocol.name().to_lowercase(),
                },
            },
            ..ExplainReport::default()
        };
        let mut passed_over = Vec::new();
        self.zones.find_taker(&query.name, query.qtype, |site| {
            let takes = site.block.filter.as_ref().is_none_or(|filter| filter.takes(query, wire, peer));
            if !takes && passed_over.len() < MOST_HINTS {
                let at = self.place(site.place).unwrap_or_default();
                passed_over.push(format!("the view {} of {at} does not take it", site.block.view));
            }
            takes
        });
        report.hints = passed_over;
        let choice = self.choose(query, wire, peer);
        let zone = choice.and_then(|choice| self.zones.zone_of(choice.index));
        let near = near_zones(&query.name, zone.as_ref(), self.zones.zones());
        if !near.is_empty() {
            let near: Vec<String> = near.into_iter().map(|near| self.near_words(&near)).collect();
            report.hints.push(near.join("; "));
        }
        let Some(Choice { site, .. }) = choice else {
            report.verdict = "REFUSED: no server block has this name".to_owned();
            (report.outcome, report.rcode) = (OutcomeKind::Refused, Some(Rcode::REFUSED.to_string()));
            return report;
        };
        report.block = Some(BlockReport {
            zone: zone.map_or_else(|| ".".to_owned(), |zone| zone.to_string()),
            view: site.block.view.to_string(),
            at: self.place(site.place),
        });
        let mut explanation = Explanation::default();
        let course = self.explain_in(site, &question.request(now), &mut explanation);
        explanation.finish(&site.block.directives);
        self.fill(&mut report, explanation, course);
        report
    }

    /// That a zone is nearly one that the name is in.
    fn near_words(&self, near: &super::near_zones::NearZone) -> String {
        let at = self.zones.site(near.site).and_then(|site| self.place(site.place));
        let at = at.map_or_else(String::new, |at| format!(" ({at})"));
        format!("no server block has {}, but there is {}{at}", near.written, near.zone)
    }

    /// What the block of a site would do with a request that came to this listener.
    pub(super) fn explain_in(
        &self,
        site: &ZoneBinding,
        request: &Request<'_>,
        explanation: &mut Explanation,
    ) -> Course {
        let block = &site.block;
        let request = Request { server_index: site.server, zone: site.zone, udp_cap: block.udp_cap, ..*request };
        Following { chain: &block.chain, directives: &block.directives }.explain(&request, explanation)
    }

    fn fill(&self, report: &mut ExplainReport, explanation: Explanation, course: Course) {
        if let Some((verdict, place)) = explanation.verdict {
            report.verdict = verdict;
            report.at = self.place(place);
        }
        let step = |step: crate::chain::Step| StepReport {
            directive: step.keyword.to_owned(),
            at: self.place(step.place),
            does: step.effect,
            says: step.says,
        };
        report.steps = explanation.steps.into_iter().map(step).collect();
        report.asks_upstream = explanation.refreshes;
        match course {
            Course::Asks => (report.outcome, report.asks_upstream) = (OutcomeKind::Forwarded, true),
            Course::Known(Ok(Answer { response, from })) => {
                report.outcome = OutcomeKind::Answered;
                report.rcode = Some(response.rcode().to_string());
                report.answered_by = Some(from.to_owned());
                report.records = records(&response);
            }
            Course::Known(Err(failure)) if failure.is_silence() => report.outcome = OutcomeKind::Dropped,
            Course::Known(Err(failure)) => {
                (report.outcome, report.rcode) = (OutcomeKind::Failed, Some(failure.rcode.to_string()));
            }
        }
    }

    /// `FILE:LINE`.
    fn place(&self, place: Option<Span>) -> Option<String> {
        let place = place?;
        let file = self.files.get(place.file.0 as usize)?;
        Some(format!("{}:{}", file.display(), place.line))
    }
}

/// A type as a zone file has it: two that are no types have mnemonics in logs alone.
fn type_text(qtype: RecordType) -> String {
    match qtype {
        RecordType(number @ (0 | u16::MAX)) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

/// The records of an answer, as in a zone file.
pub(super) fn records(response: &Response) -> Vec<String> {
    response.records().map(|record| record.to_text(record.ttl)).collect()
}
