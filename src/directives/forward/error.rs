//! Why an upstream gave no answer. The messages are CoreDNS' own, so that a search for a known log line finds them.

use crate::chain::Transport;
use crate::message::{Rcode, WireError};
use crate::net::doh::DohError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Transport and addresses of a socket or connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub transport: Transport,
    /// Unknown until the socket is bound or connected.
    pub local: Option<SocketAddr>,
    pub remote: SocketAddr,
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.transport.label())?;
        match self.local {
            Some(local) => write!(f, " {local}->{}", self.remote),
            None => write!(f, " {}", self.remote),
        }
    }
}

/// An operating system's error that can be cloned, because one failure ends many queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SystemError {
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl From<&io::Error> for SystemError {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error() }
    }
}

impl From<io::Error> for SystemError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
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
            (io::ErrorKind::UnexpectedEof, _) => f.write_str("EOF"),
            (_, Some(code)) => write!(f, "{}", io::Error::from_raw_os_error(code)),
            (kind, None) => write!(f, "{kind}"),
        }
    }
}

/// Why an upstream gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpstreamError {
    /// The upstream did not answer within the read timeout.
    #[error("read {0}: i/o timeout")]
    Timeout(Endpoints),
    /// No socket or connection could be opened.
    #[error("dial {0}: connect: {1}")]
    Dial(Endpoints, SystemError),
    /// The upstream is not who it should be, does not trust us, or speaks no TLS.
    #[error("dial {0}: {1}")]
    Handshake(Endpoints, Arc<str>),
    /// The connection failed before there was a TLS session.
    #[error("dial {0}: tls: handshake: {1}")]
    HandshakeCut(Endpoints, SystemError),
    /// The TLS session failed, or HTTP/2 in it: the upstream has ended it, or sent what does not belong to it.
    #[error("read {0}: {1}")]
    Session(Endpoints, Arc<str>),
    /// The upstream's machine says that nobody listens (ICMP), or the socket failed.
    #[error("read {0}: read: {1}")]
    Read(Endpoints, SystemError),
    #[error("write {0}: write: {1}")]
    Write(Endpoints, SystemError),
    /// The upstream closed the connection.
    #[error("read {0}: EOF")]
    Closed(Endpoints),
    /// The connection failed.
    #[error("read {0}: read: {1}")]
    Broken(Endpoints, SystemError),
    /// The connection brought more responses than it carried queries.
    #[error("read {0}: an answer that nobody asked for")]
    Unsolicited(Endpoints),
    #[error("read {0}: malformed answer: {1}")]
    Malformed(Endpoints, WireError),
    /// The upstream answered over HTTPS, and not with a DNS message.
    #[error("read {0}: {1}")]
    Https(Endpoints, Arc<DohError>),
    /// The response has this error code and no question section.
    #[error("read {0}: the error code {1} without a question")]
    NoQuestion(Endpoints, Rcode),
    /// The response repeats the question in another letter case (`use_caps_for_id`).
    #[error(
        "read {0}: the question came back in another case; use_caps_for_id needs an upstream that repeats it as it is"
    )]
    CaseMismatch(Endpoints),
    /// Several responses had a wrong ID or question, so the next one that fits may be a lucky guess.
    #[error("read {0}: somebody seems to guess answers (spoofing)")]
    Spoofed(Endpoints),
    #[error("write {0}: too many queries in flight")]
    TooManyInFlight(Endpoints),
    /// The socket limit is reached, and no open connection takes another query.
    #[error("dial {0}: no connection takes a query and no more may be opened; see nodelocaldns_forward_sockets_limit")]
    NoSocket(Endpoints),
    /// The socket was closed to make room for another one. Its queries are sent again.
    #[error("read {0}: the socket was given up for a newer one")]
    Evicted(Endpoints),
}

impl UpstreamError {
    /// Who has sent a message that is no answer; `None` where none came.
    pub(super) fn sender(&self) -> Option<&Endpoints> {
        match self {
            Self::Malformed(from, _) | Self::NoQuestion(from, _) | Self::CaseMismatch(from) | Self::Spoofed(from) => {
                Some(from)
            }
            _ => None,
        }
    }

    /// True if an error code without a question came.
    pub(super) fn is_code_alone(&self) -> bool {
        matches!(self, Self::NoQuestion(..))
    }

    /// True if the error comes from a datagram, which anybody may have forged. Such an error ends no query: the
    /// upstream is asked over TCP.
    pub(super) fn may_be_forged(&self) -> bool {
        self.sender().is_some_and(|from| from.transport == Transport::Udp)
    }

    /// True if the socket or connection failed and the upstream may be well. The query is then sent again on another
    /// one.
    pub(super) fn is_socket_failure(&self) -> bool {
        matches!(
            self,
            Self::Closed(_)
                | Self::Broken(..)
                | Self::Write(..)
                | Self::Unsolicited(_)
                | Self::HandshakeCut(..)
                | Self::Session(..)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_the_references() {
        let remote = "127.0.0.1:53".parse().unwrap();
        let endpoints = Endpoints { transport: Transport::Udp, local: Some("127.0.0.1:4000".parse().unwrap()), remote };
        assert_eq!(UpstreamError::Timeout(endpoints).to_string(), "read udp 127.0.0.1:4000->127.0.0.1:53: i/o timeout");
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(
            UpstreamError::Dial(Endpoints { transport: Transport::Tcp, local: None, remote }, refused.into())
                .to_string(),
            "dial tcp 127.0.0.1:53: connect: connection refused"
        );
    }
}
