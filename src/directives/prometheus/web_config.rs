//! The file that `tls` of `prometheus` names: the web configuration of Prometheus' exporter-toolkit, in YAML, as far as
//! it is about TLS (facts: web/tls_config.go of prometheus/exporter-toolkit).

use crate::corefile::Loader;
use crate::net::tls::{ClientAuth, Identity, Roots, ServerTls, TlsFileError, TlsVersions, system_roots};
use saphyr_parser::{Event, Parser};
use std::path::{Path, PathBuf};

/// Mappings and sequences within each other: far more than there are keys for.
const MOST_NESTED: usize = 16;

/// Why a web configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebConfigError {
    #[error("the file {} cannot be read: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{}:{line}:{column} is not YAML that can be read: {what}", path.display())]
    NotYaml { path: PathBuf, line: usize, column: usize, what: String },
    #[error("{} has the key `{key}`, which a web configuration does not have", path.display())]
    Unknown { path: PathBuf, key: String },
    #[error("{} has the key `{key}` twice", path.display())]
    Twice { path: PathBuf, key: String },
    #[error("`{key}` of {} {what}", path.display())]
    Wrong { path: PathBuf, key: &'static str, what: String },
    #[error(transparent)]
    File(#[from] TlsFileError),
    #[error("TLS cannot be served with {}: {cause}", path.display())]
    Tls { path: PathBuf, cause: rustls::Error },
}

impl WebConfigError {
    /// True if a file is not there: it may be on another machine.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Read { cause, .. } => cause.kind() == std::io::ErrorKind::NotFound,
            Self::File(error) => error.is_absence(),
            _ => false,
        }
    }
}

/// What a web configuration asks for.
#[derive(Debug)]
pub(super) struct WebConfig {
    /// `None`: no TLS, as with an empty file.
    pub tls: Option<ServerTls>,
    /// Keys that are not heeded.
    pub ignored: Vec<&'static str>,
}

impl WebConfig {
    /// Reads the file and those that it names, which are relative to its folder.
    ///
    /// # Errors
    /// One of them cannot be read or used, or it asks for what is not done here.
    pub(super) fn read(path: &Path, files: &dyn Loader) -> Result<Self, WebConfigError> {
        let text = files.read_part(path).map_err(|cause| WebConfigError::Read { path: path.to_owned(), cause })?;
        let mut reading = Reading { path, ignored: Vec::new() };
        let mut settings = TlsSettings::default();
        for (key, node) in reading.mapping("the file", parse(path, &text)?)? {
            match key.as_str() {
                "tls_server_config" => settings = reading.tls_settings(node)?,
                "http_server_config" => reading.http_settings(node)?,
                "basic_auth_users" if node.is_empty() => {}
                "basic_auth_users" => {
                    let what = "asks for passwords, which are not checked here: take it out, and let \
                                `client_auth_type` say which clients may scrape";
                    return Err(reading.wrong("basic_auth_users", what));
                }
                "rate_limit" => reading.ignored.push("rate_limit"),
                _ => return Err(reading.unknown(key)),
            }
        }
        let tls = settings.build(&reading, files)?;
        Ok(Self { tls, ignored: reading.ignored })
    }
}

/// A YAML value.
#[derive(Debug)]
enum Node {
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// True for no value, `{}` and `[]`.
    fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(text) => text.is_empty() || text == "~" || text == "null",
            Self::Sequence(items) => items.is_empty(),
            Self::Mapping(entries) => entries.is_empty(),
        }
    }
}

/// The keys of `tls_server_config`.
#[derive(Default)]
struct TlsSettings {
    cert: String,
    key: String,
    cert_file: String,
    key_file: String,
    client_auth: ClientAuth,
    client_ca: String,
    client_ca_file: String,
    is_from_13: bool,
    is_to_12: bool,
}

/// A file that is being read.
struct Reading<'a> {
    path: &'a Path,
    ignored: Vec<&'static str>,
}

