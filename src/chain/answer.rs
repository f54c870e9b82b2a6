//! What a chain gives back.

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

pub type Outcome = Result<Answer, Failure>;
