//! Errors with a position, collected so that all of a file are told at once.

use super::tree::{FileId, Sources, Span};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use unicode_width::UnicodeWidthChar;

/// More than so many at once help nobody, and would fill a log.
const ENOUGH: usize = 1_000;

/// What a diagnostic means for the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Right here, and nothing that the reference takes: told only to who asks (`check --portable`).
    Portability,
    /// Doubtful, or not heeded.
    Warning,
    /// The file cannot be used.
    Error,
}

/// One thing wrong or doubtful.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// `None` for what concerns the file as a whole.
    pub span: Option<Span>,
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    pub severity: Severity,
    /// The line where it stands is not to be shown.
    pub is_secret: bool,
    /// It is about this machine alone, and may be well on the one that serves.
    pub is_of_machine: bool,
}

/// What was found wrong, in the order found.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Records an error; the returned reference lets the caller add [`Diagnostic::help`].
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Some(span), message.into(), Severity::Error)
    }
    /// Records an error that is none on a machine which has the file that is not here.
    pub fn absent_file(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let diagnostic = self.error(span, message);
        diagnostic.is_of_machine = true;
        diagnostic
    }
    /// Takes errors of this machine alone for warnings: it is another one that serves.
    pub fn excuse_machine(&mut self) {
        let of_machine = self.list.iter_mut().filter(|diagnostic| diagnostic.is_of_machine);
        of_machine.for_each(|diagnostic| diagnostic.severity = Severity::Warning);
    }
    /// Records something doubtful that does not keep the file from being used.
    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Some(span), message.into(), Severity::Warning)
    }
    /// Records what the reference refuses or reads otherwise, for who may go back to it.
    pub fn beyond_reference(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Some(span), message.into(), Severity::Portability)
    }
    /// Records an error that concerns a file, or the Corefile, as a whole.
    pub fn error_without_span(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.add(None, message.into(), Severity::Error)
    }
    /// Records a warning that concerns the Corefile as a whole.
    pub fn warning_without_span(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.add(None, message.into(), Severity::Warning)
    }
    fn add(&mut self, span: Option<Span>, message: String, severity: Severity) -> &mut Diagnostic {
        self.list.push(Diagnostic { span, message, help: None, severity, is_secret: false, is_of_machine: false });
        self.list.last_mut().expect("an element was just pushed")
    }
    /// Records a diagnostic made elsewhere.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }
    /// Keeps those of which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.list.retain(keep);
    }
    /// Gives each place its own in another text, from which this one was made.
    pub fn move_spans(&mut self, place: impl Fn(Span) -> Span) {
        self.list.iter_mut().filter_map(|diagnostic| diagnostic.span.as_mut()).for_each(|span| *span = place(*span));
    }
    /// All, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }
    /// How many there are, warnings included.
    pub fn len(&self) -> usize {
        self.list.len()
    }
    /// True if there are so many that reading on helps nobody.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() > ENOUGH
    }
    /// True if there is neither an error nor a warning.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
    /// True if at least one is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
    /// Takes over another collection, after what is here.
    pub fn extend(&mut self, other: Diagnostics) {
        self.list.extend(other.list);
    }
    /// All of them for a terminal or a log: each begins with `file:line:column: error: message` (or `warning:`), then
    /// come the line, a caret under the token, and the help. Sorted by position; what concerns no place comes first;
    /// the same thing said twice of one place (a snippet imported by two blocks) is told once; after a thousand it
    /// ends. Control characters of the source are made visible.
    pub fn render(&self, sources: &Sources) -> String {
        let mut sorted: Vec<&Diagnostic> = self.list.iter().collect();
        sorted.sort_by_key(|diagnostic| diagnostic.span.map(|span| (span.file.0, span.line, span.column)));
        let mut lines = Lines { sources, files: HashMap::new() };
        let mut told = HashSet::new();
        let mut out = String::new();
        for diagnostic in sorted {
            if told.len() >= ENOUGH {
                let _ = writeln!(out, "there is more that is wrong; these are the first {ENOUGH}");
                break;
            }
            let place = diagnostic.span.map(|span| (span.file, span.line, span.column, span.length));
            if told.insert((place, &diagnostic.message)) {
                render_one(diagnostic, &mut lines, &mut out);
            }
        }
        out
    }
}

