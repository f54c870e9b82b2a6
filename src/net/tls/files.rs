//! PEM files: certificates and keys.

use crate::corefile::Loader;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::Path;

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("the file {path} cannot be read: {cause}")]
    Read { path: String, cause: io::Error },
    #[error("{0} has no certificate that can be used, in PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate(String),
    #[error("{0} has no private key, in PEM and not encrypted (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey(String),
    #[error("the certificate of {certificate} cannot be shown with the key of {key}: {cause}")]
    Identity { certificate: String, key: String, cause: rustls::Error },
}

impl TlsFileError {
    /// The file that is wrong; `None` if two do not fit each other.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Read { path, .. } | Self::NoCertificate(path) | Self::NoKey(path) => Some(path),
            Self::Identity { .. } => None,
        }
    }
}

/// The text of a file.
pub(super) fn read(path: &str, files: &dyn Loader) -> Result<String, TlsFileError> {
    files.read(Path::new(path)).map_err(|cause| TlsFileError::Read { path: path.to_owned(), cause })
}

/// The certificates in a text, up to what cannot be read as PEM at all.
pub(super) fn certificates(pem: &str) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map_while(Result::ok)
}
