//! Certificates for tests, and a machine that has them in files.

use super::{ClientAuth, ClientTls, Identity, Roots, ServerTls, TlsVersions};
use crate::corefile::Loader;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A machine with these files and variables.
#[derive(Default)]
pub(crate) struct Files {
    pub files: BTreeMap<String, String>,
    pub variables: BTreeMap<String, String>,
}

impl Loader for Files {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path.to_str().unwrap()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.keys().map(PathBuf::from).filter(|path| path.parent() == pattern.parent()).collect())
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Certified {
    pub certificate: String,
    pub key: String,
    key_der: Vec<u8>,
    der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names and addresses.
    pub(crate) fn sign(&self, names: &[&str]) -> Certified {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        Certified::new(&certificate, &key)
    }

    /// A server's side that shows a certificate for these names, and asks for one of `clients` if that is given.
    pub(crate) fn server(&self, names: &[&str], clients: Option<&Authority>) -> ServerConfig {
        self.sign(names).server(clients)
    }

    /// How a listener shows a certificate for these names, and asks for none.
    pub(crate) fn listener(&self, names: &[&str]) -> ServerTls {
        let identity = self.sign(names).identity();
        ServerTls::new(identity, ClientAuth::NoCertificate, Roots::none(), TlsVersions::Both).unwrap()
    }

    /// A client's side that trusts this authority and shows no certificate.
    pub(crate) fn client(&self) -> ClientTls {
        let mut roots = Roots::none();
        roots.add(&self.pem());
        ClientTls::new(roots, None).unwrap()
    }
}

impl Certified {
    /// One for these names that its own key has signed: an authority's too, as `openssl req -x509` makes it, or not.
    pub(crate) fn by_itself(names: &[&str], is_authority: bool, has_expired: bool) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if has_expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }

    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            key_der: key.serialize_der(),
            der: certificate.der().to_vec(),
        }
    }

    /// It is shown.
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem((Path::new("cert"), &self.certificate), (Path::new("key"), &self.key)).unwrap()
    }

    /// A server's side that shows it, and asks for a certificate of `clients` if that is given.
    pub(crate) fn server(self, clients: Option<&Authority>) -> ServerConfig {
        let provider = super::provider().clone();
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(self.key_der).unwrap();
        builder.with_single_cert(vec![self.der.into()], key).unwrap()
    }
}
