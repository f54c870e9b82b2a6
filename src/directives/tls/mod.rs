//! The `tls` directive names the certificate that zones with `tls://` and `https://` show (RFC 7858, RFC 8484); see
//! README.md beside this file.

#[cfg(test)]
mod tests;

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, value};
use crate::net::tls::{ClientAuth, Identity, Roots, ServerTls, TlsFileError, TlsVersions, system_roots};
use std::path::{Path, PathBuf};

const USAGE: &str = "tls CERTIFICATE KEY [CA], each the path of a PEM file";
const CLIENT_AUTH: &str = "client_auth nocert|request|require|verify_if_given|require_and_verify";
const OPTIONS: [&str; 2] = ["client_auth", "keylog"];

/// Reads one `tls` of a server block, and the files that it names. Paths are relative to `root` if that is given.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let keyword = &directive.keyword;
    let (certificate, key, authorities) = match directive.arguments.as_slice() {
        [] => {
            context
                .diagnostics
                .error(keyword.span, "tls names no certificate, and none is obtained by ACME here")
                .help(format!("write {USAGE}; cert-manager, for one, keeps them in a Secret that can be mounted"));
            return;
        }
        [certificate, key] => (certificate, key, None),
        [certificate, key, authorities] => (certificate, key, Some(authorities)),
        arguments => {
            let message = format!("tls takes two or three files, it has {}", arguments.len());
            context.diagnostics.error(arguments.last().map_or(keyword.span, |last| last.span), message).help(USAGE);
            return;
        }
    };
    let auth = read_options(&directive.options, context.diagnostics);
    let files = context.loaders.files;
    let root = block.root.as_deref();
    let (certificate_path, key_path) = (resolve(root, certificate), resolve(root, key));
    let identity = Identity::from_files(&certificate_path, &key_path, files).map_err(|error| {
        let is_of_key = error.path() == Some(&key_path);
        refuse(if is_of_key { key } else { certificate }, &error, context.diagnostics);
    });
    let roots = match authorities {
        Some(token) => {
            Roots::from_file(&resolve(root, token), files).map_err(|error| refuse(token, &error, context.diagnostics))
        }
        None if auth.is_some_and(ClientAuth::is_verified) => Ok(roots_of_machine(keyword, context)),
        None => Ok(Roots::none()),
    };
    let (Ok(identity), Ok(roots), Some(auth)) = (identity, roots, auth) else { return };
    match ServerTls::new(identity, auth, roots, TlsVersions::Both) {
        Ok(tls) => block.tls = Some((tls, keyword.span)),
        Err(error) => {
            context.diagnostics.error(keyword.span, format!("TLS cannot be served: {error}")).help(USAGE);
        }
    }
}

fn resolve(root: Option<&Path>, token: &Token) -> PathBuf {
    root.map_or_else(|| PathBuf::from(&token.text), |root| root.join(&token.text))
}

fn refuse(token: &Token, error: &TlsFileError, diagnostics: &mut Diagnostics) {
    let diagnostic = match error.is_absence() {
        true => diagnostics.absent_file(token.span, error.to_string()),
        false => diagnostics.error(token.span, error.to_string()),
    };
    diagnostic.help(USAGE);
}

/// The certificates that this machine trusts, which tell clients' where no file is named.
fn roots_of_machine(keyword: &Token, context: &mut ParseContext<'_>) -> Roots {
    let roots = system_roots(context.loaders.files);
    if roots.is_empty() {
        let message = "this machine has no certificates of authorities (such as /etc/ssl/certs/ca-certificates.crt): no client's \
                       certificate is believed";
        context
            .diagnostics
            .warning(keyword.span, message)
            .help("name a file with those of your clients: `tls CERTIFICATE KEY CA`");
    }
    roots
}

/// `None` after an error. Of an option that stands twice the last counts, as in CoreDNS.
fn read_options(lines: &[OptionLine], diagnostics: &mut Diagnostics) -> Option<ClientAuth> {
    let mut auth = Some(ClientAuth::NoCertificate);
    for line in lines {
        match line.name.text.as_str() {
            "client_auth" => {
                let word = value::exactly(&line.name, &line.arguments, CLIENT_AUTH, diagnostics);
                auth = word.and_then(|[word]| read_client_auth(word, diagnostics));
            }
            "keylog" => {
                diagnostics
                    .warning(line.name.span, "keylog is not heeded: the server's process can open no file")
                    .help("remove it; `log` shows queries and replies, and so does dnstap");
            }
            _ => {
                value::unknown_option(line, "tls", &OPTIONS, diagnostics);
                auth = None;
            }
        }
    }
    auth
}

fn read_client_auth(word: &Token, diagnostics: &mut Diagnostics) -> Option<ClientAuth> {
    match word.text.as_str() {
        "nocert" => Some(ClientAuth::NoCertificate),
        "request" => Some(ClientAuth::Request),
        "require" => Some(ClientAuth::RequireAny),
        "verify_if_given" => Some(ClientAuth::VerifyIfGiven),
        "require_and_verify" => Some(ClientAuth::RequireAndVerify),
        other => {
            diagnostics.error(word.span, format!("unknown authentication type `{other}`")).help(CLIENT_AUTH);
            None
        }
    }
}
