mod errors;
mod grammar;
mod imports;
mod properties;
mod values;

use super::{Corefile, Diagnostics, Loader, OptionLine, ServerBlock, Severity, Token};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Files and environment in memory.
#[derive(Default)]
struct Memory {
    files: BTreeMap<PathBuf, String>,
    variables: BTreeMap<String, String>,
}

impl Memory {
    fn with(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        Self { files, ..Self::default() }
    }
    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }
    /// What is not portable is told of by [`Memory::not_portable`].
    fn parse(&self, text: &str) -> (Corefile, Diagnostics) {
        let (corefile, mut diagnostics) = super::parse(Path::new("/etc/Corefile"), text, self);
        diagnostics.retain(|diagnostic| diagnostic.severity != Severity::Portability);
        (corefile, diagnostics)
    }
    /// Places of what the reference does not take.
    fn not_portable(&self, text: &str) -> Vec<(u32, u32)> {
        let (_, diagnostics) = super::parse(Path::new("/etc/Corefile"), text, self);
        let told = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Portability);
        told.filter_map(|diagnostic| diagnostic.span).map(|span| (span.line, span.column)).collect()
    }
    /// The tree of a text without errors or warnings.
    fn tree(&self, text: &str) -> Vec<ServerBlock> {
        let (corefile, diagnostics) = self.parse(text);
        assert!(diagnostics.is_empty(), "{}", diagnostics.render(&corefile.sources));
        corefile.blocks
    }
    fn report(&self, text: &str) -> String {
        let (corefile, diagnostics) = self.parse(text);
        diagnostics.render(&corefile.sources)
    }
}

impl Loader for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let pattern = glob::Pattern::new(pattern.to_str().unwrap()).unwrap();
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        Ok(self.files.keys().filter(|path| pattern.matches_path_with(path, options)).cloned().collect())
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

fn tree(text: &str) -> Vec<ServerBlock> {
    Memory::default().tree(text)
}

fn report(text: &str) -> String {
    Memory::default().report(text)
}

/// A tree in a form that is easy to compare: `keys { directive arguments { option arguments } }`.
fn show(blocks: &[ServerBlock]) -> String {
    let words = |name: &Token, arguments: &[Token]| {
        let words: Vec<String> = [name].into_iter().chain(arguments).map(|token| format!("<{}>", token.text)).collect();
        words.join(" ")
    };
    fn lines(options: &[OptionLine], words: &dyn Fn(&Token, &[Token]) -> String) -> String {
        if options.is_empty() {
            return String::new();
        }
        let lines: Vec<String> = options
            .iter()
            .map(|option| words(&option.name, &option.arguments) + &lines(&option.block, words))
            .collect();
        format!(" {{ {} }}", lines.join("; "))
    }
    let mut out = Vec::new();
    for block in blocks {
        let keys: Vec<String> = block
            .keys
            .iter()
            .map(|key| {
                format!("{}://{}{}", key.scheme, key.zone, key.port.map(|port| format!(":{port}")).unwrap_or_default())
            })
            .collect();
        let directives: Vec<String> = block
            .directives
            .iter()
            .map(|directive| words(&directive.keyword, &directive.arguments) + &lines(&directive.options, &words))
            .collect();
        out.push(format!("{} [{}]", keys.join(" "), directives.join("; ")));
    }
    out.join("\n")
}
