//! What is said over the admin socket: a request, then its answer, each in a line of JSON. Both ends are mostly of one
//! build, but what comes from the other side is checked all the same. Pure.

use super::explain::{ExplainRequest, ExplainTask};
use crate::directives::cache::Selection;
use crate::message::{LowerName, NameError, NamePattern, NamePatternError, RecordType};
use serde::{Deserialize, Serialize};

/// Octets of a request, its end of line included.
pub(super) const LONGEST_REQUEST: usize = 4096;

/// Answers that are listed at most, whatever is asked.
const MOST_ANSWERS: usize = 10_000;

/// From who asks about caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CacheRequest {
    /// What the caches hold, in numbers.
    Stats,
    /// Answers that they hold, of names like the pattern.
    List { filter: Option<String>, limit: usize },
    /// The answers to questions for a name, and of a type, with their records.
    Get { name: String, qtype: Option<u16> },
    /// Let answers go.
    Flush(FlushTarget),
}

/// A request: of one command or another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AdminRequest {
    Cache(CacheRequest),
    Explain(ExplainRequest),
}

/// What is to be gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlushTarget {
    All,
    Name(String),
    /// The name and all below it.
    Zone(String),
}

/// The last line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AdminReply {
    /// What was asked for.
    Done(serde_json::Value),
    /// Why it cannot be had.
    Failed(String),
}

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(
        "not a request of the admin socket: {0}; the program that asks and the one that serves must be of the same build"
    )]
    Malformed(#[from] serde_json::Error),
    #[error("the name cannot be read: {0}")]
    Name(#[from] NameError),
    #[error(transparent)]
    Pattern(#[from] NamePatternError),
}

/// What is to be done, checked.
#[derive(Debug)]
pub(super) enum Task {
    Cache(CacheTask),
    Explain(ExplainTask),
}

/// What of the caches is wanted.
#[derive(Debug)]
pub(super) enum CacheTask {
    Stats,
    List {
        selection: Selection,
        limit: usize,
        has_records: bool,
    },
    /// With what it is called in the log.
    Flush {
        selection: Selection,
        called: String,
    },
}

/// A line of JSON.
pub(super) fn line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a request's line.
pub(super) fn read_request(line: &[u8]) -> Result<Task, RequestError> {
    let request = match serde_json::from_slice(line)? {
        AdminRequest::Explain(request) => return Ok(Task::Explain(request.read()?)),
        AdminRequest::Cache(request) => request,
    };
    Ok(Task::Cache(match request {
        CacheRequest::Stats => CacheTask::Stats,
        CacheRequest::List { filter, limit } => {
            let pattern = filter.as_deref().map(NamePattern::parse).transpose()?;
            let selection = pattern.map_or(Selection::All, Selection::Pattern);
            CacheTask::List { selection, limit: limit.min(MOST_ANSWERS), has_records: false }
        }
        CacheRequest::Get { name, qtype } => {
            let selection = Selection::Name(LowerName::parse(&name)?, qtype.map(RecordType));
            CacheTask::List { selection, limit: MOST_ANSWERS, has_records: true }
        }
        CacheRequest::Flush(target) => {
            let (selection, called) = match target {
                FlushTarget::All => (Selection::All, "all answers".to_owned()),
                FlushTarget::Name(name) => {
                    let name = LowerName::parse(&name)?;
                    let called = format!("answers for {name}");
                    (Selection::Name(name, None), called)
                }
                FlushTarget::Zone(zone) => {
                    let zone = LowerName::parse(&zone)?;
                    let called = format!("answers for {zone} and all below it");
                    (Selection::Zone(zone), called)
                }
            };
            CacheTask::Flush { selection, called }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task(request: &CacheRequest) -> CacheTask {
        match read_request(&line(&AdminRequest::Cache(request.clone())).unwrap()).unwrap() {
            Task::Cache(task) => task,
            Task::Explain(_) => panic!("{request:?}"),
        }
    }

    #[test]
    fn a_request_comes_out_as_it_went_in() {
        assert!(matches!(task(&CacheRequest::Stats), CacheTask::Stats));
        let list = CacheRequest::List { filter: Some("*.internal".to_owned()), limit: usize::MAX };
        assert!(matches!(task(&list), CacheTask::List { limit: MOST_ANSWERS, has_records: false, .. }));
        let get = CacheRequest::Get { name: "a.example".to_owned(), qtype: Some(28) };
        assert!(matches!(task(&get), CacheTask::List { has_records: true, .. }));
        for (target, expected) in [
            (FlushTarget::All, "all answers"),
            (FlushTarget::Name("A.\\027[31m".to_owned()), "answers for a.\\027[31m."),
            (FlushTarget::Zone("Example".to_owned()), "answers for example. and all below it"),
        ] {
            let CacheTask::Flush { called, .. } = task(&CacheRequest::Flush(target)) else { panic!("{expected}") };
            assert_eq!(called, expected);
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_what_is_wrong() {
        for (wrong, expected) in [
            (&b"{}"[..], "not a request"),
            (b"{\"cache\":\"stats\"} x", "not a request"),
            (br#"{"cache":{"list":{"limit":1,"more":2}}}"#, "not a request"),
            (br#"{"cache":{"get":{"name":"a..b"}}}"#, "the name cannot be read"),
            (br#"{"cache":{"flush":{"name":""}}}"#, "the name cannot be read"),
            (
                br#"{"explain":{"name":"a..b","qtype":1,"client":null,"server":null,"asks":false}}"#,
                "the name cannot be read",
            ),
            (br#"{"explain":{"name":"a","qtype":1,"client":"x","server":null,"asks":false}}"#, "not a request"),
            (b"\xff", "not a request"),
            (b"", "not a request"),
        ] {
            let error = read_request(wrong).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let deep = [b"[".repeat(4000), b"]".repeat(4000)].concat();
        assert!(read_request(&deep).is_err(), "without a stack for it");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_read_without_a_panic(
            octets in proptest::collection::vec(any::<u8>(), 0..200),
            text in ".{0,80}"
        ) {
            _ = read_request(&octets);
            let list = CacheRequest::List { filter: Some(text.clone()), limit: 1 };
            let flush = CacheRequest::Flush(FlushTarget::Zone(text.clone()));
            let explain = ExplainRequest { name: text, qtype: 1, client: None, server: None, asks: false };
            for request in [AdminRequest::Cache(list), AdminRequest::Cache(flush), AdminRequest::Explain(explain)] {
                _ = read_request(&line(&request).unwrap());
            }
        }
    }
}
