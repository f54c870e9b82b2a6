//! Parses words into server blocks and lines (facts: coredns/caddy caddyfile/parse.go). After an error reading goes on,
//! so that all are told.

use super::diagnostic::{Diagnostics, quote};
use super::reader::{Ahead, Reader, WordKind};
use super::tree::{BlockKey, Corefile, Directive, OptionLine, ServerBlock, Span, Token};
use super::zone::read_zones;

/// Blocks within blocks. The grammar has no bound; the stack has.
pub(super) const BLOCK_DEPTH: usize = 32;

/// Reads everything that `reader` gives.
pub(super) fn parse(reader: Reader<'_>) -> (Corefile, Diagnostics) {
    let mut parser = Parser { reader, suspect: None };
    let blocks = parser.server_blocks();
    (Corefile { blocks, sources: parser.reader.sources }, parser.reader.diagnostics)
}

struct Parser<'a> {
    reader: Reader<'a>,
    /// A closing brace whose indentation does not fit the line it closes, and that line: likely one is missing before
    /// it.
    suspect: Option<(Span, Token)>,
}

/// A keyword, its arguments and its block.
struct ParsedLine {
    name: Token,
    arguments: Vec<Token>,
    block: Vec<OptionLine>,
}

impl Parser<'_> {
    fn server_blocks(&mut self) -> Vec<ServerBlock> {
        let mut blocks = Vec::new();
        while let Some(ahead) = self.reader.peek_following_imports() {
            match ahead.kind {
                WordKind::Close => self.stray_closes(),
                WordKind::Open => {
                    self.without_key(ahead.span);
                    self.reader.skip();
                    let directives = self.directives(Some(ahead.span), false);
                    blocks.push(ServerBlock { keys: Vec::new(), directives, is_ignored: true });
                }
                WordKind::Word | WordKind::Import => blocks.extend(self.server_block()),
            }
        }
        blocks
    }

    fn server_block(&mut self) -> Option<ServerBlock> {
        let words = self.key_words();
        let open = self.reader.peek().filter(|ahead| ahead.kind == WordKind::Open);
        if open.is_some() {
            self.reader.skip();
        }
        if let [only] = words.as_slice()
            && let Some(name) = only.text.strip_prefix('(').and_then(|text| text.strip_suffix(')'))
        {
            self.snippet(name, only.span, open);
            return None;
        }
        let is_ignored = words.iter().all(|word| word.text.is_empty());
        if let Some(first) = words.first().filter(|_| is_ignored) {
            self.without_key(first.span);
        }
        let keys = self.keys(&words);
        let is_glued = words.last().is_some_and(|word| word.text.ends_with('{'));
        let directives = self.directives(open.map(|ahead| ahead.span), is_glued);
        Some(ServerBlock { keys, directives, is_ignored })
    }

    /// The words before a block's brace: on one line, and on the next after a comma.
    fn key_words(&mut self) -> Vec<Token> {
        let mut words: Vec<Token> = Vec::new();
        let mut comma: Option<Span> = None;
        loop {
            let ahead = if words.is_empty() || comma.is_some() {
                self.reader.peek_following_imports()
            } else {
                self.reader.peek_on_line()
            };
            match ahead.map(|ahead| ahead.kind) {
                Some(WordKind::Word | WordKind::Import) => {
                    let Some(word) = self.reader.take() else { return words };
                    comma = word.text.ends_with(',').then_some(word.span);
                    words.push(word);
                }
                _ => {
                    if let Some(span) = comma.filter(|_| !self.reader.halted) {
                        self.reader
                            .diagnostics
                            .error(span, "no key follows this comma")
                            .help("take the comma away, or write another zone after it");
                    }
                    return words;
                }
            }
        }
    }

    fn keys(&mut self, words: &[Token]) -> Vec<BlockKey> {
        let mut keys = Vec::new();
        // An empty word is no key, in the reference neither.
        for word in words.iter().filter(|word| !word.text.is_empty()) {
            for (text, span) in split_at_commas(word) {
                if self.reader.halted || self.reader.diagnostics.is_full() {
                    return keys;
                }
                if let Some(read) = read_zones(text, span, &mut self.reader.diagnostics) {
                    self.reader.count_words(read.zones.len());
                    keys.extend(read.zones.into_iter().map(|zone| BlockKey {
                        scheme: read.scheme.clone(),
                        zone,
                        port: read.port,
                        is_mistaken: read.is_mistaken,
                        span,
                    }));
                }
            }
        }
        keys
    }

    fn snippet(&mut self, name: &str, span: Span, open: Option<Ahead>) {
        let Some(open) = open else {
            self.reader
                .diagnostics
                .error(span, format!("the snippet ({name}) has no block"))
                .help(format!("write `({name}) {{`, its lines, and `}}`"));
            return;
        };
        let body = self.reader.take_block();
        match body {
            _ if name.is_empty() => {
                self.reader
                    .diagnostics
                    .error(span, "a snippet without a name")
                    .help("write its name between the parentheses: `(name) {`");
            }
            Some(body) => self.reader.define_snippet(name, span, body),
            None => self.unclosed(open.span, None),
        }
    }

    /// The directives of a server block, through its closing brace. `open`: the brace that opened it, if it has braces.
    /// `is_glued`: there is one, read as part of a key.
    fn directives(&mut self, open: Option<Span>, is_glued: bool) -> Vec<Directive> {
        let mut directives = Vec::new();
        loop {
            let Some(ahead) = self.reader.peek_following_imports() else {
                if let Some(open) = open {
                    self.unclosed(open, None);
                }
                return directives;
            };
            match ahead.kind {
                WordKind::Close => {
                    self.reader.skip();
                    if open.is_none() && !is_glued {
                        // Not an error, since the reference ends the block here without a word.
                        self.reader
                            .diagnostics
                            .warning(ahead.span, "this brace closes a block that none opened")
                            .help("put `{` after the block's key, or take this brace away");
                    }
                    self.suspect = None;
                    return directives;
                }
                WordKind::Open => self.unexpected_block(ahead.span),
                WordKind::Word | WordKind::Import => {
                    let is_line_start = self.reader.peek_on_line().is_none();
                    if is_line_start && self.reader.peek_looks_like_key() && self.reader.line_opens_block() {
                        self.nested_server_block(ahead.span, open);
                        return directives;
                    }
                    if let Some(ParsedLine { name, arguments, block }) = self.line(1) {
                        directives.push(Directive { keyword: name, arguments, options: block });
                    }
                }
            }
        }
    }

    /// A line and its block. `depth` counts the blocks around it.
    fn line(&mut self, depth: usize) -> Option<ParsedLine> {
        let name = self.reader.take()?;
        let mut line = ParsedLine { name, arguments: Vec::new(), block: Vec::new() };
        while let Some(ahead) = self.reader.peek_on_line() {
            match ahead.kind {
                WordKind::Word | WordKind::Import => line.arguments.extend(self.reader.take()),
                WordKind::Close => return Some(line),
                WordKind::Open => {
                    self.reader.skip();
                    line.block = self.options(ahead.span, &line.name, depth + 1);
                    self.nothing_after_block();
                    return Some(line);
                }
            }
        }
        if let Some(ahead) = self.reader.peek().filter(|ahead| ahead.kind == WordKind::Open) {
            // What stands in another file is not quoted here ([`Diagnostics::conceal`]).
            let opener = match ahead.span.file == line.name.span.file {
                true => quote(&line.name.text),
                false => "an imported line".to_owned(),
            };
            self.reader
                .diagnostics
                .error(ahead.span, format!("the brace that opens the block of {opener} stands on a line of its own"))
                .help("put it at the end of the line before");
            self.reader.skip();
            line.block = self.options(ahead.span, &line.name, depth + 1);
            self.nothing_after_block();
        }
        Some(line)
    }

    /// The lines of a directive's block, through its closing brace.
    fn options(&mut self, open: Span, opener: &Token, depth: usize) -> Vec<OptionLine> {
        let mut options = Vec::new();
        if depth > BLOCK_DEPTH {
            self.reader.diagnostics.error(open, format!("blocks are nested more than {BLOCK_DEPTH} deep"));
            if self.reader.take_block().is_none() {
                self.unclosed(open, None);
            }
            return options;
        }
        loop {
            let Some(ahead) = self.reader.peek_following_imports() else {
                self.unclosed(open, None);
                return options;
            };
            match ahead.kind {
                WordKind::Close => {
                    self.reader.skip();
                    let (close, start) = (ahead.span, opener.span);
                    if self.suspect.is_none()
                        && close.file == start.file
                        && close.line > start.line
                        && close.column < start.column
                    {
                        self.suspect = Some((close, opener.clone()));
                    }
                    return options;
                }
                WordKind::Open => self.unexpected_block(ahead.span),
                WordKind::Word | WordKind::Import => {
                    if let Some(ParsedLine { name, arguments, block }) = self.line(depth) {
                        options.push(OptionLine { name, arguments, block });
                    }
                }
            }
        }
    }

    /// A directive's closing brace ends its line.
    fn nothing_after_block(&mut self) {
        let Some(ahead) = self.reader.peek_on_line() else { return };
        match ahead.kind {
            WordKind::Close => {}
            WordKind::Open => self.unexpected_block(ahead.span),
            WordKind::Word | WordKind::Import => {
                self.reader
                    .diagnostics
                    .error(ahead.span, "something follows the brace that closes a block")
                    .help("begin a new line after the brace");
                self.reader.skip_words_on_line();
            }
        }
    }

    fn unexpected_block(&mut self, span: Span) {
        self.reader
            .diagnostics
            .error(span, "a block without a name before it")
            .help("write the directive or option on the line of its brace");
        self.reader.skip();
        if self.reader.take_block().is_none() {
            self.unclosed(span, None);
        }
    }

    /// Closing braces between server blocks. The reference reads them as the key of a block, and refuses what follows;
    /// at the end nothing does.
    fn stray_closes(&mut self) {
        const MESSAGE: &str = "this brace closes nothing";
        let mut braces = Vec::new();
        let mut next = self.reader.peek_following_imports();
        while let Some(ahead) = next.filter(|ahead| ahead.kind == WordKind::Close) {
            braces.push(ahead.span);
            self.reader.skip();
            next = self.reader.peek_following_imports();
        }
        for span in braces {
            if self.reader.diagnostics.is_full() {
                return;
            }
            match next {
                Some(_) => self
                    .reader
                    .diagnostics
                    .error(span, MESSAGE)
                    .help("take it away, or look for a `{` that is missing above"),
                None => self.reader.diagnostics.warning(span, format!("{MESSAGE} and is ignored")).help("take it away"),
            }
        }
    }

    fn without_key(&mut self, span: Span) {
        self.reader
            .diagnostics
            .warning(span, "a server block without a key serves nothing and is ignored")
            .help("write the zone and port before the brace: `.:53 {`");
    }

    /// The head of a server block where a directive is expected: most often the brace that closes the one before is
    /// missing.
    fn nested_server_block(&mut self, head: Span, open: Option<Span>) {
        match open {
            Some(open) => self.unclosed(open, Some(head)),
            None => self
                .reader
                .diagnostics
                .error(head, "a server block cannot follow one without braces")
                .help("put the directives above into braces; keys on several lines are joined by commas"),
        }
    }

    fn unclosed(&mut self, open: Span, next_block: Option<Span>) {
        if self.reader.halted {
            return;
        }
        let help = match (next_block, &self.suspect) {
            (_, Some((close, opener))) if close.file == open.file => {
                format!(
                    "put a `}}` where the block ends; the one on line {} closes {} of line {}, though it is indented less",
                    close.line,
                    quote(&opener.text),
                    opener.span.line
                )
            }
            (Some(head), _) => format!("put a `}}` before line {}, where another server block begins", head.line),
            (None, _) => "put a `}` where the block ends".to_owned(),
        };
        self.reader.diagnostics.error(open, "this block is never closed").help(help);
    }
}

/// The keys of `a.example,b.example,`, each with its place.
fn split_at_commas(word: &Token) -> Vec<(&str, Span)> {
    // The text and its place differ where quotes, escapes or variables were resolved; the whole word is then pointed
    // at.
    let is_literal = word.text.chars().count() == word.span.length as usize;
    let mut parts = Vec::new();
    let mut column = word.span.column;
    for part in word.text.split(',') {
        let length = u32::try_from(part.chars().count()).unwrap_or(u32::MAX);
        let span = if is_literal { Span { column, length, ..word.span } } else { word.span };
        column = column.saturating_add(length).saturating_add(1);
        if !part.is_empty() || word.text.is_empty() {
            parts.push((part, span));
        }
    }
    parts
}
