//! Corefile text to a tree with source positions, and the diagnostics of everything wrong with it (the grammar is
//! Caddyfile v1's, as CoreDNS uses it). Pure: files, globs and the environment are asked of a [`Loader`].

mod diagnostic;
mod duration;
mod expansion;
mod format;
mod lexer;
mod listen_address;
mod loader;
mod parser;
mod reader;
mod redaction;
mod socket;
#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod value;
mod zone;

pub use diagnostic::Diagnostics;
pub(crate) use diagnostic::printable;
pub(crate) use diagnostic::{Severity, quote};
pub(crate) use duration::GoDuration;
pub use format::format;
pub(crate) use listen_address::{ListenAddress, listen_address};
pub(crate) use loader::{DataFile, FileStamp};
pub(crate) use loader::{data_file_stamp, read_at_most, read_data_file, read_file};
pub(crate) use socket::{SocketRole, unix_socket};
pub(crate) use tree::{BlockKey, Directive, FileId, ServerBlock, Sources};
pub use tree::{Corefile, OptionLine, Span, Token};

use std::io;
use std::path::{Path, PathBuf};

/// What a Corefile may ask of the world.
pub trait Loader {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The text of a file that is a part of the configuration, such as a certificate: another text is another
    /// configuration, which `reload` loads.
    fn read_part(&self, path: &Path) -> io::Result<String> {
        self.read(path)
    }
    /// A file that a directive reads again while it serves (`hosts`), whatever its octets.
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        Ok(DataFile { text: self.read(path)?, stamp: FileStamp::default() })
    }
    /// Notes that a directive connects to a socket with this path, or listens there, while it serves.
    fn socket(&self, path: &Path) {
        let _ = path;
    }
    /// Paths that match a shell pattern, sorted.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a folder is there and can be listed.
    fn list(&self, folder: &Path) -> io::Result<()> {
        let _ = folder;
        Ok(())
    }
    /// The value of an environment variable; `None` if it is not set.
    fn environment(&self, name: &str) -> Option<String>;
}

/// The real files and environment of this process.
pub struct SystemLoader;

/// Parses `text`, which stands in `path`. The tree holds what could be read even when the diagnostics have errors, so
/// that the directives' own errors can be reported with the grammar's.
pub fn parse(path: &Path, text: &str, loader: &dyn Loader) -> (Corefile, Diagnostics) {
    parser::parse(reader::Reader::new(path, text, loader))
}

/// The candidate nearest to a misspelt word, if one is near enough to be meant: one edit in three characters, whatever
/// the case.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST_CHARACTERS: usize = 64;
    let length = word.chars().take(LONGEST_CHARACTERS + 1).count();
    if length > LONGEST_CHARACTERS {
        return None;
    }
    let word = word.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let nearest = candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 2 * LONGEST_CHARACTERS)
        .map(|candidate| (distance(candidate), candidate));
    let (distance, candidate) = nearest.min_by_key(|(distance, _)| *distance)?;
    (distance <= (length / 3).max(1) && distance < length).then_some(candidate)
}
