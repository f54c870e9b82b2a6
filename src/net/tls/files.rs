//! PEM files: certificates and keys.

use crate::corefile::Loader;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFileError {
    #[error("the file {} cannot be read: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{} has no certificate that can be used, in PEM (`-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key, in PEM and not encrypted (`-----BEGIN PRIVATE KEY-----`)", .0.display())]
    NoKey(PathBuf),
    #[error("the certificate of {} cannot be shown with the key of {}: {cause}", certificate.display(), key.display())]
    Identity { certificate: PathBuf, key: PathBuf, cause: rustls::Error },
}

impl TlsFileError {
    /// True if a file is not there: it may be on another machine.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Read { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }

    /// The file that is wrong; `None` if two do not fit each other.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. } | Self::NoCertificate(path) | Self::NoKey(path) => Some(path),
            Self::Identity { .. } => None,
        }
    }
}

/// The text of a file.
pub(super) fn read(path: &Path, files: &dyn Loader) -> Result<String, TlsFileError> {
    files.read_part(path).map_err(|cause| TlsFileError::Read { path: path.to_owned(), cause })
}

/// The certificates in a text, up to what cannot be read as PEM at all.
pub(super) fn certificates(pem: &str) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map_while(Result::ok)
}
