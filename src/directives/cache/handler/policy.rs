//! The settings of one cache that decide how long an answer is served.

use super::super::classify::Lifetimes;
use super::super::entry::{Age, Entry, Moment};
use super::super::parse::{Prefetch, Stale};
use crate::message::{Rcode, Response};

/// What decides how long answers are served.
pub(crate) struct Policy {
    pub lifetimes: Lifetimes,
    pub prefetch: Option<Prefetch>,
    pub stale: Option<Stale>,
    pub keep_ttl: bool,
}

impl Policy {
    /// Seconds that it is served after it has expired. A failure of the upstream is not: it says nothing about the
    /// name, and is believed for five minutes at most (RFC 2308 section 7.1).
    #[inline]
    fn stale_seconds(&self, entry: &Entry<Response>) -> u32 {
        match self.stale {
            Some(stale) if !is_failure(entry.payload.rcode()) => stale.up_to,
            _ => 0,
        }
    }

    /// Its age under this configuration.
    #[inline]
    pub(crate) fn age(&self, entry: &Entry<Response>, now: Moment) -> Age {
        entry.age(now, self.lifetimes.cap(entry.kind(), entry.payload.rcode()), self.stale_seconds(entry))
    }

    /// Positive answers go before denials while they may be served stale.
    pub(crate) fn prefers_positive(&self) -> bool {
        self.stale.is_some_and(|stale| stale.prefer_positive && stale.up_to > 0)
    }
}

/// Says something of the upstream and nothing of the name.
pub(super) fn is_failure(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::SERVFAIL | Rcode::NOTIMP)
}
