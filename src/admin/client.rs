//! Who asks: finds the server on this machine that is meant, and makes sure that it is one.

use super::explain::ExplainRequest;
use super::log_level::{LogLevelRequest, LogLevels};
use super::protocol::{AdminReply, AdminRequest, CacheRequest, QueriesLine, QueriesRequest, line};
use super::queries::READER_PATIENCE;
use super::socket::{SocketName, SocketPeer, listening, stream_socket};
use crate::plan::ExplainReport;
use rustix::net::connect as connect_to;
use socket2::SockRef;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the server may take for the next line of an answer that is not waited for on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of a flood of strangers some are let go at a time, so a place comes up within less.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Octets of a line of an answer.
const LONGEST_LINE: u64 = 64 << 20;

const SOCKETS: &str = "/proc/net/unix";

/// Why nothing could be asked, or answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("cannot look for the server's admin socket in {SOCKETS}: {0}")]
    Look(io::Error),
    #[error(
        "no admin socket is here: nodelocaldns runs elsewhere (ask in its container, `kubectl exec`), not at all, or with --admin-socket=off"
    )]
    NotFound,
    #[error("no admin socket is called {0}; there are: {1}")]
    NoSuchLabel(String, String),
    #[error("several servers have an admin socket here: say which with --admin-socket, one of {0}")]
    Several(String),
    #[error("user {0} has opened what should be the server's admin socket, and is not trusted: ask as root")]
    Stranger(u32),
    #[error("cannot speak with the server: {0}")]
    Socket(#[from] io::Error),
    #[error(
        "the server has closed the connection without a word: it listens to root and to the user it was started by alone, or has just ended"
    )]
    Refused,
    #[error("the server has said nothing for {} s", PATIENCE.as_secs())]
    Silent,
    #[error("what the server has answered cannot be read: both must be of the same build")]
    Unreadable,
    #[error(
        "the answer is cut off: the server has ended, or has let go of who has not read it for too long; ask again"
    )]
    Cut,
    #[error(
        "the server has ended, or has let this reader go as it took nothing for {} s; its log says which. Begin again, and the one that serves then is asked",
        READER_PATIENCE.as_secs()
    )]
    Ended,
    #[error("{0}")]
    Failed(String),
}

/// A connection to a server.
pub(crate) struct AdminConnection(BufReader<UnixStream>);

/// Connects to the server with this label; without one to the only one there is.
///
/// # Errors
/// There is none, there are several, or it may not be asked.
pub(crate) fn connect(label: Option<&str>) -> Result<AdminConnection, AdminError> {
    let list = fs::read(SOCKETS).map_err(AdminError::Look)?;
    let mut stranger = None;
    let mut candidates = Vec::new();
    for name in labelled(listening(&String::from_utf8_lossy(&list)), label)? {
        // One that has ended meanwhile, or that nobody hears, is none.
        let Ok((stream, peer)) = open(&name) else { continue };
        match peer.is_trusted(rustix::process::geteuid().as_raw()) {
            true => candidates.push(Candidate { name, is_visible: peer.is_visible, stream }),
            false => stranger = Some(peer.user),
        }
    }
    match choose(candidates) {
        Ok(stream) => Ok(AdminConnection(BufReader::new(stream))),
        Err(AdminError::NotFound) => Err(stranger.map_or(AdminError::NotFound, AdminError::Stranger)),
        Err(error) => Err(error),
    }
}

/// A server that may be meant; `S` is the connection to it.
struct Candidate<S> {
    name: SocketName,
    is_visible: bool,
    stream: S,
}

/// Those with the label, if one is wanted.
fn labelled(mut names: Vec<SocketName>, label: Option<&str>) -> Result<Vec<SocketName>, AdminError> {
    let Some(label) = label else { return Ok(names) };
    let there = labels(&names);
    names.retain(|name| name.label == label);
    match names.is_empty() && !there.is_empty() {
        true => Err(AdminError::NoSuchLabel(label.to_owned(), there)),
        false => Ok(names),
    }
}