impl Diagnostic {
    /// Says what would be right.
    pub fn help(&mut self, text: impl Into<String>) {
        self.help = Some(text.into());
    }
}

/// The text of a token for a message: in backquotes, and cut short where it is long.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 80;
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}

/// Lines of the sources, split once a file.
struct Lines<'a> {
    sources: &'a Sources,
    files: HashMap<FileId, Vec<&'a str>>,
}

impl<'a> Lines<'a> {
    fn line(&mut self, span: Span) -> Option<&'a str> {
        let (_, text) = self.sources.files.get(span.file.0 as usize)?;
        let lines = self.files.entry(span.file).or_insert_with(|| text.split('\n').collect());
        lines.get((span.line as usize).checked_sub(1)?).map(|line| line.strip_suffix('\r').unwrap_or(line))
    }
}

fn render_one(diagnostic: &Diagnostic, lines: &mut Lines<'_>, out: &mut String) {
    let file = diagnostic.span.map_or(0, |span| span.file.0 as usize);
    if let Some((path, _)) = lines.sources.files.get(file) {
        let _ = write!(out, "{}:", printable(&path.display().to_string(), false));
        if let Some(span) = diagnostic.span {
            let _ = write!(out, "{}:{}:", span.line, span.column);
        }
        out.push(' ');
    }
    let severity = if diagnostic.severity == Severity::Error { "error" } else { "warning" };
    let _ = writeln!(out, "{severity}: {}", printable(&diagnostic.message, false));

    let mut margin = 1;
    if let Some(span) = diagnostic.span
        && !diagnostic.is_secret
        && let Some(line) = lines.line(span)
    {
        let number = span.line.to_string();
        margin = number.len();
        let (shown, padding, carets) = excerpt(line, span);
        let _ = writeln!(out, " {number} | {shown}");
        let _ = writeln!(out, " {:margin$} | {padding}{carets}", "");
    }
    if let Some(help) = &diagnostic.help {
        let indent = format!("\n {:margin$}         ", "");
        let _ = writeln!(out, " {:margin$} = help: {}", "", printable(help, true).replace('\n', &indent));
    }
}

/// The part of `line` around the token, what stands below it up to the token, and the carets.
fn excerpt(line: &str, span: Span) -> (String, String, String) {
    const WINDOW_CHARACTERS: usize = 160;
    const LEAD_CHARACTERS: usize = 60;
    let token_start = (span.column as usize).saturating_sub(1);
    let skipped = if token_start > WINDOW_CHARACTERS - LEAD_CHARACTERS { token_start - LEAD_CHARACTERS } else { 0 };

    let (mut shown, mut padding, mut caret_count) = (String::new(), String::new(), 0);
    if skipped > 0 {
        shown.push('…');
        padding.push(' ');
    }
    let mut characters = line.chars().enumerate().skip(skipped);
    for (index, character) in characters.by_ref().take(WINDOW_CHARACTERS) {
        let character = visible(character);
        let width = character.width().unwrap_or(1);
        shown.push(character);
        if index < token_start {
            // A tab below a tab keeps the columns aligned whatever the terminal's tab stops are.
            if character == '\t' { padding.push('\t') } else { padding.extend(std::iter::repeat_n(' ', width)) }
        } else if index < token_start.saturating_add(span.length as usize) {
            caret_count += width;
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    (shown, padding, "^".repeat(caret_count.max(1)))
}

/// The character itself, or a stand-in for what would steer a terminal (control and bidirectional formatting
/// characters).
fn visible(character: char) -> char {
    match character {
        '\t' => '\t',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        _ if character.is_control() => char::REPLACEMENT_CHARACTER,
        _ => character,
    }
}

/// Text of ours with somebody else's text in it: one line of a log must stay one line, and a terminal must not be
/// steered.
pub(crate) fn printable(text: &str, keep_line_breaks: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' if keep_line_breaks => out.push('\n'),
            _ if character.is_control() => out.extend(character.escape_default()),
            _ => out.push(visible(character)),
        }
    }
    out
}
