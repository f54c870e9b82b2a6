//! `dnstap [listen] SOCKET [full] [WRITEBUFFER] [QUEUE] { ... }`

use super::shared::{Address, EndpointConfig, Mode};
use super::{KEYWORD, TapConfig};
use crate::chain::{BlockConfig, Format, ParseContext, Part, host_name, placeholders};
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, nearest, value};
use crate::net::tls::{ClientAuth, ClientTls, Identity, Roots, ServerTls, TlsFileError, TlsVersions, system_roots};
use std::path::{Path, PathBuf};

const USAGE: &str = "dnstap [listen] SOCKET [full] [WRITEBUFFER] [QUEUE]";
const OPTIONS: [&str; 5] = ["identity", "version", "extra", "skipverify", "tls"];
const TLS_USAGE: &str = "tls CERT KEY [CA], each the path of a PEM file";
/// MiB (maxMultipleTcpWriteBuf of CoreDNS' plugin/dnstap).
const MOST_BUFFER: u64 = 1024;
/// maxMultipleQueue there.
const MOST_QUEUE: u64 = 4096;

/// Reads one `dnstap` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let mut options = Options::read(&directive.options, block.root.as_deref(), context);
    let (is_listening, arguments) = match directive.arguments.split_first() {
        Some((first, rest)) if first.text == "listen" => (true, rest),
        _ => (false, directive.arguments.as_slice()),
    };
    let Some((socket, rest)) = arguments.split_first() else {
        let message = if is_listening { "dnstap listen needs a socket" } else { "dnstap needs a socket" };
        context
            .diagnostics
            .error(directive.keyword.span, message)
            .help(format!("write `{USAGE}`, such as `dnstap /run/dnstap.sock full` or `dnstap tcp://127.0.0.1:6000`"));
        return;
    };
    let shape = Shape::read(rest, is_listening, context.diagnostics);
    let Some((address, is_tls)) = read_address(socket, is_listening, context.diagnostics) else { return };
    if let Address::Unix(path) = &address {
        context.loaders.files.socket(path);
    }
    let mode = match is_listening {
        false => options.connect(is_tls, shape.buffer, &directive.keyword, context),
        true => options.listen(is_tls, socket, context),
    };
    let Some(mode) = mode else { return };
    let configured = TapConfig {
        endpoint: EndpointConfig { text: socket.text.clone(), address, mode, queue: shape.queue },
        is_full: shape.is_full,
        identity: options.identity.unwrap_or_else(host_name),
        version: options
            .version
            .unwrap_or_else(|| concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION")).to_owned()),
        extra: options.extra,
    };
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(configured) });
}

/// What comes after the socket.
struct Shape {
    is_full: bool,
    buffer: usize,
    queue: usize,
}

impl Shape {
    fn read(arguments: &[Token], is_listening: bool, diagnostics: &mut Diagnostics) -> Self {
        let is_full = arguments.first().is_some_and(|word| word.text == "full");
        if let Some(word) = arguments.first().filter(|_| !is_full) {
            let warning = diagnostics.warning(
                word.span,
                format!("`{}` is ignored where `full` may stand: messages have no DNS message in them", word.text),
            );
            warning.help(match nearest(&word.text, ["full"]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write `{USAGE}`"),
            });
        }
        let mut number = |place: usize, what: &str, most: u64| {
            let token = arguments.get(place)?;
            value::number(token, what, 1..=most, diagnostics)
        };
        let buffer = number(1, "the write buffer, in MiB,", MOST_BUFFER).unwrap_or(1) as usize;
        let queue = number(2, "the queue, in 10,000 messages,", MOST_QUEUE).unwrap_or(1) as usize;
        if let (true, Some(first)) = (is_listening, arguments.get(1)) {
            diagnostics
                .warning(first.span, "the write buffer and the queue are ignored where dnstap listens")
                .help("leave them out");
        }
        value::ignored_arguments(arguments.get(3..).unwrap_or_default(), USAGE, diagnostics);
        Self { is_full, buffer, queue: if is_listening { 1 } else { queue } }
    }
}