/// Of those in our own container, if there are any, the only one; of several with one label, the newest, which takes
/// over from the others.
fn choose<S>(mut candidates: Vec<Candidate<S>>) -> Result<S, AdminError> {
    if candidates.iter().any(|candidate| candidate.is_visible) {
        candidates.retain(|candidate| candidate.is_visible);
    }
    let is_one = candidates.windows(2).all(|pair| matches!(pair, [one, other] if one.name.label == other.name.label));
    if !is_one {
        return Err(AdminError::Several(labels(candidates.iter().map(|candidate| &candidate.name))));
    }
    let newest = candidates.into_iter().max_by_key(|candidate| candidate.name.begun);
    newest.map(|candidate| candidate.stream).ok_or(AdminError::NotFound)
}

/// Their labels, each once, for people.
fn labels<'a>(names: impl IntoIterator<Item = &'a SocketName>) -> String {
    let labels: BTreeSet<&str> = names.into_iter().map(|name| &*name.label).collect();
    labels.into_iter().collect::<Vec<_>>().join(", ")
}

fn open(name: &SocketName) -> io::Result<(UnixStream, SocketPeer)> {
    let socket = stream_socket()?;
    // The kernel waits so long for a place in the server's queue.
    SockRef::from(&socket).set_write_timeout(Some(CONNECT_PATIENCE))?;
    connect_to(&socket, &name.address()?)?;
    let stream = UnixStream::from(socket);
    let peer = SocketPeer::of(&stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok((stream, peer))
}

impl AdminConnection {
    /// Asks about caches, and returns the answer.
    ///
    /// # Errors
    /// The server says why it cannot be had, or does not say anything.
    pub(crate) fn ask_cache(self, request: &CacheRequest) -> Result<serde_json::Value, AdminError> {
        self.ask(&AdminRequest::Cache(request.clone()))
    }

    /// Asks how much is logged, or has more or less logged.
    ///
    /// # Errors
    /// As of [`AdminConnection::ask_cache`].
    pub(crate) fn log_level(self, request: LogLevelRequest) -> Result<LogLevels, AdminError> {
        let answer = self.ask(&AdminRequest::LogLevel(request))?;
        serde_json::from_value(answer).map_err(|_| AdminError::Unreadable)
    }

    /// Asks what would become of a question, and returns the answer.
    ///
    /// # Errors
    /// As of [`AdminConnection::ask_cache`].
    pub(crate) fn explain(self, request: &ExplainRequest) -> Result<ExplainReport, AdminError> {
        let answer = self.ask(&AdminRequest::Explain(request.clone()))?;
        serde_json::from_value(answer).map_err(|_| AdminError::Unreadable)
    }

    fn ask(mut self, request: &AdminRequest) -> Result<serde_json::Value, AdminError> {
        self.send(request)?;
        let Some(line) = self.next_line()? else { return Err(AdminError::Refused) };
        match serde_json::from_slice(&line).map_err(|_| AdminError::Unreadable)? {
            AdminReply::Done(answer) => Ok(answer),
            AdminReply::Failed(why) => Err(AdminError::Failed(why)),
        }
    }

    /// Has queries shown, from this moment on.
    ///
    /// # Errors
    /// The server says why it does not, or does not say anything.
    pub(crate) fn watch(mut self, request: &QueriesRequest) -> Result<QueriesStream, AdminError> {
        self.send(&AdminRequest::Queries(request.clone()))?;
        let Some(line) = self.next_line()? else { return Err(AdminError::Refused) };
        match serde_json::from_slice(&line).map_err(|_| AdminError::Unreadable)? {
            QueriesLine::Begun {} => {}
            QueriesLine::Failed(why) => return Err(AdminError::Failed(why)),
            QueriesLine::Query(_) | QueriesLine::Lost(_) | QueriesLine::Done(_) => return Err(AdminError::Unreadable),
        }
        // It may be long until the next one.
        self.0.get_ref().set_read_timeout(None)?;
        Ok(QueriesStream(self))
    }

    fn send(&mut self, request: &AdminRequest) -> Result<(), AdminError> {
        let octets = line(request).map_err(io::Error::from)?;
        match self.0.get_mut().write_all(&octets) {
            // It has closed already, and may have said why.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// The next line; `None` at the end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, AdminError> {
        let mut line = Vec::new();
        match (&mut self.0).take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(AdminError::Silent),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error.into()),
        }
        match line.pop() {
            Some(b'\n') => Ok(Some(line)),
            Some(_) if line.len() as u64 + 1 >= LONGEST_LINE => Err(AdminError::Unreadable),
            Some(_) => Err(AdminError::Cut),
            None => Ok(None),
        }
    }
}

