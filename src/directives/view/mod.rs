//! The `view` directive has a server block take some of its zones' queries only, so that several blocks may serve one
//! zone; see README.md beside this file.

mod environment;
#[cfg(test)]
mod tests;

use crate::chain::{BlockConfig, BlockMetadata, ParseContext, Peer, QueryFilter, View};
use crate::corefile::{Diagnostics, Directive, OptionLine, Span, Token, value};
use crate::expression::{Expression, ExpressionError, Type, Value};
use crate::go_regex::Patterns;
use crate::message::Query;
use environment::{Asked, FUNCTIONS, depends_on_client};
use std::sync::Arc;

const KEYWORD: &str = "view";
const USAGE: &str = "view NAME { expr EXPRESSION }";

/// Reads the one `view` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let (patterns, diagnostics) = (context.patterns, &mut *context.diagnostics);
    let name = value::exactly(&directive.keyword, &directive.arguments, USAGE, diagnostics);
    let mut expressions = Vec::new();
    let mut rules = String::new();
    for line in &directive.options {
        match line.name.text.as_str() {
            "expr" => {
                expressions.extend(parse_expression(line, patterns, diagnostics));
                rules.push_str(&format!("{line};"));
            }
            _ => value::unknown_option(line, KEYWORD, &["expr"], diagnostics),
        }
    }
    let Some([name]) = name else { return };
    let name: Arc<str> = name.text.as_str().into();
    let metadata = BlockMetadata::new(block.metadata.as_deref().unwrap_or_default(), Some(name.clone()));
    let filter = Arc::new(Expressions::new(expressions, metadata));
    block.view = Some(View { name, rules, filter });
}

fn parse_expression(line: &OptionLine, patterns: &Patterns, diagnostics: &mut Diagnostics) -> Option<Expression> {
    if let Some(inner) = line.block.first() {
        diagnostics
            .error(inner.name.span, "`expr` takes no block")
            .help("write the expression on one line, and its braces next to something else, as in `{# == 'a'}`");
        return None;
    }
    if line.arguments.is_empty() {
        diagnostics.error(line.name.span, "`expr` has no expression").help(format!("write `{USAGE}`"));
        return None;
    }
    let words: Vec<&str> = line.arguments.iter().map(|word| word.text.as_str()).collect();
    match Expression::parse(&words.join(" "), FUNCTIONS, patterns) {
        Ok(expression) if matches!(expression.kind(), Type::Bool | Type::Any) => Some(expression),
        Ok(expression) => {
            let message =
                format!("the expression is {}, so no query would be taken: it must be bool", expression.kind());
            let span = line.arguments.first().map_or(line.name.span, |word| word.span);
            diagnostics.error(span, message).help("compare it with something, such as `type() == 'AAAA'`");
            None
        }
        Err(ExpressionError { at, problem }) => {
            diagnostics
                .error(
                    place(&line.arguments, at).unwrap_or(line.name.span),
                    format!("the expression is wrong: {problem}"),
                )
                .help("src/directives/view/README.md has the language; texts stand in single quotes");
            None
        }
    }
}

/// Where an octet of the expression stands in the Corefile: in the word that has it, to the character if the word is
/// written there as it is read.
fn place(words: &[Token], at: usize) -> Option<Span> {
    let mut start = 0;
    for word in words {
        let end = start + word.text.len();
        if at < end {
            let before = word.text.get(..at.saturating_sub(start)).map_or(0, |before| before.chars().count());
            let is_as_read = word.text.chars().count() == usize::try_from(word.span.length).unwrap_or_default();
            let before = u32::try_from(before).unwrap_or_default();
            return Some(match is_as_read {
                true => Span { column: word.span.column + before, length: word.span.length - before, ..word.span },
                false => word.span,
            });
        }
        start = end + 1;
    }
    words.last().map(|word| word.span)
}

/// Takes the queries for which all of them hold.
struct Expressions {
    expressions: Vec<Expression>,
    metadata: BlockMetadata,
    depends_on_client: bool,
}

impl Expressions {
    fn new(expressions: Vec<Expression>, metadata: BlockMetadata) -> Self {
        let depends = |expression: &Expression| {
            (0..FUNCTIONS.len()).any(|function| expression.calls(function) && depends_on_client(function))
        };
        let depends_on_client = expressions.iter().any(depends);
        Self { expressions, metadata, depends_on_client }
    }
}

impl QueryFilter for Expressions {
    /// One that has no value does not hold, as in the reference.
    fn takes(&self, query: &Query, wire: &[u8], peer: &Peer) -> bool {
        let asked = Asked { query, wire, peer, metadata: &self.metadata };
        self.expressions.iter().all(|expression| expression.evaluate(&asked) == Ok(Value::Bool(true)))
    }

    fn depends_on_client(&self) -> bool {
        self.depends_on_client
    }
}