/// The socket, and whether TLS is spoken there.
fn read_address(socket: &Token, is_listening: bool, diagnostics: &mut Diagnostics) -> Option<(Address, bool)> {
    let (rest, is_tls) = match socket.text.split_once("://") {
        Some(("tcp", rest)) => (rest, false),
        Some(("tls", rest)) => (rest, true),
        _ => {
            let path = socket.text.strip_prefix("unix://").unwrap_or(&socket.text);
            return Some((Address::Unix(path.into()), false));
        }
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match host_and_port.filter(|(host, port)| *port != 0 && (is_listening || !host.is_empty())) {
        Some((host, port)) => {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some((Address::Tcp { host: host.to_owned(), port }, is_tls))
        }
        None => {
            let message = format!("`{}` names no host and port, so nothing is tapped", socket.text);
            diagnostics
                .warning(socket.span, message)
                .help("such as tcp://127.0.0.1:6000 or tls://collector.example.org:6000");
            None
        }
    }
}

/// What stands between the braces.
#[derive(Default)]
struct Options {
    identity: Option<String>,
    version: Option<String>,
    extra: Option<Format>,
    skip_verify: Option<Token>,
    /// Where `tls` stands, and what it names; `None` after a diagnostic.
    tls: Option<(Token, Option<ServerFiles>)>,
}

/// What readers are shown, and who vouches for them.
struct ServerFiles {
    identity: Identity,
    roots: Option<Roots>,
}

impl Options {
    fn read(lines: &[OptionLine], root: Option<&Path>, context: &mut ParseContext<'_>) -> Self {
        let mut options = Self::default();
        for line in lines {
            let diagnostics = &mut *context.diagnostics;
            match line.name.text.as_str() {
                "skipverify" => {
                    value::ignored_arguments(&line.arguments, "skipverify", diagnostics);
                    options.skip_verify = Some(line.name.clone());
                }
                "identity" => options.identity = word(line, diagnostics).or(options.identity),
                "version" => options.version = word(line, diagnostics).or(options.version),
                "extra" => {
                    if let Some(text) = word(line, diagnostics) {
                        let span = line.arguments.first().unwrap_or(&line.name).span;
                        let format = Format::compile(&text, |unknown| {
                            let message = format!("`{{{unknown}}}` is no placeholder and stands as it is");
                            let warning = diagnostics.warning(span, message);
                            if let Some(near) = nearest(unknown, placeholders()) {
                                warning.help(format!("did you mean `{{{near}}}`?"));
                            }
                        });
                        options.extra = Some(format).filter(|_| !text.is_empty());
                    }
                }
                "tls" => {
                    let files = read_tls(line, root, context);
                    options.tls = Some((line.name.clone(), files));
                }
                _ => value::unknown_option(line, KEYWORD, &OPTIONS, diagnostics),
            }
        }
        options
    }

    /// How we connect; `None` after a diagnostic.
    fn connect(&self, is_tls: bool, buffer: usize, keyword: &Token, context: &mut ParseContext<'_>) -> Option<Mode> {
        if let Some((word, _)) = &self.tls {
            context.diagnostics.error(word.span, "tls is for `dnstap listen` alone").help(
                "write `tls://` before the socket's address, and `skipverify` if its certificate cannot be verified",
            );
            return None;
        }
        let buffer_octets = buffer << 20;
        if !is_tls {
            self.warn_ignored_skipverify(context.diagnostics);
            return Some(Mode::Connect { tls: None, buffer_octets });
        }
        let client = match &self.skip_verify {
            Some(_) => ClientTls::unverified(),
            None => {
                let roots = system_roots(context.loaders.files);
                if roots.is_empty() {
                    let message = "this machine has no certificates of authorities (such as /etc/ssl/certs/ca-certificates.crt): no \
                                   reader is believed over TLS";
                    context.diagnostics.warning(keyword.span, message).help(
                        "install them (Debian: ca-certificates), mount them into the container, or write `skipverify`",
                    );
                }
                ClientTls::new(roots, None)
            }
        };
        match client {
            Ok(tls) => Some(Mode::Connect { tls: Some(tls), buffer_octets }),
            Err(error) => {
                context.diagnostics.error(keyword.span, format!("TLS cannot be used: {error}"));
                None
            }
        }
    }

    /// How readers connect to us; `None` after a diagnostic.
    fn listen(&mut self, is_tls: bool, socket: &Token, context: &mut ParseContext<'_>) -> Option<Mode> {
        match (is_tls, self.tls.take()) {
            (false, None) => {
                self.warn_ignored_skipverify(context.diagnostics);
                Some(Mode::Listen { tls: None })
            }
            (false, Some((word, _))) => {
                let message = format!("tls is ignored: readers connect to {} without it", socket.text);
                context.diagnostics.warning(word.span, message).help("write tls:// before the address, or remove it");
                Some(Mode::Listen { tls: None })
            }
            // The reference serves nobody then, and says so in its log.
            (true, None) => {
                let message = format!("{} needs a certificate and its key, so nothing is tapped", socket.text);
                context.diagnostics.warning(socket.span, message).help(format!("write `{TLS_USAGE}` in a block"));
                None
            }
            (true, Some((_, None))) => None,
            (true, Some((word, Some(ServerFiles { identity, roots })))) => {
                let auth = match (&roots, &self.skip_verify) {
                    (None, _) => ClientAuth::NoCertificate,
                    (Some(_), Some(_)) => ClientAuth::VerifyIfGiven,
                    (Some(_), None) => ClientAuth::RequireAndVerify,
                };
                match ServerTls::new(identity, auth, roots.unwrap_or_else(Roots::none), TlsVersions::Both) {
                    Ok(tls) => Some(Mode::Listen { tls: Some(tls) }),
                    Err(error) => {
                        context.diagnostics.error(word.span, format!("TLS cannot be used: {error}")).help(TLS_USAGE);
                        None
                    }
                }
            }
        }
    }

    fn warn_ignored_skipverify(&self, diagnostics: &mut Diagnostics) {
        if let Some(word) = &self.skip_verify {
            diagnostics
                .warning(word.span, "skipverify is ignored: there is no TLS to this socket")
                .help("write tls:// before its address, or remove it");
        }
    }
}

/// The first argument of an option; the reference looks at no more.
fn word(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<String> {
    let name = &line.name.text;
    let Some((first, rest)) = line.arguments.split_first() else {
        let usage = format!("{name} {}", name.to_uppercase());
        diagnostics.error(line.name.span, format!("{name} needs a value")).help(format!("write `{usage}`"));
        return None;
    };
    value::ignored_arguments(rest, &format!("{name} \"a b\""), diagnostics);
    Some(first.text.clone())
}

fn read_tls(line: &OptionLine, root: Option<&Path>, context: &mut ParseContext<'_>) -> Option<ServerFiles> {
    let path = |token: &Token| root.map_or_else(|| PathBuf::from(&token.text), |root| root.join(&token.text));
    let (certificate, key, roots) = match line.arguments.as_slice() {
        [certificate, key] => (certificate, key, None),
        [certificate, key, roots, rest @ ..] => {
            value::ignored_arguments(rest, TLS_USAGE, context.diagnostics);
            (certificate, key, Some(roots))
        }
        _ => {
            context.diagnostics.error(line.name.span, "tls needs a certificate and its key").help(TLS_USAGE);
            return None;
        }
    };
    let files = context.loaders.files;
    let key_path = path(key);
    let mut refuse = |token: &Token, error: &TlsFileError| {
        context.diagnostics.error(token.span, error.to_string()).help(TLS_USAGE);
    };
    let identity = Identity::from_files(&path(certificate), &key_path, files).map_err(|error| {
        refuse(if error.path() == Some(&key_path) { key } else { certificate }, &error);
    });
    let roots = roots.map(|token| Roots::from_file(&path(token), files).map_err(|error| refuse(token, &error)));
    Some(ServerFiles { identity: identity.ok()?, roots: roots.transpose().ok()? })
}
