//! Why a try failed, in the reference's words, so that what people search their logs for is found.

use crate::chain::Transport;
use crate::message::WireError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// The two ends of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub transport: Transport,
    pub local: Option<SocketAddr>,
    pub remote: SocketAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.transport.label())?;
        match self.local {
            Some(local) => write!(f, " {local}->{}", self.remote),
            None => write!(f, " {}", self.remote),
        }
    }
}

/// An operating system's error that can be given to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemError {
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl From<io::Error> for SystemError {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error() }
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (io::ErrorKind::ConnectionRefused, _) => f.write_str("connection refused"),
            (io::ErrorKind::ConnectionReset, _) => f.write_str("connection reset by peer"),
            (io::ErrorKind::BrokenPipe, _) => f.write_str("broken pipe"),
            (io::ErrorKind::NetworkUnreachable, _) => f.write_str("network is unreachable"),
            (io::ErrorKind::HostUnreachable, _) => f.write_str("no route to host"),
            (io::ErrorKind::TimedOut, _) => f.write_str("i/o timeout"),
            (_, Some(code)) => write!(f, "{}", io::Error::from_raw_os_error(code)),
            (kind, None) => write!(f, "{kind}"),
        }
    }
}

/// Why a try gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryError {
    /// No answer within the read timeout.
    #[error("read {0}: i/o timeout")]
    Timeout(Path),
    /// No socket or connection.
    #[error("dial {0}: connect: {1}")]
    Dial(Path, SystemError),
    /// The upstream's machine says that nobody listens (ICMP), or the socket failed.
    #[error("read {0}: read: {1}")]
    Read(Path, SystemError),
    #[error("write {0}: write: {1}")]
    Write(Path, SystemError),
    /// The connection was closed, by the upstream in order or by a failure of it.
    #[error("read {0}: EOF")]
    Closed(Path),
    #[error("read {0}: read: {1}")]
    Broken(Path, SystemError),
    /// The connection brought more messages than queries were put on it.
    #[error("read {0}: an answer that nobody asked for")]
    Unasked(Path),
    #[error("read {0}: malformed answer: {1}")]
    Malformed(Path, WireError),
    /// An error code without the question it is about.
    #[error("read {0}: an error code without a question")]
    NoQuestion(Path),
    /// The question came back, the case of its letters did not (`use_caps_for_id`).
    #[error("read {0}: the question came back in another case; use_caps_for_id needs an upstream that repeats it as it is")]
    OtherCase(Path),
    /// Datagrams with a wrong ID or question came, so that a right one may be a lucky guess.
    #[error("read {0}: somebody seems to guess answers (spoofing)")]
    Spoofed(Path),
    #[error("write {0}: too many queries in flight")]
    TooMany(Path),
    /// As many sockets are open as may be, and none of them can be shared.
    #[error("dial {0}: no connection takes a query and no more may be opened; see nodelocaldns_forward_sockets_limit")]
    NoSocket(Path),
    /// Its socket was closed to make room for another one; whoever waited on it asks again.
    #[error("read {0}: the socket was given up for a newer one")]
    GivenUp(Path),
}

impl TryError {
    /// True if it is a datagram that says so, which anybody may have sent: it ends no query, but what the upstream says over TCP does.
    pub fn is_unproven(&self) -> bool {
        matches!(self, Self::Malformed(path, _) | Self::NoQuestion(path) | Self::OtherCase(path) | Self::Spoofed(path) if path.transport == Transport::Udp)
    }

    /// True if the socket or connection failed, not the upstream, so that the query is asked again on another one.
    pub fn is_broken_line(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Broken(..) | Self::Write(..) | Self::Unasked(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_the_references() {
        let remote = "127.0.0.1:53".parse().unwrap();
        let path = Path { transport: Transport::Udp, local: Some("127.0.0.1:4000".parse().unwrap()), remote };
        assert_eq!(TryError::Timeout(path).to_string(), "read udp 127.0.0.1:4000->127.0.0.1:53: i/o timeout");
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(
            TryError::Dial(Path { transport: Transport::Tcp, local: None, remote }, refused.into()).to_string(),
            "dial tcp 127.0.0.1:53: connect: connection refused"
        );
    }
}
