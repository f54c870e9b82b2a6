//! Errors with a position, collected so that all of a file are told at once.

use super::tree::{Sources, Span};

/// One thing wrong (or, with `warning`, doubtful).
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// `None` for what concerns the file as a whole.
    pub span: Option<Span>,
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    pub warning: bool,
}

/// What was found wrong, in the order found.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Records an error; the returned reference lets the caller add [`Diagnostic::help`].
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        todo!()
    }
    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        todo!()
    }
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }
    /// True if at least one is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| !diagnostic.warning)
    }
    pub fn extend(&mut self, other: Diagnostics) {
        self.list.extend(other.list);
    }
    /// All of them for a terminal or a log: each begins with `file:line:column: message`, then the line, a caret, and the help;
    /// sorted by position.
    pub fn render(&self, sources: &Sources) -> String {
        todo!()
    }
}

impl Diagnostic {
    /// Says what would be right.
    pub fn help(&mut self, text: impl Into<String>) {
        self.help = Some(text.into());
    }
}
