//! The words of a Corefile in reading order, across imported snippets and files, within bounds that hostile input
//! cannot exceed.

use super::Loader;
use super::diagnostic::{Diagnostics, quote};
use super::expansion::{TooLong, replace_arguments, replace_variables};
use super::lexer::{Lexeme, lex};
use super::tree::{FileId, Sources, Span, Token};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Octets of all files together.
const SOURCE_OCTETS: usize = 16 << 20;
/// Octets of all words of the tree, after replacement.
const TEXT_OCTETS: usize = 16 << 20;
/// Octets of one word after replacement.
const WORD_OCTETS: usize = 1 << 20;
/// Words read, those of a snippet as often as it is imported. Snippets that import snippets grow exponentially.
const WORDS: usize = 250_000;
/// Imports followed (the reference: 10,000 of snippets).
pub(super) const IMPORTS: usize = 10_000;
/// Imports within imports.
pub(super) const IMPORT_DEPTH: usize = 50;
/// Snippets looked at for the one nearest to a misspelt name.
const SNIPPETS_COMPARED: usize = 500;

/// What the next word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordKind {
    Open,
    Close,
    Import,
    Word,
}

/// The next word, not yet taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub kind: WordKind,
    pub span: Span,
}

/// A stretch of words.
#[derive(Clone)]
pub(super) struct Stretch {
    lexemes: Arc<[Lexeme]>,
    next: usize,
    end: usize,
    /// Holds a placeholder for an import's arguments.
    takes_arguments: bool,
}

/// A stretch being read: the Corefile, or an import.
struct OpenStretch {
    stretch: Stretch,
    start: usize,
    /// `None` in the Corefile itself.
    import: Option<Rc<Import>>,
}

/// An import being read, and the import within which it stands.
struct Import {
    origin: Origin,
    arguments: Rc<[String]>,
    depth: usize,
    within: Option<Rc<Import>>,
}

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Snippet(String),
    File(FileId),
}

struct Snippet {
    body: Stretch,
    name_span: Span,
}

