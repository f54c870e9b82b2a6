//! Corefile text to a tree with source positions, and the diagnostics of everything wrong with it (the grammar is Caddyfile
//! v1's, as CoreDNS uses it). Pure: files, globs and the environment are asked of a [`Loader`].

mod diagnostic;
mod tree;
pub mod value;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use tree::{Corefile, Directive, FileId, Key, OptionLine, ServerBlock, Sources, Span, Token};

use std::io;
use std::path::{Path, PathBuf};

/// What a Corefile may ask of the world.
pub trait Loader {
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Paths that match a shell pattern, sorted.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
    fn environment(&self, name: &str) -> Option<String>;
}

/// The real files and environment of this process.
pub struct SystemLoader;

/// Parses `text`, which stands in `path`. The tree holds what could be read even when the diagnostics have errors, so that the
/// directives' own errors can be reported with the grammar's.
pub fn parse(path: &Path, text: &str, loader: &dyn Loader) -> (Corefile, Diagnostics) {
    todo!()
}

/// The candidate nearest to a misspelt word, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    todo!()
}
