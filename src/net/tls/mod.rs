//! TLS as a client and as a server speaks it (rustls with ring): whom it trusts, which certificate it shows, and why a
//! handshake failed.
//!
//! No file is opened here: a [`Loader`] reads them, since the server's process may open none.

mod failure;
mod files;
mod roots;
mod server;
#[cfg(test)]
pub(crate) mod testing;
mod verifier;

pub(crate) use failure::{TlsError, cause, explain};
pub(crate) use files::TlsFileError;
pub(crate) use roots::system_roots;
pub(crate) use server::{ClientAuth, ServerTls, TlsVersions};

use crate::corefile::Loader;
use files::{certificates, read};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use verifier::{AnyServer, FileVerifier};

/// What ALPN calls HTTP/2 (RFC 9113 section 3.1).
const HTTP2: &[u8] = b"h2";

/// The certificates that a client trusts.
pub(crate) struct Roots {
    store: RootCertStore,
    /// Those of a file that was named, which a server may show itself.
    named: Vec<CertificateDer<'static>>,
    /// Of the texts that they come from.
    digest: Sha256,
}

impl Roots {
    /// No root: no server is trusted.
    pub(crate) fn none() -> Self {
        Self { store: RootCertStore::empty(), named: Vec::new(), digest: Sha256::new() }
    }

    /// Those of a PEM file. As in Go, what is no certificate is passed over.
    ///
    /// # Errors
    /// The file cannot be read, or has no certificate.
    pub(crate) fn from_file(path: &Path, files: &dyn Loader) -> Result<Self, TlsFileError> {
        Self::from_pem(path, &read(path, files)?)
    }

    /// Those of a PEM text, which stands in a file.
    ///
    /// # Errors
    /// It has no certificate.
    pub(crate) fn from_pem(path: &Path, pem: &str) -> Result<Self, TlsFileError> {
        let mut roots = Self::none();
        roots.add(pem);
        roots.named.extend(certificates(pem));
        if roots.store.is_empty() { Err(TlsFileError::NoCertificate(path.to_owned())) } else { Ok(roots) }
    }

    /// Adds the certificates in a PEM text.
    fn add(&mut self, pem: &str) {
        self.store.add_parsable_certificates(certificates(pem));
        self.digest.update(pem);
    }

    /// True if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}

/// The certificate that we show, with those of its chain, and its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    digest: Sha256,
}

impl Identity {
    /// Reads two PEM files.
    ///
    /// # Errors
    /// A file cannot be read, or has no certificate or no key; the key belongs to another certificate.
    pub(crate) fn from_files(certificate: &Path, key: &Path, files: &dyn Loader) -> Result<Self, TlsFileError> {
        let (chain_text, key_text) = (read(certificate, files)?, read(key, files)?);
        Self::from_pem((certificate, &chain_text), (key, &key_text))
    }

    /// Reads two PEM texts, each with the file that it stands in.
    ///
    /// # Errors
    /// One has no certificate or no key; the key belongs to another certificate.
    pub(crate) fn from_pem(
        (certificate, chain_text): (&Path, &str),
        (key, key_text): (&Path, &str),
    ) -> Result<Self, TlsFileError> {
        let chain: Vec<_> = certificates(chain_text).collect();
        if chain.is_empty() {
            return Err(TlsFileError::NoCertificate(certificate.to_owned()));
        }
        let private =
            PrivateKeyDer::from_pem_slice(key_text.as_bytes()).map_err(|_| TlsFileError::NoKey(key.to_owned()))?;
        let mut digest = Sha256::new();
        digest.update(chain_text);
        digest.update(key_text);
        let identity = Self { chain, key: private, digest };
        let unusable =
            |cause| TlsFileError::Identity { certificate: certificate.to_owned(), key: key.to_owned(), cause };
        rustls::sign::CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), provider())
            .map_err(unusable)?;
        Ok(identity)
    }
}

/// How this process speaks TLS with the servers of one configuration, which share the sessions that are resumed.
#[derive(Clone)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
    /// Of all that it was made from.
    digest: [u8; 32],
}

impl ClientTls {
    /// TLS 1.2 and 1.3, as in the reference.
    ///
    /// # Errors
    /// The identity cannot be used.
    pub(crate) fn new(roots: Roots, identity: Option<Identity>) -> Result<Self, rustls::Error> {
        let mut digest = roots.digest;
        let builder = ClientConfig::builder_with_provider(provider().clone()).with_safe_default_protocol_versions()?;
        let builder = match roots.named.is_empty() {
            true => builder.with_root_certificates(roots.store),
            false => {
                let verifier = FileVerifier::new(roots.store, roots.named, provider().clone());
                let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let config = match identity {
            Some(identity) => {
                digest.update(identity.digest.finalize());
                builder.with_client_auth_cert(identity.chain, identity.key)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), digest: digest.finalize().into() })
    }

    /// The same for servers that are to speak HTTP/2 (ALPN, RFC 7301), with sessions of their own to resume.
    pub(crate) fn for_http2(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![HTTP2.to_vec()];
        config.resumption = Resumption::default();
        Self { config: Arc::new(config), digest: self.digest }
    }

    /// As [`ClientTls::new`], but it believes any server, and shows no certificate.
    ///
    /// # Errors
    /// TLS cannot be used.
    pub(crate) fn unverified() -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(provider().clone()).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider().clone())));
        let digest = Sha256::digest("unverified").into();
        Ok(Self { config: Arc::new(builder.with_no_client_auth()), digest })
    }

    /// The same for two that trust the same and show the same.
    pub(crate) fn key(&self) -> String {
        format!("tls {:x?}", self.digest)
    }

    /// A client of the server that shows a certificate for `name`: a host name or an IP address.
    pub(crate) fn client_of(&self, name: &str) -> TlsClient {
        TlsClient {
            wants_http2: !self.config.alpn_protocols.is_empty(),
            connector: TlsConnector::from(self.config.clone()),
            server_name: server_name(name),
            name: name.to_owned(),
            digest: self.digest,
        }
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(&self.digest).finish()
    }
}

/// True if a certificate can be for `name`: it is a host name or an IP address.
pub(crate) fn is_server_name(name: &str) -> bool {
    server_name(name).is_some()
}

/// `name` as certificates and SNI have it: without the dot of the root (RFC 6066 section 3).
fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.strip_suffix('.').unwrap_or(name)).ok().map(|name| name.to_owned())
}

/// How this process speaks TLS with one server.
pub(crate) struct TlsClient {
    connector: TlsConnector,
    /// `None` if `name` is neither a host name nor an address, so that no certificate can be for it.
    server_name: Option<ServerName<'static>>,
    name: String,
    /// Whoever speaks something else in the session is not asked.
    wants_http2: bool,
    digest: [u8; 32],
}

impl TlsClient {
    /// The same for two clients that trust the same, show the same and expect the same name.
    pub(crate) fn key(&self) -> String {
        format!("tls {} {} {:x?}", self.wants_http2, self.name, self.digest)
    }

    /// Makes a session over `stream`, resuming an earlier one if the server allows it. Waits forever for a server that
    /// says nothing.
    ///
    /// # Errors
    /// The connection fails, the server is not who it should be, or it does not speak HTTP/2 where it should.
    pub(crate) async fn connect<S>(&self, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(name) = &self.server_name else { return Err(TlsError::NotAName(self.name.clone())) };
        let session = self.connector.connect(name.clone(), stream).await?;
        if self.wants_http2 && session.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(TlsError::NoHttp2);
        }
        Ok(session)
    }
}

/// ring, whose code is in the program: the image has no libraries.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider()))
}

#[cfg(test)]
mod tests;
