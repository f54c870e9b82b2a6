//! A Corefile from its file to a configuration.

use crate::chain::Loaders;
use crate::corefile::{self, SystemLoader};
use crate::directives::bind::SystemInterfaces;
use crate::directives::reload::Fingerprint;
use crate::plan::{PlanConfig, configure};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The Corefile that is served when the user names none.
const BUILT_IN: &str = include_str!("../../config/Corefile.local");

/// Where the Corefile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// A text that stands nowhere else; the path is what diagnostics call it, and where its imports are relative to.
    Text {
        path: PathBuf,
        text: String,
    },
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the Corefile {path}: {cause}; check the path and its permissions, or name another with -conf")]
    Read { path: PathBuf, cause: io::Error },
    /// The Corefile is bad: its rendered diagnostics, and of which text.
    #[error("{diagnostics}")]
    Refused { diagnostics: String, fingerprint: Fingerprint },
}

/// A good configuration, what it was read from, and warnings.
pub struct Loaded {
    pub config: PlanConfig,
    /// Of the Corefile and every file it imports.
    pub fingerprint: Fingerprint,
    /// Files that it imports.
    pub imports: Vec<PathBuf>,
    /// Rendered; empty if there are none.
    pub warnings: String,
}

impl Source {
    /// The one shipped as config/Corefile.local.
    pub fn built_in() -> Self {
        Self::Text { path: "<built-in>".into(), text: BUILT_IN.to_owned() }
    }
    /// Standard input, read to its end.
    pub fn stdin() -> Result<Self, LoadError> {
        Self::once("<stdin>".into(), corefile::read_at_most(io::stdin()))
    }
    /// A file. What can be read but once, such as a pipe, is read here.
    pub fn file(path: &Path) -> Result<Self, LoadError> {
        let is_stream = |metadata: std::fs::Metadata| metadata.file_type().is_fifo() || metadata.file_type().is_char_device();
        match path.metadata().is_ok_and(is_stream) {
            true => Self::once(path.to_owned(), File::open(path).and_then(corefile::read_at_most)),
            false => Ok(Self::File(path.to_owned())),
        }
    }
    fn once(path: PathBuf, octets: io::Result<Vec<u8>>) -> Result<Self, LoadError> {
        match octets {
            Ok(octets) => Ok(Self::Text { path, text: String::from_utf8_lossy(&octets).into_owned() }),
            Err(cause) => Err(LoadError::Read { path, cause }),
        }
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Text { path, .. } => path,
        }
    }
    /// The text as it stands now.
    pub fn text(&self) -> Result<String, LoadError> {
        match self {
            Self::Text { text, .. } => Ok(text.clone()),
            Self::File(path) => match corefile::read_file(path) {
                Ok(octets) => Ok(String::from_utf8_lossy(&octets).into_owned()),
                Err(cause) => Err(LoadError::Read { path: path.clone(), cause }),
            },
        }
    }

    /// Reads and checks everything.
    pub fn load(&self, default_port: u16) -> Result<Loaded, LoadError> {
        let text = self.text()?;
        let (corefile, mut diagnostics) = corefile::parse(self.path(), &text, &SystemLoader);
        let loaders = Loaders { files: &SystemLoader, interfaces: &SystemInterfaces };
        let (config, more) = configure(&corefile, default_port, loaders);
        diagnostics.extend(more);
        if corefile.blocks.is_empty() && !diagnostics.has_errors() {
            // A file that was emptied, or is still being written, must not end the service.
            diagnostics
                .error_without_span("there is no server block")
                .help("write at least one, such as `.:53 {`, a `forward` or another directive, and `}`");
        }
        let rendered = diagnostics.render(&corefile.sources);
        let fingerprint = Fingerprint::of(&corefile.sources);
        match diagnostics.has_errors() {
            true => Err(LoadError::Refused { diagnostics: rendered, fingerprint }),
            false => {
                let imports = corefile.sources.files.into_iter().skip(1).map(|(path, _)| path).collect();
                Ok(Loaded { config, fingerprint, imports, warnings: rendered })
            }
        }
    }
}

/// Checks one file for `nodelocaldns check`: the text to print, and whether the file is good.
pub fn check(path: &Path, default_port: u16) -> (String, bool) {
    match Source::File(path.to_owned()).load(default_port) {
        Ok(loaded) if loaded.warnings.is_empty() => (format!("{}: good\n", path.display()), true),
        Ok(loaded) => (loaded.warnings, true),
        Err(error) => (format!("{error}\n"), false),
    }
}
