//! TLS as a server speaks it.

use super::{Identity, Roots, provider};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Whose certificates clients have to show.
pub enum ClientAuth {
    /// They need none.
    None,
    /// One that these vouch for, if they show one.
    IfGiven(Roots),
    /// One that these vouch for.
    Required(Roots),
}

/// How this process speaks TLS with those who connect to one address.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// Of all that it was made from.
    digest: [u8; 32],
}

impl ServerTls {
    /// TLS 1.2 and 1.3, as in the reference.
    ///
    /// # Errors
    /// The identity cannot be used, or the roots have none that can be an authority's.
    pub fn new(identity: Identity, clients: ClientAuth) -> Result<Self, rustls::Error> {
        let mut digest = Sha256::new();
        let builder = ServerConfig::builder_with_provider(provider().clone()).with_safe_default_protocol_versions()?;
        let (roots, is_required) = match clients {
            ClientAuth::None => (None, false),
            ClientAuth::IfGiven(roots) => (Some(roots), false),
            ClientAuth::Required(roots) => (Some(roots), true),
        };
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                digest.update([u8::from(is_required)]);
                digest.update(roots.digest.finalize());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store), provider().clone());
                let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        digest.update(identity.digest.finalize());
        let config = builder.with_single_cert(identity.chain, identity.key)?;
        Ok(Self { config: Arc::new(config), digest: digest.finalize().into() })
    }

    /// The same for two servers that show the same and trust the same.
    pub fn key(&self) -> String {
        format!("tls {:x?}", self.digest)
    }

    /// Makes a session over `stream`. Waits forever for a client that says nothing.
    ///
    /// # Errors
    /// The connection fails, or the client is not who it should be.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.clone()).accept(stream).await
    }
}
