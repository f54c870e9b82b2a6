//! What one worker records: the stretch of time that is not over, and its last failures.

use super::sampler::MEAN;
use super::tally::{Asked, Route, SlowQuery, Tally};
use crate::message::{Rcode, RecordType};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Failures that are kept.
pub(super) const FAILURES: usize = 64;
/// Characters of a failure's reason.
const REASON: usize = 200;

/// A query that got an error, or nothing.
#[derive(Clone, Debug)]
pub(super) struct FailedQuery {
    pub at: Instant,
    /// `None` of a message that cannot be read.
    pub asked: Option<(Box<[u8]>, RecordType)>,
    pub client: IpAddr,
    /// `None`: nothing was said.
    pub rcode: Option<Rcode>,
    pub reason: Box<str>,
    pub upstream: Option<SocketAddr>,
}

/// A query whose answer was not at hand: it was answered after a while, or not.
#[derive(Clone, Copy)]
pub(crate) struct Miss<'a> {
    pub asked: Asked<'a>,
    pub began: Instant,
    pub took: Duration,
    /// `None`: nothing was said.
    pub rcode: Option<Rcode>,
    /// Keyword of the handler that answered or failed.
    pub answered_by: &'static str,
    /// Why it failed, if a handler has said so.
    pub cause: Option<&'a str>,
    pub route: Route,
}

/// Empty it takes no memory.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(super) tally: Tally,
    pub(super) failures: VecDeque<FailedQuery>,
}

impl Recorder {
    /// One of [`MEAN`] hits.
    pub(crate) fn sample(&mut self, asked: &Asked<'_>, rcode: Rcode) {
        self.tally.hits += u64::from(MEAN);
        self.tally.count(asked, Some(rcode), MEAN.into());
    }

    /// One whose answer was not at hand.
    pub(crate) fn miss(&mut self, query: &Miss<'_>) {
        let Miss { asked, began, took, rcode, answered_by, cause, route } = *query;
        let is_failure = is_failure(rcode);
        self.tally.misses += 1;
        self.tally.count(&asked, rcode, 1);
        if let Some(upstream) = route.upstream {
            self.tally.count_upstream(upstream, took, is_failure);
        }
        if is_failure {
            let reason = match (cause, answered_by) {
                (Some(cause), "") => cause.to_owned(),
                (Some(cause), keyword) => format!("{keyword}: {cause}"),
                (None, "") => "no directive has answered".to_owned(),
                (None, keyword) => format!("{keyword} says so"),
            };
            self.note_failure(Some(&asked), asked.client, began + took, rcode, &reason, route.upstream);
        }
        if self.tally.is_slow(took) {
            let Asked { name, qtype, client } = asked;
            self.tally.take_slow(SlowQuery {
                began,
                took,
                name: name.into(),
                qtype,
                client,
                rcode,
                answered_by,
                route,
            });
        }
    }

    /// One that got an error or nothing at once.
    pub(crate) fn failure(&mut self, asked: &Asked<'_>, at: Instant, rcode: Option<Rcode>, reason: &str) {
        match rcode {
            Some(Rcode::REFUSED | Rcode::FORMERR | Rcode::NOTIMP) | None => self.tally.rejected += 1,
            Some(_) => self.tally.hits += 1,
        }
        self.tally.count(asked, rcode, 1);
        self.note_failure(Some(asked), asked.client, at, rcode, reason, None);
    }

    /// A message that is no query that can be answered.
    pub(crate) fn malformed(&mut self, client: IpAddr, at: Instant, rcode: Option<Rcode>, reason: &str) {
        self.tally.rejected += 1;
        self.tally.malformed += 1;
        self.tally.count_unread(client, rcode);
        self.note_failure(None, client, at, rcode, reason, None);
    }

    fn note_failure(
        &mut self,
        asked: Option<&Asked<'_>>,
        client: IpAddr,
        at: Instant,
        rcode: Option<Rcode>,
        reason: &str,
        upstream: Option<SocketAddr>,
    ) {
        if self.failures.len() == FAILURES {
            self.failures.pop_front();
        }
        let asked = asked.map(|asked| (asked.name.into(), asked.qtype));
        let reason = reason.chars().take(REASON).collect();
        self.failures.push_back(FailedQuery { at, asked, client, rcode, reason, upstream });
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.tally.memory() + self.failures.capacity() * size_of::<FailedQuery>() + texts(&self.failures)
    }
}

/// Octets of memory of what failures hold.
#[cfg(test)]
pub(super) fn texts<'a>(failures: impl IntoIterator<Item = &'a FailedQuery>) -> usize {
    let name = |failed: &FailedQuery| failed.asked.as_ref().map_or(0, |(name, _)| name.len());
    failures.into_iter().map(|failed| name(failed) + failed.reason.len() + 32).sum()
}

/// Whether an answer is none. That a name does not exist is one.
pub(crate) fn is_failure(rcode: Option<Rcode>) -> bool {
    !matches!(rcode, Some(Rcode::NOERROR | Rcode::NXDOMAIN))
}
