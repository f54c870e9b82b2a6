//! The certificate that the program shows to clients within TLS, and clients that believe it.

use crate::scene::Setup;
use crate::support::tools::write;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tempfile::TempDir;

const NAME: &str = "dns.example";

/// Where the program serves clients within TLS, and over HTTPS.
pub const TLS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 853);
pub const HTTPS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// The files of a certificate and its key, and what clients believe.
pub struct Certificate {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned()]).expect("a certificate is made");
        let folder = crate::support::server::scratch();
        write(folder.path(), "tls.crt", &cert.pem());
        write(folder.path(), "tls.key", &signing_key.serialize_pem());
        Self { folder, der: cert.der().clone() }
    }

    /// A program that serves TLS and HTTPS too.
    pub fn setup(&self) -> Setup {
        let folder = self.folder.path().display();
        Setup {
            keys: "tls://.:853 https://.:443".to_owned(),
            directives: format!("tls {folder}/tls.crt {folder}/tls.key"),
            ..Setup::default()
        }
    }

    /// How its clients speak, with the protocol that is to be spoken in the session.
    pub fn client(&self, protocol: Option<&[u8]>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let versions = builder.with_safe_default_protocol_versions().expect("versions");
        let mut config = versions.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        // Each session costs the server a whole handshake.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

/// A session that is yet to be made.
pub fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from(NAME).expect("a name");
    ClientConnection::new(config.clone(), name).expect("a session can be begun")
}
