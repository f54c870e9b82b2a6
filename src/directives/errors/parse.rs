//! `errors { stacktrace; consolidate DURATION REGEXP [LEVEL] [show_first] }`

use super::Errors;
use super::consolidate::Pattern;
use crate::chain::{BlockConfig, Level, ParseContext, Part};
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, nearest, value};
use crate::go_regex::{Patterns, Regex};
use std::time::Duration;

/// The longest duration that Go, and so the reference, knows.
const PERIOD_LIMIT: Duration = Duration::from_nanos(i64::MAX as u64);

const USAGE: &str =
    "write `consolidate DURATION REGEXP [LEVEL] [show_first]`, such as `consolidate 5m \".* i/o timeout$\" warning`";
const LEVELS: [(&str, Level); 4] =
    [("debug", Level::Debug), ("info", Level::Info), ("warning", Level::Warning), ("error", Level::Error)];
const SHOW_FIRST: &str = "show_first";

/// Reads one `errors` of a server block.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    match directive.arguments.as_slice() {
        [] => {}
        [output] if output.text == "stdout" => {}
        [other, ..] => {
            diagnostics
                .error(other.span, format!("errors writes to standard output only, not to `{}`", other.text))
                .help("write `errors`");
        }
    }
    let mut patterns = Vec::new();
    for line in &directive.options {
        match line.name.text.as_str() {
            "stacktrace" => {
                block.stacktrace |=
                    value::exactly::<0>(&line.name, &line.arguments, "stacktrace", diagnostics).is_some();
            }
            "consolidate" => patterns.extend(parse_consolidate(line, context.patterns, diagnostics)),
            _ => value::unknown_option(line, "errors", &["consolidate", "stacktrace"], diagnostics),
        }
    }
    block.parts.push(Part {
        keyword: "errors",
        span: directive.keyword.span,
        configured: Box::new(Errors { patterns }),
    });
}

fn parse_consolidate(line: &OptionLine, patterns: &Patterns, diagnostics: &mut Diagnostics) -> Option<Pattern> {
    let [period, regex, optional @ ..] = line.arguments.as_slice() else {
        diagnostics.error(line.name.span, "consolidate needs a duration and a regular expression").help(USAGE);
        return None;
    };
    let period = value::duration_or_zero(period, "the time to consolidate over", PERIOD_LIMIT, diagnostics);
    let regex = parse_regex(regex, patterns, diagnostics);
    let (level, shows_first) = parse_optional(optional, diagnostics)?;
    Some(Pattern { period: period?, regex: regex?, level, shows_first })
}

fn parse_regex(token: &Token, patterns: &Patterns, diagnostics: &mut Diagnostics) -> Option<Regex> {
    match patterns.compile(&token.text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            diagnostics
                .error(token.span, format!("this is no regular expression, {error}"))
                .help("write it as for RE2, and put a backslash before `. ( [ *` that stand for themselves");
            None
        }
    }
}

/// The level, then `show_first`; each may be missing.
fn parse_optional(arguments: &[Token], diagnostics: &mut Diagnostics) -> Option<(Level, bool)> {
    let (mut level, mut shows_first) = (None, false);
    for argument in arguments {
        let named = LEVELS.iter().find(|(word, _)| *word == argument.text).map(|(_, level)| *level);
        let wrong = match named {
            Some(_) if level.is_some() => "consolidate takes one level".to_owned(),
            Some(_) if shows_first => "the level stands before show_first".to_owned(),
            Some(named) => {
                level = Some(named);
                continue;
            }
            None if argument.text == SHOW_FIRST => {
                shows_first = true;
                continue;
            }
            None => format!("`{}` is neither a level (debug, info, warning, error) nor show_first", argument.text),
        };
        let near = match named {
            Some(_) => None,
            None => nearest(&argument.text, LEVELS.iter().map(|(word, _)| *word).chain([SHOW_FIRST])),
        };
        diagnostics
            .error(argument.span, wrong)
            .help(near.map_or_else(|| USAGE.to_owned(), |near| format!("did you mean `{near}`?")));
        return None;
    }
    Some((level.unwrap_or(Level::Error), shows_first))
}
