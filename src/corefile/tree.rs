//! What the user wrote.

use crate::message::Name;
use std::path::PathBuf;
use std::sync::Arc;

/// Index of a file in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// Where a token stands: line and column from 1, columns and length in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub file: FileId,
    pub line: u32,
    pub column: u32,
    pub length: u32,
}

/// Every file that was read, for rendering diagnostics and for watching.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub files: Vec<(PathBuf, Arc<str>)>,
}

/// A word, with quotes and escapes resolved and environment variables replaced.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    pub span: Span,
}

/// One key of a server block, such as `dns://example.org:1053` or `10.0.0.0/8`. A CIDR off an octet boundary gives several keys.
#[derive(Clone, Debug)]
pub struct Key {
    /// `dns` unless written otherwise (`tls`, `grpc`, `https`, ...).
    pub scheme: String,
    pub zone: Name,
    /// Absent: the default port.
    pub port: Option<u16>,
    pub span: Span,
}

/// `KEY... { DIRECTIVE... }`
#[derive(Clone, Debug)]
pub struct ServerBlock {
    pub keys: Vec<Key>,
    pub directives: Vec<Directive>,
}

/// A directive: its keyword, the arguments on its line, and the lines of its block, if it has one.
#[derive(Clone, Debug)]
pub struct Directive {
    pub keyword: Token,
    pub arguments: Vec<Token>,
    pub options: Vec<OptionLine>,
}

/// One line inside a directive's block; `block` holds a nested block's lines.
#[derive(Clone, Debug)]
pub struct OptionLine {
    pub name: Token,
    pub arguments: Vec<Token>,
    pub block: Vec<OptionLine>,
}

/// A parsed Corefile: snippets and imports are resolved.
#[derive(Clone, Debug, Default)]
pub struct Corefile {
    pub blocks: Vec<ServerBlock>,
    pub sources: Sources,
}