impl Reading<'_> {
    fn wrong(&self, key: &'static str, what: impl Into<String>) -> WebConfigError {
        WebConfigError::Wrong { path: self.path.to_owned(), key, what: what.into() }
    }

    fn unknown(&self, key: String) -> WebConfigError {
        WebConfigError::Unknown { path: self.path.to_owned(), key }
    }

    fn mapping(&self, key: &'static str, node: Node) -> Result<Vec<(String, Node)>, WebConfigError> {
        let entries = match node {
            node if node.is_empty() => Vec::new(),
            Node::Mapping(entries) => entries,
            _ => return Err(self.wrong(key, "is no mapping, as it has to be")),
        };
        for (index, (name, _)) in entries.iter().enumerate() {
            if entries.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(WebConfigError::Twice { path: self.path.to_owned(), key: name.clone() });
            }
        }
        Ok(entries)
    }

    fn scalar(&self, key: &'static str, node: Node) -> Result<String, WebConfigError> {
        match node {
            Node::Scalar(text) => Ok(text),
            _ => Err(self.wrong(key, "is no single value, as it has to be")),
        }
    }

    fn tls_settings(&mut self, node: Node) -> Result<TlsSettings, WebConfigError> {
        let mut settings = TlsSettings::default();
        for (key, node) in self.mapping("tls_server_config", node)? {
            match key.as_str() {
                "cert" => settings.cert = self.scalar("cert", node)?,
                "key" => settings.key = self.scalar("key", node)?,
                "cert_file" => settings.cert_file = self.scalar("cert_file", node)?,
                "key_file" => settings.key_file = self.scalar("key_file", node)?,
                "client_ca" => settings.client_ca = self.scalar("client_ca", node)?,
                "client_ca_file" => settings.client_ca_file = self.scalar("client_ca_file", node)?,
                "client_auth_type" => settings.client_auth = self.client_auth(node)?,
                "client_allowed_sans" if node.is_empty() => {}
                "client_allowed_sans" => {
                    let what = "is not heeded here, so that clients would be let in that it keeps out: take it out, and \
                                sign the clients' certificates with an authority of their own";
                    return Err(self.wrong("client_allowed_sans", what));
                }
                "min_version" => settings.is_from_13 = self.version("min_version", node)?.unwrap_or(12) == 13,
                "max_version" => match self.version("max_version", node)? {
                    Some(version @ ..12) => {
                        let what = format!("is TLS 1.{}, which is not spoken: write TLS12 or TLS13", version - 10);
                        return Err(self.wrong("max_version", what));
                    }
                    version => settings.is_to_12 = version == Some(12),
                },
                "cipher_suites" => self.ignored.push("cipher_suites"),
                "curve_preferences" => self.ignored.push("curve_preferences"),
                "prefer_server_cipher_suites" => {}
                _ => return Err(self.unknown(key)),
            }
        }
        Ok(settings)
    }

    fn http_settings(&mut self, node: Node) -> Result<(), WebConfigError> {
        for (key, node) in self.mapping("http_server_config", node)? {
            match key.as_str() {
                // HTTP/1.1 is spoken, which every client can.
                "http2" => {}
                "headers" if node.is_empty() => {}
                "headers" => self.ignored.push("headers"),
                _ => return Err(self.unknown(key)),
            }
        }
        Ok(())
    }

    fn client_auth(&self, node: Node) -> Result<ClientAuth, WebConfigError> {
        match self.scalar("client_auth_type", node)?.as_str() {
            "" | "NoClientCert" => Ok(ClientAuth::NoCertificate),
            "RequestClientCert" => Ok(ClientAuth::Request),
            "RequireAnyClientCert" | "RequireClientCert" => Ok(ClientAuth::RequireAny),
            "VerifyClientCertIfGiven" => Ok(ClientAuth::VerifyIfGiven),
            "RequireAndVerifyClientCert" => Ok(ClientAuth::RequireAndVerify),
            other => Err(self.wrong(
                "client_auth_type",
                format!(
                    "is `{other}`, not NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven or \
                     RequireAndVerifyClientCert"
                ),
            )),
        }
    }

    /// The digits of a version of TLS; `None` if none is said.
    fn version(&self, key: &'static str, node: Node) -> Result<Option<u8>, WebConfigError> {
        match self.scalar(key, node)?.as_str() {
            "" => Ok(None),
            "TLS10" => Ok(Some(10)),
            "TLS11" => Ok(Some(11)),
            "TLS12" => Ok(Some(12)),
            "TLS13" => Ok(Some(13)),
            other => Err(self.wrong(key, format!("is `{other}`, not TLS12 or TLS13"))),
        }
    }
}

