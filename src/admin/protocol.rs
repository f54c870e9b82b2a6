//! What is said over the admin socket: a request, then its answer, each in a line of JSON. What is shown as it comes
//! has more lines than one. Both ends are mostly of one build, but what comes from the other side is checked all the
//! same. Pure.

use super::explain::{ExplainRequest, ExplainRequestError, ExplainTask};
use super::log_level::LogLevelRequest;
use crate::directives::cache::Selection;
use crate::message::{LowerName, NameError, NamePattern, NamePatternError, RecordType};
use crate::query_tap::{FilterError, FilterText, QueryReport, TapFilter};
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

/// From who wants to see queries as they are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueriesRequest {
    pub filter: FilterText,
    /// Show so many, and end.
    pub limit: Option<u64>,
    /// Show the messages themselves.
    pub has_messages: bool,
}

/// A request: of one command or another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AdminRequest {
    Cache(CacheRequest),
    Explain(ExplainRequest),
    Queries(QueriesRequest),
    LogLevel(LogLevelRequest),
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

/// A line of what is shown as it comes. The last is `Done` or `Failed`, unless the server ends before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QueriesLine {
    /// From here on every query is seen.
    Begun {},
    Query(Box<QueryReport>),
    /// There was no room for so many, since the line before.
    Lost(u64),
    Done(QueriesSummary),
    Failed(String),
}

/// How many queries there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueriesSummary {
    pub shown: u64,
    pub lost: u64,
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
    Explain(#[from] ExplainRequestError),
    #[error(transparent)]
    Pattern(#[from] NamePatternError),
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// What is to be done, checked.
#[derive(Debug)]
pub(super) enum Task {
    Cache(CacheTask),
    Explain(ExplainTask),
    Queries(QueriesTask),
    LogLevel(LogLevelRequest),
}

/// Which queries are to be shown.
#[derive(Debug)]
pub(super) struct QueriesTask {
    pub filter: TapFilter,
    /// What it is called in the log; it begins with a blank, if it has a word.
    pub called: String,
    pub limit: u64,
    pub has_messages: bool,
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
        AdminRequest::Queries(QueriesRequest { filter, limit, has_messages }) => {
            let (called, limit) = (filter.to_string(), limit.unwrap_or(u64::MAX));
            return Ok(Task::Queries(QueriesTask { filter: TapFilter::read(&filter)?, called, limit, has_messages }));
        }
        AdminRequest::LogLevel(request) => return Ok(Task::LogLevel(request)),
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
    use crate::admin::LogLevels;
    use crate::chain::Level;
    use proptest::prelude::*;

    fn task(request: &CacheRequest) -> CacheTask {
        match read_request(&line(&AdminRequest::Cache(request.clone())).unwrap()).unwrap() {
            Task::Cache(task) => task,
            other => panic!("{other:?}"),
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
        let filter = FilterText { name: Some("*.internal".to_owned()), ..FilterText::default() };
        for (limit, expected) in [(None, u64::MAX), (Some(7), 7)] {
            let request = QueriesRequest { filter: filter.clone(), limit, has_messages: true };
            let read = read_request(&line(&AdminRequest::Queries(request)).unwrap()).unwrap();
            let Task::Queries(QueriesTask { called, limit, has_messages: true, .. }) = read else { panic!("{read:?}") };
            assert_eq!((&*called, limit), (" --name *.internal", expected));
        }
    }

    #[test]
    fn a_level_that_is_set_goes_before_what_is_configured() {
        let request = line(&AdminRequest::LogLevel(LogLevelRequest::Set(Some(Level::Warning)))).unwrap();
        assert_eq!(request, b"{\"log_level\":{\"set\":\"warning\"}}\n");
        for request in [LogLevelRequest::Show, LogLevelRequest::Set(None), LogLevelRequest::Set(Some(Level::Debug))] {
            let read = read_request(&line(&AdminRequest::LogLevel(request)).unwrap()).unwrap();
            assert!(matches!(read, Task::LogLevel(read) if read == request), "{read:?}");
        }
        let configured = Level::Info;
        assert_eq!(LogLevels { configured, set: None }.level(), Level::Info);
        assert_eq!(LogLevels { configured, set: Some(Level::Error) }.level(), Level::Error);
    }

    #[test]
    fn a_line_that_says_no_more_than_why_is_one_of_either_answer() {
        let refused = line(&AdminReply::Failed("why".to_owned())).unwrap();
        assert_eq!(serde_json::from_slice::<QueriesLine>(&refused).unwrap(), QueriesLine::Failed("why".to_owned()));
    }

    #[test]
    fn what_is_no_request_is_refused_with_what_is_wrong() {
        for (wrong, expected) in [
            (&b"{}"[..], "not a request"),
            (b"{\"cache\":\"stats\"} x", "not a request"),
            (br#"{"cache":{"list":{"limit":1,"more":2}}}"#, "not a request"),
            (br#"{"cache":{"get":{"name":"a..b"}}}"#, "the name cannot be read"),
            (br#"{"cache":{"flush":{"name":""}}}"#, "the name cannot be read"),
            (br#"{"queries":{"filter":{"all":1},"limit":null,"has_messages":false}}"#, "not a request"),
            (
                br#"{"queries":{"filter":{"rcodes":["x"]},"limit":null,"has_messages":false}}"#,
                "`x` is no response code",
            ),
            (
                br#"{"explain":{"name":"a..b","qtype":1,"client":null,"server":null,"asks":false}}"#,
                "the name cannot be read",
            ),
            (br#"{"explain":{"name":"a","qtype":1,"client":"x","server":null,"asks":false}}"#, "not a request"),
            (
                br#"{"explain":{"name":"a","qtype":1,"client":"10.0.0.1","server":null,"asks":true}}"#,
                "nobody is asked in the name of another",
            ),
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
            let (clients, name) = (vec![text.clone()], Some(text.clone()));
            let explain = ExplainRequest { name: text.clone(), qtype: 1, client: None, server: None, asks: false };
            let filter = FilterText { clients, name, rcodes: vec![text], ..FilterText::default() };
            let queries = QueriesRequest { filter, limit: None, has_messages: false };
            for request in [
                AdminRequest::Cache(list),
                AdminRequest::Cache(flush),
                AdminRequest::Explain(explain),
                AdminRequest::Queries(queries),
            ] {
                _ = read_request(&line(&request).unwrap());
            }
        }
    }
}