/// Queries as they are answered.
pub(crate) struct QueriesStream(AdminConnection);

impl QueriesStream {
    /// The next line. After `Done` there is none.
    ///
    /// # Errors
    /// The server has ended, has let this reader go, or says why it shows no more.
    pub(crate) fn next(&mut self) -> Result<QueriesLine, AdminError> {
        let line = match self.0.next_line() {
            Ok(Some(line)) => line,
            // In the midst of a line or not.
            Ok(None) | Err(AdminError::Cut) => return Err(AdminError::Ended),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&line).map_err(|_| AdminError::Unreadable)? {
            QueriesLine::Failed(why) => Err(AdminError::Failed(why)),
            line => Ok(line),
        }
    }

    /// Whether more has come already.
    pub(crate) fn has_more(&self) -> bool {
        !self.0.0.buffer().is_empty()
    }

    /// What has the server show no more, and say how many there were, when it is shut down for writing.
    ///
    /// # Errors
    /// Open files are at their limit.
    pub(crate) fn end(&self) -> io::Result<UnixStream> {
        self.0.0.get_ref().try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(label: &str, begun: u64) -> SocketName {
        SocketName { name: String::new(), label: label.to_owned(), begun }
    }

    /// Label, when it began, and whether it is in our container.
    fn chosen(of: &[(&str, u64, bool)]) -> Result<u64, String> {
        let candidate = |(label, begun, is_visible): &(&str, u64, bool)| Candidate {
            name: name(label, *begun),
            is_visible: *is_visible,
            stream: *begun,
        };
        choose(of.iter().map(candidate).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_that_is_cut_off_is_the_end_and_one_that_is_none_is_unreadable() {
        for (text, expected) in [
            ("", "the server has ended, or has let this reader go as it took nothing for 60 s"),
            ("{\"los", "the server has ended, or has let this reader go as it took nothing for 60 s"),
            ("{\"other\":1}\n", "what the server has answered cannot be read"),
        ] {
            let (here, mut there) = UnixStream::pair().unwrap();
            write!(there, "{{\"lost\":3}}\n{text}").unwrap();
            drop(there);
            let mut stream = QueriesStream(AdminConnection(BufReader::new(here)));
            assert!(matches!(stream.next(), Ok(QueriesLine::Lost(3))));
            let error = stream.next().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_only_one_is_meant_and_of_one_label_the_newest() {
        assert_eq!(chosen(&[("a", 1, false)]), Ok(1));
        assert_eq!(chosen(&[("a", 1, true), ("a", 3, true), ("a", 2, true)]), Ok(3));
        let found = labelled(vec![name("a", 1), name("b", 2)], Some("b")).unwrap();
        assert_eq!(found, [name("b", 2)]);
        assert_eq!(labelled(vec![name("a", 1), name("b", 2)], None).unwrap().len(), 2);
    }

    #[test]
    fn those_in_our_own_container_go_before_all_others() {
        assert_eq!(chosen(&[("a", 1, true), ("a", 3, false), ("b", 4, false)]), Ok(1));
    }

    #[test]
    fn who_means_none_or_several_is_told_which_there_are() {
        assert!(chosen(&[]).unwrap_err().starts_with("no admin socket is here"));
        let several = chosen(&[("a", 1, true), ("b", 3, true)]).unwrap_err();
        assert!(several.ends_with("one of a, b"), "{several}");
        let other = labelled(vec![name("b", 1), name("a", 3)], Some("c")).unwrap_err().to_string();
        assert_eq!(other, "no admin socket is called c; there are: a, b");
        assert!(labelled(Vec::new(), Some("c")).unwrap().is_empty());
    }
}