impl TlsSettings {
    /// `None` if nothing is said of TLS.
    fn build(self, reading: &Reading<'_>, files: &dyn Loader) -> Result<Option<ServerTls>, WebConfigError> {
        let has_authorities = !self.client_ca.is_empty() || !self.client_ca_file.is_empty();
        let texts = [&self.cert, &self.key, &self.cert_file, &self.key_file];
        if texts.iter().all(|text| text.is_empty()) && !has_authorities && self.client_auth == ClientAuth::NoCertificate
        {
            return Ok(None);
        }
        let chain = text_or_file(["cert", "cert_file"], [&self.cert, &self.cert_file], reading, files)?;
        let key = text_or_file(["key", "key_file"], [&self.key, &self.key_file], reading, files)?;
        let (chain, key) = match (chain, key) {
            (Some(chain), Some(key)) => (chain, key),
            (None, _) => return Err(reading.wrong("cert_file", "is not there: TLS needs a certificate")),
            (_, None) => return Err(reading.wrong("key_file", "is not there: TLS needs the key of its certificate")),
        };
        let identity = Identity::from_pem((&chain.0, &chain.1), (&key.0, &key.1))?;
        let authorities =
            text_or_file(["client_ca", "client_ca_file"], [&self.client_ca, &self.client_ca_file], reading, files)?;
        let roots = match authorities {
            Some(_) if self.client_auth == ClientAuth::NoCertificate => {
                return Err(reading.wrong("client_auth_type", "is not there, though there is a CA for clients"));
            }
            Some((path, text)) => Roots::from_pem(&path, &text)?,
            None if self.client_auth.is_verified() => system_roots(files),
            None => Roots::none(),
        };
        let versions = match (self.is_from_13, self.is_to_12) {
            (false, false) => TlsVersions::Both,
            (false, true) => TlsVersions::Only12,
            (true, false) => TlsVersions::Only13,
            (true, true) => return Err(reading.wrong("min_version", "is above `max_version`")),
        };
        let tls = ServerTls::new(identity, self.client_auth, roots, versions)
            .map_err(|cause| WebConfigError::Tls { path: reading.path.to_owned(), cause })?;
        // HTTP/1.1 alone is spoken where metrics are.
        Ok(Some(tls.speaking(&[b"http/1.1"])))
    }
}

