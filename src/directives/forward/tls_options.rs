//! Reads `tls` and `tls_servername`: how upstreams are asked over TLS.

use crate::chain::ParseContext;
use crate::corefile::{Diagnostics, OptionLine, Token, value};
use crate::net::tls::{ClientTls, Identity, Roots, TlsFileError, is_server_name, system_roots};
use std::path::{Path, PathBuf};

const TLS_USAGE: &str = "tls, tls CA, tls CERTIFICATE KEY or tls CERTIFICATE KEY CA, each the path of a PEM file";

/// The options of one `forward` for TLS. Of each that stands twice the last counts, as in CoreDNS.
#[derive(Default)]
pub(super) struct TlsOptions {
    /// `None`: the machine's.
    roots: Option<Roots>,
    identity: Option<Identity>,
    server_name: Option<String>,
    /// The names of the options that are there.
    words: Vec<Token>,
    /// A diagnostic says why these options cannot be used.
    has_failed: bool,
}

impl TlsOptions {
    /// Reads those of `lines` that are about TLS, and the files that they name. As in CoreDNS, that happens also where
    /// no upstream is asked over TLS. Paths are relative to `root` if that is given.
    pub(super) fn read(lines: &[OptionLine], root: Option<&Path>, context: &mut ParseContext<'_>) -> Self {
        let mut options = Self::default();
        for line in lines {
            match line.name.text.as_str() {
                "tls" => options.read_tls(line, root, context),
                "tls_servername" => options.read_server_name(line, context.diagnostics),
                _ => continue,
            }
            options.words.push(line.name.clone());
        }
        options
    }

    /// What `tls_servername` says.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// How the upstreams are asked over TLS; `None` if none is, or after a diagnostic. `keyword` is where the directive
    /// stands.
    pub(super) fn client(self, has_tls: bool, keyword: &Token, context: &mut ParseContext<'_>) -> Option<ClientTls> {
        if !has_tls {
            for word in &self.words {
                let message = format!("{} is ignored: no upstream is asked over TLS", word.text);
                context
                    .diagnostics
                    .warning(word.span, message)
                    .help("write tls:// or https:// before the addresses of those that are, or remove it");
            }
            return None;
        }
        if self.has_failed {
            return None;
        }
        let roots = self.roots.unwrap_or_else(|| {
            let roots = system_roots(context.loaders.files);
            if roots.is_empty() {
                let message = "this machine has no certificates of authorities (such as /etc/ssl/certs/ca-certificates.crt): no upstream \
                               is believed over TLS, and queries for it will fail";
                context
                    .diagnostics
                    .warning(keyword.span, message)
                    .help("install them (Debian: ca-certificates), mount them into the container, or name a file with `tls CA`");
            }
            roots
        });
        match ClientTls::new(roots, self.identity) {
            Ok(client) => Some(client),
            Err(error) => {
                context.diagnostics.error(keyword.span, format!("TLS cannot be used: {error}")).help(TLS_USAGE);
                None
            }
        }
    }

    fn read_tls(&mut self, line: &OptionLine, root: Option<&Path>, context: &mut ParseContext<'_>) {
        (self.roots, self.identity) = (None, None);
        let (identity, roots) = match line.arguments.as_slice() {
            [] => (None, None),
            [roots] => (None, Some(roots)),
            [certificate, key] => (Some((certificate, key)), None),
            [certificate, key, roots] => (Some((certificate, key)), Some(roots)),
            [_, _, _, extra, ..] => {
                let message = format!("tls takes at most three files, it has {}", line.arguments.len());
                context.diagnostics.error(extra.span, message).help(TLS_USAGE);
                self.has_failed = true;
                return;
            }
        };
        let files = context.loaders.files;
        let path = |token: &Token| root.map_or_else(|| PathBuf::from(&token.text), |root| root.join(&token.text));
        if let Some(token) = roots {
            match Roots::from_file(&path(token), files) {
                Ok(roots) => self.roots = Some(roots),
                Err(error) => self.refuse(token, &error, context.diagnostics),
            }
        }
        if let Some((certificate, key)) = identity {
            let key_path = path(key);
            match Identity::from_files(&path(certificate), &key_path, files) {
                Ok(identity) => self.identity = Some(identity),
                Err(error) => {
                    let is_of_key = error.path() == Some(&key_path);
                    self.refuse(if is_of_key { key } else { certificate }, &error, context.diagnostics);
                }
            }
        }
    }

    fn refuse(&mut self, token: &Token, error: &TlsFileError, diagnostics: &mut Diagnostics) {
        diagnostics.error(token.span, error.to_string()).help(TLS_USAGE);
        self.has_failed = true;
    }

    fn read_server_name(&mut self, line: &OptionLine, diagnostics: &mut Diagnostics) {
        match value::exactly(&line.name, &line.arguments, "tls_servername NAME", diagnostics) {
            // As in CoreDNS, an empty name is none.
            Some([name]) => {
                warn_unless_name(name, &name.text, diagnostics);
                self.server_name = Some(name.text.clone()).filter(|name| !name.is_empty());
            }
            None => self.has_failed = true,
        }
    }
}

/// Warns of a server name that no certificate can be for. CoreDNS starts with it, and so do we.
pub(super) fn warn_unless_name(token: &Token, name: &str, diagnostics: &mut Diagnostics) {
    if !name.is_empty() && !is_server_name(name) {
        let message = format!(
            "`{name}` is neither a host name nor an IP address: no certificate is for it, and queries will fail"
        );
        diagnostics
            .warning(token.span, message)
            .help("the name in the upstream's certificate, such as dns.example.org");
    }
}
