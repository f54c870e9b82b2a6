//! TLS as a server speaks it: which certificate it shows, and whether clients have to show one.

use super::verifier::is_of_authority;
use super::{Identity, Roots, provider};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::Ticketer;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use sha2::Digest;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Whether clients are asked for a certificate, and what becomes of it: the ClientAuthType of Go's crypto/tls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// None is asked for.
    #[default]
    NoCertificate,
    /// One is asked for, and any will do, or none.
    Request,
    /// One must be shown, and any will do.
    RequireAny,
    /// One that is shown must be of an authority that is trusted.
    VerifyIfGiven,
    /// One of an authority that is trusted must be shown.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether it takes authorities to tell which certificates are good.
    pub(crate) fn is_verified(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
    fn is_required(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }
}

/// The versions of TLS that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsVersions {
    #[default]
    Both,
    Only12,
    Only13,
}

impl TlsVersions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::Both => &BOTH,
            Self::Only12 => &BOTH[1..],
            Self::Only13 => &BOTH[..1],
        }
    }
}

/// How a listener speaks TLS with its clients.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// Of all that it was made from.
    digest: [u8; 32],
}

impl ServerTls {
    /// Shows `identity`. `roots` are the authorities whose clients are trusted, where that matters. A session is
    /// resumed by a ticket that the client keeps (RFC 5077, RFC 8446 section 4.6.1), so that none costs memory here; a
    /// reload begins with another key for them.
    ///
    /// # Errors
    /// The identity cannot be used, or there are no random numbers.
    pub(crate) fn new(
        identity: Identity,
        client_auth: ClientAuth,
        roots: Roots,
        versions: TlsVersions,
    ) -> Result<Self, Error> {
        let mut digest = identity.digest;
        digest.update([client_auth as u8, versions as u8]);
        digest.update(roots.digest.clone().finalize());
        let builder = ServerConfig::builder_with_provider(provider().clone());
        let builder = builder.with_protocol_versions(versions.supported())?;
        let builder = match client_auth {
            ClientAuth::NoCertificate => builder.with_no_client_auth(),
            _ => builder.with_client_cert_verifier(Arc::new(ClientVerifier::new(client_auth, roots)?)),
        };
        let mut config = builder.with_single_cert(identity.chain, identity.key)?;
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), digest: digest.finalize().into() })
    }

    /// The same for two that show the same and trust the same.
    pub fn key(&self) -> String {
        format!("tls {:x?}", self.digest)
    }

    /// The same for a server that speaks one of these protocols inside (ALPN, RFC 7301), the first it likes most.
    pub fn speaking(&self, protocols: &[&[u8]]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { config: Arc::new(config), digest: self.digest }
    }

    /// Makes a session over `stream`. Waits forever for a client that says nothing.
    ///
    /// # Errors
    /// The connection fails, or the two do not agree; the client has been told then.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        self.accept_and(stream, || {}).await
    }

    /// As [`ServerTls::accept`]; `heard` is called once the client has said what it wants.
    ///
    /// # Errors
    /// Those of [`ServerTls::accept`].
    pub async fn accept_and<S>(&self, stream: S, heard: impl FnOnce()) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        heard();
        handshake.into_stream(self.config.clone()).await
    }
}

impl PartialEq for ServerTls {
    /// Made from the same.
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.digest).finish()
    }
}

/// Which client's certificate is believed: as in Go, also one that stands in the file of authorities itself.
#[derive(Debug)]
struct ClientVerifier {
    auth: ClientAuth,
    /// `None`: no authority is known.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    named: Vec<CertificateDer<'static>>,
}