pub(super) struct Reader<'a> {
    loader: &'a dyn Loader,
    pub diagnostics: Diagnostics,
    pub sources: Sources,
    frames: Vec<OpenStretch>,
    snippets: BTreeMap<String, Snippet>,
    files: HashMap<PathBuf, (FileId, Stretch)>,
    unset_variables: HashSet<String>,
    source_octets: usize,
    text_octets: usize,
    words: usize,
    imports: usize,
    /// A bound was exceeded: there are no more words.
    pub halted: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &Path, text: &str, loader: &'a dyn Loader) -> Self {
        let mut reader = Self {
            loader,
            diagnostics: Diagnostics::default(),
            sources: Sources::default(),
            frames: Vec::new(),
            snippets: BTreeMap::new(),
            files: HashMap::new(),
            unset_variables: HashSet::new(),
            source_octets: 0,
            text_octets: 0,
            words: 0,
            imports: 0,
            halted: false,
        };
        if let Some((_, stretch)) = reader.add_file(path, text) {
            reader.frames.push(OpenStretch { stretch, start: 0, import: None });
        }
        reader
    }

    /// The next word, wherever it stands.
    pub(super) fn peek(&mut self) -> Option<Ahead> {
        if self.diagnostics.is_full() && !self.halted {
            self.halted = true;
            self.diagnostics.error_without_span("reading stopped: there are too many errors");
        }
        if self.halted {
            return None;
        }
        while let Some(frame) = self.frames.last() {
            if let Some(lexeme) = frame.stretch.peek() {
                return Some(ahead(lexeme));
            }
            self.frames.pop();
        }
        None
    }

    /// The next word, if it stands on the line of the one just taken. An import ends the line.
    pub(super) fn peek_on_line(&self) -> Option<Ahead> {
        let frame = self.frames.last().filter(|_| !self.halted)?;
        let lexeme = frame.stretch.peek()?;
        (frame.stretch.next > frame.start && !lexeme.starts_line).then(|| ahead(lexeme))
    }

    /// The next word that is no `import`; imports on the way are followed.
    pub(super) fn peek_following_imports(&mut self) -> Option<Ahead> {
        loop {
            let ahead = self.peek()?;
            if ahead.kind != WordKind::Import {
                return Some(ahead);
            }
            self.follow_import();
        }
    }

    /// True if the next word can be no directive but may be a server block's key.
    pub(super) fn peek_looks_like_key(&self) -> bool {
        let lexeme = self.frames.last().and_then(|frame| frame.stretch.peek());
        lexeme.is_some_and(|lexeme| {
            !lexeme.quoted && (lexeme.text.contains(['.', ':', '/']) || lexeme.text.starts_with('('))
        })
    }

    /// True if a `{` stands further on in this line.
    pub(super) fn line_opens_block(&self) -> bool {
        let Some(frame) = self.frames.last() else { return false };
        let rest = frame.stretch.lexemes.get(frame.stretch.next..frame.stretch.end).unwrap_or_default();
        let line_rest = rest.iter().enumerate().take_while(|(index, lexeme)| *index == 0 || !lexeme.starts_line);
        line_rest.into_iter().any(|(_, lexeme)| ahead(lexeme).kind == WordKind::Open)
    }

    /// Passes over the word that was peeked.
    pub(super) fn skip(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        frame.stretch.next += 1;
        self.count_words(1);
    }

    /// Counts against the bound of words: those passed, and the zones that a CIDR stands for.
    pub(super) fn count_words(&mut self, count: usize) {
        self.words = self.words.saturating_add(count);
        if self.words > WORDS && !self.halted {
            self.halt(format!("the Corefile has more than {WORDS} words, those that imports repeat included"));
        }
    }

    /// Takes the word that was peeked, with variables and arguments replaced.
    pub(super) fn take(&mut self) -> Option<Token> {
        let frame = self.frames.last()?;
        let lexemes = Arc::clone(&frame.stretch.lexemes);
        let lexeme = lexemes.get(frame.stretch.next)?;
        let import = frame.import.clone();
        self.skip();
        let text = match self.expand(lexeme, import.as_deref()) {
            Ok(text) => text,
            Err(TooLong) => {
                self.diagnostics.error(
                    lexeme.span,
                    format!("the word has more than {WORD_OCTETS} octets once its variables are replaced"),
                );
                String::new()
            }
        };
        self.text_octets = self.text_octets.saturating_add(text.len());
        if self.text_octets > TEXT_OCTETS && !self.halted {
            self.halt(format!("the Corefile has more than {TEXT_OCTETS} octets, those that imports repeat included"));
        }
        Some(Token { text, span: lexeme.span })
    }

    /// Passes over the rest of the line, up to a brace.
    pub(super) fn skip_words_on_line(&mut self) {
        while self.peek_on_line().is_some_and(|ahead| matches!(ahead.kind, WordKind::Word | WordKind::Import)) {
            self.skip();
        }
    }

    /// Takes the words up to the brace that matches the one just taken, unread. `None` if there is no such brace before
    /// the file or snippet ends.
    pub(super) fn take_block(&mut self) -> Option<Stretch> {
        let frame = self.frames.last()?;
        let stretch = frame.stretch.clone();
        let mut depth = 0_usize;
        while let Some(lexeme) = self.frames.last().and_then(|frame| frame.stretch.peek()) {
            let kind = ahead(lexeme).kind;
            let index = self.frames.last().map_or(0, |frame| frame.stretch.next);
            self.skip();
            match kind {
                WordKind::Open => depth += 1,
                WordKind::Close if depth == 0 => {
                    return Some(Stretch::new(Arc::clone(&stretch.lexemes), stretch.next, index));
                }
                WordKind::Close => depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// Keeps a snippet's words for its imports.
    pub(super) fn define_snippet(&mut self, name: &str, name_span: Span, body: Stretch) {
        if let Some(first) = self.snippets.get(name) {
            let place = self.place(first.name_span);
            self.diagnostics
                .error(name_span, format!("the snippet {} is defined twice", quote(name)))
                .help(format!("it is already defined at {place}; give one of them another name"));
            return;
        }
        self.snippets.insert(name.to_owned(), Snippet { body, name_span });
    }

    fn halt(&mut self, message: String) {
        self.halted = true;
        self.diagnostics.error_without_span(message).help("nothing after that point was read");
    }

    fn place(&self, span: Span) -> String {
        let path = self
            .sources
            .files
            .get(span.file.0 as usize)
            .map(|(path, _)| path.display().to_string())
            .unwrap_or_default();
        format!("{path}:{}:{}", span.line, span.column)
    }

    fn expand(&mut self, lexeme: &Lexeme, import: Option<&Import>) -> Result<String, TooLong> {
        let mut text = lexeme.text.clone();
        if text.contains("{$") || text.contains("{%") {
            text = replace_variables(&text, WORD_OCTETS, |name| {
                self.loader.environment(name).unwrap_or_else(|| {
                    if self.unset_variables.insert(name.to_owned()) {
                        self.diagnostics
                            .warning(
                                lexeme.span,
                                format!(
                                    "the environment variable {} is not set: nothing is put in its place",
                                    quote(name)
                                ),
                            )
                            .help("set it in the container's environment");
                    }
                    String::new()
                })
            })?;
        }
        if let Some(import) = import
            && text.contains("{args")
        {
            text = replace_arguments(&text, &import.arguments, WORD_OCTETS, |number| {
                self.diagnostics
                    .error(lexeme.span, format!("the import gives no argument {number}"))
                    .help(format!("it gives {}, counted from 0: `import NAME ARGUMENT...`", import.arguments.len()));
            })?;
        }
        Ok(text)
    }

    /// Notes a file among the sources and splits it into words; `None` if it is too large.
    fn add_file(&mut self, path: &Path, text: &str) -> Option<(FileId, Stretch)> {
        self.source_octets = self.source_octets.saturating_add(text.len());
        if self.source_octets > SOURCE_OCTETS {
            self.halt(format!(
                "{}: the Corefile and what it imports have more than {SOURCE_OCTETS} octets",
                path.display()
            ));
            return None;
        }
        let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(text).into();
        let id = FileId(u32::try_from(self.sources.files.len()).ok()?);
        self.sources.files.push((path.to_owned(), Arc::clone(&text)));
        let Some(lexemes) = lex(id, &text, WORDS, &mut self.diagnostics) else {
            self.halt(format!("{} has more than {WORDS} words", path.display()));
            return None;
        };
        let end = lexemes.len();
        let stretch = Stretch::new(lexemes.into(), 0, end);
        self.files.insert(path.to_owned(), (id, stretch.clone()));
        Some((id, stretch))
    }

    /// `import NAME [ARGUMENT...]`: what it names is read next.
    fn follow_import(&mut self) {
        let within = self.frames.last().and_then(|frame| frame.import.clone());
        let Some(keyword) = self.take() else { return };
        let mut words = Vec::new();
        while self.peek_on_line().is_some_and(|ahead| matches!(ahead.kind, WordKind::Word | WordKind::Import)) {
            words.extend(self.take());
        }
        if let Some(ahead) = self.peek_on_line().filter(|ahead| ahead.kind == WordKind::Open) {
            self.diagnostics
                .error(ahead.span, "`import` takes no block")
                .help("values for a snippet are given as `import NAME ARGUMENT...`");
            self.skip();
            self.take_block();
            return;
        }
        let mut words = words.into_iter();
        let Some(name) = words.next().filter(|name| !name.text.is_empty()) else {
            self.diagnostics
                .error(keyword.span, "`import` names nothing")
                .help("write `import NAME` with a snippet, a file, or a pattern such as `conf.d/*.conf`");
            return;
        };
        let depth = within.as_ref().map_or(0, |import| import.depth) + 1;
        if depth > IMPORT_DEPTH {
            self.diagnostics.error(name.span, format!("imports are nested more than {IMPORT_DEPTH} deep"));
            return;
        }
        let arguments: Vec<Token> = words.collect();
        if let Some(argument) = arguments.first() {
            self.diagnostics
                .beyond_reference(argument.span, "CoreDNS's `import` takes no arguments for the snippet")
                .help("write a snippet for each set of values");
        }
        let stretches = match self.snippets.get(&name.text) {
            Some(snippet) => vec![(Origin::Snippet(name.text.clone()), snippet.body.clone())],
            None => self.read_files(&name),
        };
        if let Some(argument) = arguments.first()
            && !stretches.is_empty()
            && stretches.iter().all(|(_, stretch)| !stretch.takes_arguments)
        {
            self.diagnostics.error(argument.span, format!("{} takes no argument", quote(&name.text))).help(
                "write one `import` for each snippet or file; a snippet uses arguments as `{args[0]}`, `{args[1]}`",
            );
        }
        let arguments: Rc<[String]> = arguments.into_iter().map(|argument| argument.text).collect();
        // The frame pushed last is read first.
        for (origin, stretch) in stretches.into_iter().rev() {
            if self.is_cycle(&origin, within.as_deref(), &name) {
                continue;
            }
            self.imports += 1;
            if self.imports > IMPORTS {
                return self.halt(format!("more than {IMPORTS} imports were followed"));
            }
            let import = Import { origin, arguments: Rc::clone(&arguments), depth, within: within.clone() };
            self.frames.push(OpenStretch { start: stretch.next, stretch, import: Some(Rc::new(import)) });
        }
    }

    /// Says so if `origin` is being read already, by the chain of imports that leads to `name`.
    fn is_cycle(&mut self, origin: &Origin, within: Option<&Import>, name: &Token) -> bool {
        let mut chain = Vec::new();
        let mut next = within;
        while let Some(import) = next {
            chain.push(&import.origin);
            next = import.within.as_deref();
        }
        let main = Origin::File(FileId(0));
        chain.push(&main);
        let Some(position) = chain.iter().position(|ancestor| *ancestor == origin) else { return false };
        let steps: Vec<String> =
            chain.into_iter().take(position + 1).rev().chain([origin]).map(|origin| self.origin_name(origin)).collect();
        self.diagnostics
            .error(name.span, format!("{} imports itself", quote(&name.text)))
            .help(format!("take this import, or another of the cycle, away: {}", steps.join(" -> ")));
        true
    }

    fn origin_name(&self, origin: &Origin) -> String {
        match origin {
            Origin::Snippet(name) => format!("({name})"),
            Origin::File(id) => {
                self.sources.files.get(id.0 as usize).map(|(path, _)| path.display().to_string()).unwrap_or_default()
            }
        }
    }

    /// The files that an import names, relative to the folder of the file where it stands.
    fn read_files(&mut self, name: &Token) -> Vec<(Origin, Stretch)> {
        let pattern = name.text.as_str();
        let folder = self
            .sources
            .files
            .get(name.span.file.0 as usize)
            .and_then(|(path, _)| path.parent())
            .unwrap_or(Path::new(""))
            .to_owned();
        let has_class = pattern.contains('[') && pattern.contains(']');
        if has_class || pattern.matches('*').count() > 1 || pattern.matches('?').count() > 1 {
            // As in the reference, where such patterns were seen to hang for long.
            self.diagnostics
                .error(name.span, format!("the pattern {} is not simple enough", quote(pattern)))
                .help("a pattern may hold one `*` and one `?`, and no `[...]`");
            return Vec::new();
        }
        let is_pattern = pattern.contains(['*', '?']);
        let paths = if is_pattern {
            let folder = glob::Pattern::escape(&folder.to_string_lossy());
            let pattern = pattern.replace('[', "[[]");
            match self.loader.glob(&Path::new(&folder).join(&pattern)) {
                Ok(paths) => paths,
                Err(error) => {
                    self.diagnostics
                        .error(name.span, format!("cannot list files matching {}: {error}", quote(&name.text)));
                    return Vec::new();
                }
            }
        } else {
            vec![folder.join(pattern).components().filter(|part| *part != Component::CurDir).collect()]
        };
        if paths.len() > IMPORTS {
            self.diagnostics
                .error(name.span, format!("the pattern {} matches more than {IMPORTS} files", quote(pattern)));
            return Vec::new();
        }
        paths.iter().filter_map(|path| self.read_file(path, name, is_pattern)).collect()
    }

    fn read_file(&mut self, path: &Path, name: &Token, is_pattern: bool) -> Option<(Origin, Stretch)> {
        let (id, stretch) = match self.files.get(path) {
            Some((id, stretch)) => (*id, stretch.clone()),
            None => match self.loader.read(path) {
                Ok(text) => self.add_file(path, &text)?,
                Err(error) => {
                    self.refuse_file(path, name, is_pattern, &error);
                    return None;
                }
            },
        };
        Some((Origin::File(id), stretch))
    }

    fn refuse_file(&mut self, path: &Path, name: &Token, is_pattern: bool, error: &std::io::Error) {
        if is_pattern || error.kind() != std::io::ErrorKind::NotFound {
            self.diagnostics.error(name.span, format!("cannot import {}: {error}", quote(&path.to_string_lossy())));
            return;
        }
        let known: Vec<&str> = self.snippets.keys().take(SNIPPETS_COMPARED).map(String::as_str).collect();
        let help = if self.is_defined_later(&name.text) {
            format!("the snippet ({}) is defined further down: move it above this line", name.text)
        } else if let Some(near) = super::nearest(&name.text, known) {
            format!("did you mean the snippet {}?", quote(near))
        } else {
            format!("no snippet has this name, and there is no file {}", quote(&path.to_string_lossy()))
        };
        self.diagnostics.error(name.span, format!("no snippet or file to import: {}", quote(&name.text))).help(help);
    }

    fn is_defined_later(&self, name: &str) -> bool {
        self.frames
            .iter()
            .flat_map(|frame| frame.stretch.lexemes.get(frame.stretch.next..frame.stretch.end).unwrap_or_default())
            .any(|lexeme| {
                lexeme.starts_line
                    && lexeme.text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) == Some(name)
            })
    }
}

impl Stretch {
    fn new(lexemes: Arc<[Lexeme]>, next: usize, end: usize) -> Self {
        let words = lexemes.get(next..end).unwrap_or_default();
        let takes_arguments = words.iter().any(|lexeme| lexeme.text.contains("{args"));
        Self { lexemes, next, end, takes_arguments }
    }
    fn peek(&self) -> Option<&Lexeme> {
        if self.next < self.end { self.lexemes.get(self.next) } else { None }
    }
}

fn ahead(lexeme: &Lexeme) -> Ahead {
    let kind = match lexeme.text.as_str() {
        _ if lexeme.quoted => WordKind::Word,
        "{" => WordKind::Open,
        "}" => WordKind::Close,
        "import" => WordKind::Import,
        _ => WordKind::Word,
    };
    Ahead { kind, span: lexeme.span }
}
