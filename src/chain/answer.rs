//! The outcome of a chain: an answer, or why there is none.

use crate::message::{Rcode, Response};
use std::fmt;

/// An answer and the directive that gave it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub response: Response,
    /// Keyword, for the `plugin` label of `coredns_dns_responses_total`.
    pub from: &'static str,
}

/// No directive could answer. The server answers with `rcode`, the question and no records; `errors` logs the cause.
#[derive(Clone, Debug)]
pub struct Failure {
    pub rcode: Rcode,
    /// Keyword of the directive that failed.
    pub directive: &'static str,
    /// What failed, on what. For `errors`.
    pub cause: String,
}

impl Failure {
    /// Stands for a code where nothing is to be said; no code has more than 12 bits (RFC 6891 section 6.1.3).
    const SILENCE: Rcode = Rcode(u16::MAX);

    /// No failure, but nothing is to be said to this client.
    pub fn silence(directive: &'static str) -> Self {
        Self { rcode: Self::SILENCE, directive, cause: "the client is not answered".to_owned() }
    }
    /// True if nothing is to be said to the client.
    pub fn is_silence(&self) -> bool {
        self.rcode == Self::SILENCE
    }
    /// A failure answered with SERVFAIL.
    pub fn servfail(directive: &'static str, cause: impl fmt::Display) -> Self {
        Self { rcode: Rcode::SERVFAIL, directive, cause: cause.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin/{}: {}", self.directive, self.cause)
    }
}
impl std::error::Error for Failure {}

pub(crate) type Outcome = Result<Answer, Failure>;
