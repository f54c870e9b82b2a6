//! Why a session could not be made or has broken. The messages are Go's where it has one, so that a search for a known
//! log line finds them.

use rustls::{CertificateError, Error, InvalidMessage};
use std::io;

/// Names of a certificate that a message shows at most.
const SHOWN_NAMES: usize = 5;

/// Why a session could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The connection failed, as any may.
    #[error("{0}")]
    Connection(io::Error),
    /// The server is not trusted, does not trust us, or speaks something else.
    #[error("{}", explain(.0))]
    Refused(Error),
    #[error(
        "tls: `{0}` is neither a host name nor an IP address, so that no certificate is for it; correct the server name"
    )]
    NotAName(String),
    #[error("tls: the server does not offer HTTP/2 (ALPN h2); check that https:// is asked there")]
    NoHttp2,
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        match cause(&error) {
            Some(cause) => Self::Refused(cause.clone()),
            None => Self::Connection(error),
        }
    }
}

/// The TLS error that an error of a TLS stream stands for; `None` if the connection itself failed.
pub(crate) fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What a TLS error means, and what to do.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => {
            format!("tls: failed to verify certificate: x509: {}", explain_certificate(error))
        }
        Error::AlertReceived(alert) => format!("remote error: tls: {alert:?}; the server has ended the session"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake; check that the server speaks TLS on this port"
                .to_owned()
        }
        other => format!("tls: {other}"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "certificate signed by unknown authority; name the file of its CA in `tls`".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().take(SHOWN_NAMES).map(|name| bare(name)).collect();
            let more = if presented.len() > SHOWN_NAMES { ", …" } else { "" };
            let names = if names.is_empty() { "no name" } else { &names.join(", ") };
            let expected = expected.to_str();
            format!("certificate is valid for {names}{more}, not {expected}; see tls_servername")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("certificate has expired or is not yet valid: {error}")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid: {error}")
        }
        other => other.to_string(),
    }
}

/// `a.example` of `DnsName("a.example")`, as rustls names what a certificate is for.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    inner.trim_matches('"')
}
