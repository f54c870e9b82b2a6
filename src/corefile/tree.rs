//! The tree of a Corefile, as the user wrote it.

use crate::message::Name;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Index of a file in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// Where a token stands: line and column from 1, columns and length in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file it stands in.
    pub file: FileId,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters.
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
    /// Without quotes and escapes.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One key of a server block, such as `dns://example.org:1053` or `10.0.0.0/8`. A CIDR off an octet boundary gives
/// several keys.
#[derive(Clone, Debug)]
pub struct BlockKey {
    /// `dns` unless written otherwise (`tls`, `grpc`, `https`, ...).
    pub scheme: String,
    pub zone: Name,
    /// Absent: the default port.
    pub port: Option<u16>,
    /// The zone is a name only because it is nothing else, such as `10.0.0.0/33.` or `example.org{.`, and clients ask
    /// for nothing in it. A warning tells what it should have been.
    pub is_mistaken: bool,
    pub span: Span,
}

/// `KEY... { DIRECTIVE... }`
#[derive(Clone, Debug)]
pub struct ServerBlock {
    pub keys: Vec<BlockKey>,
    pub directives: Vec<Directive>,
    /// It has no key, so nothing is served by it.
    pub is_ignored: bool,
}

/// A directive: its keyword, the arguments on its line, and the lines of its block, if it has one.
#[derive(Clone, Debug)]
pub struct Directive {
    pub keyword: Token,
    pub arguments: Vec<Token>,
    pub options: Vec<OptionLine>,
}

impl fmt::Display for Directive {
    /// Its words, quoted, without comments and spacing: the same for two directives that say the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, &self.keyword, &self.arguments, &self.options)
    }
}

impl fmt::Display for OptionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, &self.name, &self.arguments, &self.block)
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, name: &Token, arguments: &[Token], block: &[OptionLine]) -> fmt::Result {
    write!(f, "{:?}", name.text)?;
    arguments.iter().try_for_each(|argument| write!(f, " {:?}", argument.text))?;
    if !block.is_empty() {
        write!(f, " {{")?;
        block.iter().try_for_each(|line| write!(f, " {line};"))?;
        write!(f, " }}")?;
    }
    Ok(())
}

/// One line inside a directive's block; `block` holds a nested block's lines.
#[derive(Clone, Debug)]
pub struct OptionLine {
    /// The first word.
    pub name: Token,
    /// The words after it.
    pub arguments: Vec<Token>,
    /// The lines in its braces.
    pub block: Vec<OptionLine>,
}

/// A parsed Corefile: snippets and imports are resolved.
#[derive(Clone, Debug, Default)]
pub struct Corefile {
    /// Its server blocks, in the order of the text.
    pub blocks: Vec<ServerBlock>,
    /// The files that it was read from.
    pub sources: Sources,
}