/// What stands in the file itself, or in one that it names, and in which; `None` if neither is said.
fn text_or_file(
    keys: [&'static str; 2],
    [text, file]: [&str; 2],
    reading: &Reading<'_>,
    files: &dyn Loader,
) -> Result<Option<(PathBuf, String)>, WebConfigError> {
    match (text.is_empty(), file.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Err(reading.wrong(keys[0], format!("is there, and `{}` too: take one of them out", keys[1]))),
        (false, true) => Ok(Some((reading.path.to_owned(), text.to_owned()))),
        (true, false) => {
            let path = reading.path.parent().unwrap_or(Path::new("")).join(file);
            let text = files.read_part(&path).map_err(|cause| TlsFileError::Read { path: path.clone(), cause })?;
            Ok(Some((path, text)))
        }
    }
}

/// The first document of a YAML text; an empty one has an empty mapping.
fn parse(path: &Path, text: &str) -> Result<Node, WebConfigError> {
    let fail = |line: usize, column: usize, what: &str| WebConfigError::NotYaml {
        path: path.to_owned(),
        line,
        column: column + 1,
        what: what.to_owned(),
    };
    // What is open, each mapping with the key whose value is read.
    let mut open: Vec<(Node, Option<String>)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| fail(error.marker().line(), error.marker().col(), error.info()))?;
        let fail = |what| fail(span.start.line(), span.start.col(), what);
        let mut done = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) if open.len() >= MOST_NESTED => {
                return Err(fail("too much stands within each other"));
            }
            Event::MappingStart(..) => {
                open.push((Node::Mapping(Vec::new()), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push((Node::Sequence(Vec::new()), None));
                continue;
            }
            Event::Alias(_) => return Err(fail("an alias (`*`) is not read here")),
            Event::Scalar(value, ..) => Node::Scalar(value.into_owned()),
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some((node, _)) => node,
                None => continue,
            },
            Event::DocumentEnd => break,
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(done),
            Some((Node::Sequence(items), _)) => items.push(done),
            Some((Node::Mapping(entries), key)) => match (key.take(), &mut done) {
                (Some(name), _) => entries.push((name, done)),
                (None, Node::Scalar(name)) => *key = Some(std::mem::take(name)),
                (None, _) => return Err(fail("a key has to be a single value")),
            },
            Some((Node::Scalar(_), _)) => {}
        }
    }
    Ok(Node::Mapping(Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::testing::{Authority, Files};

    /// What comes of a web configuration beside `tls.crt`, `tls.key` and `ca.crt`.
    fn read(text: &str) -> Result<WebConfig, String> {
        let authority = Authority::new("authority");
        let certified = authority.sign(&["metrics.example"]);
        let files = [
            ("/etc/web/web.yaml", text.to_owned()),
            ("/etc/web/tls.crt", certified.certificate),
            ("/etc/web/tls.key", certified.key),
            ("/etc/web/ca.crt", authority.pem()),
        ];
        let files = Files { files: files.map(|(path, text)| (path.to_owned(), text)).into(), ..Files::default() };
        WebConfig::read(Path::new("/etc/web/web.yaml"), &files).map_err(|error| error.to_string())
    }

    fn of_tls(lines: &str) -> Result<WebConfig, String> {
        read(&format!("tls_server_config:\n  cert_file: tls.crt\n  key_file: /etc/web/tls.key\n{lines}"))
    }

    #[test]
    fn without_a_certificate_there_is_no_tls() {
        for text in ["", "{}", "# nothing\n", "tls_server_config:\n", "tls_server_config: {}\nbasic_auth_users: {}\n"] {
            let config = read(text).unwrap();
            assert!(config.tls.is_none() && config.ignored.is_empty(), "{text}");
        }
    }

    #[test]
    fn files_are_relative_to_the_web_configurations_folder_and_texts_may_stand_in_it() {
        assert!(of_tls("").unwrap().tls.is_some());
        assert!(
            of_tls("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n").unwrap().tls.is_some()
        );
        let certified = Authority::new("authority").sign(&["metrics.example"]);
        let block = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let inline = format!(
            "tls_server_config:\n  cert: |\n{}  key: |\n{}",
            block(&certified.certificate),
            block(&certified.key)
        );
        assert!(read(&inline).unwrap().tls.is_some());
    }

    #[test]
    fn what_is_not_heeded_is_told() {
        let config = of_tls(
            "  min_version: TLS12\n  max_version: TLS13\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  prefer_server_cipher_suites: true\nhttp_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\nrate_limit: {}\n",
        );
        assert_eq!(config.unwrap().ignored, ["cipher_suites", "headers", "rate_limit"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (text, said) in [
            ("tls_server_config: [\n", "/etc/web/web.yaml:"),
            ("tls_server_config: yes please\n", "`tls_server_config` of /etc/web/web.yaml is no mapping"),
            ("tls_server_confg: {}\n", "has the key `tls_server_confg`"),
            ("tls_server_config: {}\ntls_server_config: {}\n", "has the key `tls_server_config` twice"),
            ("tls_server_config: &a {}\nhttp_server_config: *a\n", "alias"),
            ("basic_auth_users:\n  me: $2y$10$x\n", "asks for passwords"),
            ("tls_server_config:\n  cert_file: tls.crt\n", "`key_file` of /etc/web/web.yaml is not there"),
            ("tls_server_config:\n  key_file: tls.key\n", "`cert_file` of /etc/web/web.yaml is not there"),
            ("tls_server_config:\n  cert_file: absent\n  key_file: tls.key\n", "/etc/web/absent cannot be read"),
            ("tls_server_config:\n  cert_file: ca.crt\n  key_file: tls.key\n", "cannot be shown with the key"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        for (lines, said) in [
            ("  client_auth_type: Sometimes\n", "`client_auth_type`"),
            ("  client_ca_file: ca.crt\n", "though there is a CA for clients"),
            ("  client_allowed_sans: [a]\n", "`client_allowed_sans`"),
            ("  max_version: TLS11\n", "TLS 1.1, which is not spoken"),
            ("  min_version: TLS13\n  max_version: TLS12\n", "is above `max_version`"),
            ("  min_version: SSL3\n", "`min_version`"),
            ("  cert: x\n", "`cert_file` too"),
        ] {
            let error = of_tls(lines).unwrap_err();
            assert!(error.contains(said), "{lines}: {error}");
        }
        for (nested, said) in [(20, "too much stands within each other"), (100_000, "is not YAML that can be read")] {
            let error = read(&format!("a: {}{}\n", "[".repeat(nested), "]".repeat(nested))).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z_]{0,6}[:\\[\\]{}&*!|>'\"#,-]?[ \n]{0,3}){0,40}|.{0,100}") {
            _ = parse(Path::new("web.yaml"), &text);
        }
    }
}