impl ClientVerifier {
    fn new(auth: ClientAuth, roots: Roots) -> Result<Self, Error> {
        let authorities = match auth.is_verified() && !roots.store.is_empty() {
            true => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store), provider().clone());
                Some(verifier.build().map_err(|error| Error::General(error.to_string()))?)
            }
            false => None,
        };
        Ok(Self { auth, authorities, named: roots.named })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.auth.is_required()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.as_ref().map_or(&[], |authorities| authorities.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.auth.is_verified() {
            return Ok(ClientCertVerified::assertion());
        }
        let Some(authorities) = &self.authorities else { return Err(CertificateError::UnknownIssuer.into()) };
        match authorities.verify_client_cert(end_entity, intermediates, now) {
            // Its time is checked before that.
            Err(error) if is_of_authority(&error) && self.named.contains(end_entity) => {
                Ok(ClientCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::testing::{Authority, Certified};
    use crate::net::tls::{ClientTls, TlsError};
    use rustls::HandshakeKind;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// What a client gets that sends `ping`: how the session was made, or why there is none.
    async fn ping(server: &ServerTls, client: &ClientTls) -> Result<HandshakeKind, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut session) = server.accept(stream).await else { return };
            let mut octets = [0; 4];
            if session.read_exact(&mut octets).await.is_ok() {
                session.write_all(b"pong").await.unwrap();
                session.shutdown().await.unwrap();
            }
        };
        let ask = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut session =
                client.client_of("dns.example").connect(stream).await.map_err(|error| error.to_string())?;
            // In TLS 1.3 a client hears after its handshake that its certificate is missing or refused.
            let ask = async {
                session.write_all(b"ping").await?;
                let mut octets = Vec::new();
                session.read_to_end(&mut octets).await.map(|_| octets)
            };
            let octets = ask.await.map_err(|error| TlsError::from(error).to_string())?;
            assert_eq!(octets, b"pong");
            Ok(session.get_ref().1.handshake_kind().unwrap())
        };
        tokio::join!(serve, ask).1
    }

    #[tokio::test]
    async fn a_session_is_resumed_by_a_ticket_and_not_over_a_reload() {
        let authority = Authority::new("authority");
        let certified = authority.sign(&["dns.example"]);
        let make = || {
            let roots = Roots::none();
            ServerTls::new(certified.identity(), ClientAuth::NoCertificate, roots, TlsVersions::Both).unwrap()
        };
        let (server, client) = (make(), authority.client());
        assert_eq!(ping(&server, &client).await, Ok(HandshakeKind::Full));
        assert_eq!(ping(&server, &client).await, Ok(HandshakeKind::Resumed));
        assert_eq!(ping(&make(), &client).await, Ok(HandshakeKind::Full), "another key for tickets");
        assert_eq!(make(), server, "made from the same");
    }

    #[tokio::test]
    async fn clients_are_asked_for_a_certificate_as_told() {
        let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
        let certified = authority.sign(&["dns.example"]);
        let own = Certified::by_itself(&["client.example"], true, false);
        let client = |shown: Option<&Certified>| {
            let mut roots = Roots::none();
            roots.add(&authority.pem());
            ClientTls::new(roots, shown.map(Certified::identity)).unwrap()
        };
        let trusted = clients.sign(&["client.example"]);
        let stranger = Authority::new("strangers").sign(&["client.example"]);
        let [none, good, other, in_file] =
            [client(None), client(Some(&trusted)), client(Some(&stranger)), client(Some(&own))];
        for (auth, expected) in [
            (ClientAuth::NoCertificate, [true, true, true, true]),
            (ClientAuth::Request, [true, true, true, true]),
            (ClientAuth::RequireAny, [false, true, true, true]),
            (ClientAuth::VerifyIfGiven, [true, true, false, true]),
            (ClientAuth::RequireAndVerify, [false, true, false, true]),
        ] {
            for versions in [TlsVersions::Only12, TlsVersions::Only13] {
                let roots = Roots::from_pem(Path::new("ca"), &(clients.pem() + &own.certificate)).unwrap();
                let server = ServerTls::new(certified.identity(), auth, roots, versions).unwrap();
                for (client, expected) in [&none, &good, &other, &in_file].into_iter().zip(expected) {
                    let got = ping(&server, client).await;
                    assert_eq!(got.is_ok(), expected, "{auth:?} {versions:?}: {got:?}");
                }
            }
        }
        let nobody =
            ServerTls::new(certified.identity(), ClientAuth::RequireAndVerify, Roots::none(), TlsVersions::Both);
        assert!(ping(&nobody.unwrap(), &good).await.is_err(), "no authority is known");
    }
}
