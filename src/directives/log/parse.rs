//! `log [NAMES...] [FORMAT] { class CLASSES... }`

use super::class::ClassSet;
use super::{Log, LogRule};
use crate::chain::{BlockConfig, COMMON, Format, ParseContext, Part, placeholders};
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, nearest, value};
use crate::message::{LowerName, Name};
use std::any::Any;
use std::sync::Arc;

/// Reads one `log` of a server block. All of a block make one part, since the first whose name matches decides.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    let (names, format) = split_arguments(&directive.arguments, diagnostics);
    let format = Arc::new(format.map_or_else(|| compile_known(COMMON), |format| compile(format, diagnostics)));
    let classes = parse_classes(&directive.options, diagnostics);
    let scopes: Vec<LowerName> = match names {
        [] => vec![Name::root().to_lower()],
        names => names.iter().filter_map(|name| parse_scope(name, diagnostics)).collect(),
    };
    let rules = scopes.into_iter().map(|scope| LogRule { scope, classes, format: format.clone() });
    match block.parts.iter_mut().find_map(|part| <dyn Any>::downcast_mut::<Log>(&mut *part.configured)) {
        Some(log) => log.rules.extend(rules),
        None => {
            let configured = Box::new(Log { rules: rules.collect() });
            block.parts.push(Part { keyword: "log", span: directive.keyword.span, configured });
        }
    }
}

/// Names, and the format if there is one: the last of several arguments, if it holds a brace.
fn split_arguments<'a>(arguments: &'a [Token], diagnostics: &mut Diagnostics) -> (&'a [Token], Option<&'a Token>) {
    match arguments {
        [only] if only.text.contains('{') => {
            diagnostics
                .warning(only.span, format!("a single argument of log is a name, so `{}` matches no query", only.text))
                .help("a format needs a name before it: `log . FORMAT` logs all names");
            (arguments, None)
        }
        [names @ .., last] if !names.is_empty() && last.text.contains('{') => (names, Some(last)),
        names => (names, None),
    }
}

fn compile_known(text: &str) -> Format {
    Format::compile(text, |_| ())
}

fn compile(format: &Token, diagnostics: &mut Diagnostics) -> Format {
    Format::compile(&format.text, |word| {
        let message = format!("`{{{word}}}` is no placeholder and is logged as it stands");
        let warning = diagnostics.warning(format.span, message);
        match nearest(word, placeholders()) {
            Some(near) => warning.help(format!("did you mean `{{{near}}}`?")),
            None => warning.help(format!(
                "placeholders are {{common}} {{combined}} {}",
                placeholders().map(|word| format!("{{{word}}}")).collect::<Vec<_>>().join(" ")
            )),
        }
    })
}

fn parse_scope(name: &Token, diagnostics: &mut Diagnostics) -> Option<LowerName> {
    match Name::parse(&name.text) {
        Ok(scope) => Some(scope.to_lower()),
        Err(error) => {
            diagnostics
                .error(name.span, format!("`{}` is not a domain name: {error}", name.text))
                .help("write `log [NAMES...] [FORMAT]`, such as `log example.org`");
            None
        }
    }
}

fn parse_classes(options: &[OptionLine], diagnostics: &mut Diagnostics) -> ClassSet {
    let mut classes = ClassSet::NONE;
    for line in options {
        if line.name.text != "class" {
            value::unknown_option(line, "log", &["class"], diagnostics);
            continue;
        }
        if line.arguments.is_empty() {
            diagnostics
                .error(line.name.span, "class needs at least one class")
                .help("write `class denial error`, for example");
        }
        for word in &line.arguments {
            if !classes.add(&word.text) {
                let help = match nearest(&word.text, ClassSet::WORDS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("classes are {}", ClassSet::WORDS.join(", ")),
                };
                diagnostics.error(word.span, format!("`{}` is no class of responses", word.text)).help(help);
            }
        }
    }
    match classes {
        ClassSet::NONE => ClassSet::ALL,
        some => some,
    }
}
