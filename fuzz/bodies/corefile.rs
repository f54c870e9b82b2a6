//! A Corefile and the files it imports: a plan, or diagnostics with every place inside its source, within the parser's
//! bounds.

use nodelocaldns::chain::{Interfaces, Loaders, ProcessContext};
use nodelocaldns::corefile::{Corefile, Diagnostics, Loader, OptionLine, Span, Token, format, parse};
use nodelocaldns::plan::configure;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Octets the caches of a plan may take; their number has no other bound than this.
const CACHE_OCTETS: usize = 1 << 20;

/// The parts of the input between octets of zero: the Corefile, then the files `1`, `2`, ...
struct Parts<'a>(Vec<&'a str>);

impl Loader for Parts<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        if path == Path::new("/etc/resolv.conf") {
            return Ok("nameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch a.example\noptions ndots:5\n".to_owned());
        }
        let number = path.to_str().and_then(|path| path.parse::<usize>().ok()).filter(|number| *number > 0);
        number
            .and_then(|number| self.0.get(number))
            .map(|text| (*text).to_owned())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn glob(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok((1..self.0.len()).map(|number| number.to_string().into()).collect())
    }
    fn environment(&self, name: &str) -> Option<String> {
        (name.len() < 8).then(|| format!("{name} {{$A}} {{args[0]}}\n"))
    }
}

/// `eth0` has addresses, one of them link-local; `lo1` has none.
impl Interfaces for Parts<'_> {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        match name {
            "eth0" => Some(vec![[192, 0, 2, 1].into(), [0xfe80, 0, 0, 0, 0, 0, 0, 1].into()]),
            "lo1" => Some(Vec::new()),
            _ => None,
        }
    }
    fn index(&self, name: &str) -> Option<u32> {
        (name == "eth0").then_some(2)
    }
}

/// Panics if anything the directives, the report or the server rely on does not hold.
pub fn run(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok(formatted) = format(text) {
        assert_eq!(format(&formatted).as_deref(), Ok(formatted.as_str()), "what is laid out stays as it is");
    }
    let parts = Parts(text.split('\0').collect());
    let (corefile, mut diagnostics) = parse(Path::new("Corefile"), parts.0.first().unwrap_or(&""), &parts);
    let (config, more) = configure(&corefile, 53, Loaders { files: &parts, interfaces: &parts });
    diagnostics.extend(more);
    check_spans(&corefile, &diagnostics);
    let report = diagnostics.render(&corefile.sources);
    assert_eq!(report.is_empty(), diagnostics.is_empty());
    assert!(report.chars().all(|character| !character.is_control() || character == '\n' || character == '\t'));
    if !diagnostics.has_errors() {
        // What cannot be built is told then; it may only not panic. Built twice, as a reload does it.
        let services = ProcessContext::new(1, CACHE_OCTETS);
        let built = config.build(&services);
        let again = config.build(&services);
        assert_eq!(built.is_ok(), again.is_ok());
        drop((built, again));
        services.registry.encode();
    }
}

fn check_spans(corefile: &Corefile, diagnostics: &Diagnostics) {
    let lines: Vec<Vec<usize>> = corefile
        .sources
        .files
        .iter()
        .map(|(_, text)| text.split('\n').map(|line| line.chars().count()).collect())
        .collect();
    let check = |span: Span| {
        let characters = lines[span.file.0 as usize][span.line as usize - 1];
        assert!(
            span.column >= 1 && (span.column - 1 + span.length) as usize <= characters,
            "{span:?} in a line of {characters}"
        );
    };
    for block in &corefile.blocks {
        block.keys.iter().for_each(|key| check(key.span));
        for directive in &block.directives {
            check_tokens(&directive.keyword, &directive.arguments, &check);
            check_options(&directive.options, &check);
        }
    }
    diagnostics.iter().filter_map(|diagnostic| diagnostic.span).for_each(check);
}

fn check_options(options: &[OptionLine], check: &dyn Fn(Span)) {
    for option in options {
        check_tokens(&option.name, &option.arguments, check);
        check_options(&option.block, check);
    }
}

fn check_tokens(name: &Token, arguments: &[Token], check: &dyn Fn(Span)) {
    check(name.span);
    arguments.iter().for_each(|token| check(token.span));
}
