//! Expands what stands for something else in a word: environment variables, and arguments of an `import`.

/// The text grew over the limit while values were put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Replaces `{%NAME%}`, then `{$NAME}`, by what `value` gives for the name. Values are not looked into again, so a
/// value cannot make the text grow without end.
pub(super) fn replace_variables(
    text: &str,
    limit: usize,
    mut value: impl FnMut(&str) -> String,
) -> Result<String, TooLong> {
    let text = replace(text, "{%", "%}", limit, &mut value)?;
    replace(&text, "{$", "}", limit, &mut value)
}

fn replace(
    text: &str,
    open: &str,
    close: &str,
    limit: usize,
    value: &mut dyn FnMut(&str) -> String,
) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after_open)) = rest.split_once(open) {
        let Some((name, after)) = after_open.split_once(close) else { break };
        out.push_str(before);
        if name.is_empty() {
            out.push_str(open);
            rest = after_open;
        } else {
            out.push_str(&value(name));
            rest = after;
        }
        if out.len() > limit {
            return Err(TooLong);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Replaces `{args[0]}` and `{args.0}` by the import's arguments, as Caddy does. `missing` is told the numbers that
/// have none.
pub(super) fn replace_arguments(
    text: &str,
    arguments: &[String],
    limit: usize,
    mut missing: impl FnMut(&str),
) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after_open)) = rest.split_once("{args") {
        out.push_str(before);
        match argument_number(after_open) {
            Some((number, after)) => {
                match number.parse::<usize>().ok().and_then(|number| arguments.get(number)) {
                    Some(argument) => out.push_str(argument),
                    None => missing(number),
                }
                rest = after;
            }
            None => {
                out.push_str("{args");
                rest = after_open;
            }
        }
        if out.len() > limit {
            return Err(TooLong);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The digits of `[0]}…` or `.0}…`, and what follows.
fn argument_number(text: &str) -> Option<(&str, &str)> {
    let (number, after) = match text.strip_prefix('[') {
        Some(text) => text.split_once("]}")?,
        None => text.strip_prefix('.')?.split_once('}')?,
    };
    (!number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit())).then_some((number, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str) -> Result<String, TooLong> {
        replace_variables(text, 1000, |name| match name {
            "A" => "alpha".into(),
            "NESTED" => "{$A}".into(),
            "LONG" => "x".repeat(600),
            _ => String::new(),
        })
    }

    #[test]
    fn both_spellings_of_a_variable_are_replaced_anywhere_in_a_word() {
        assert_eq!(variables("<{$A}.{%A%}>").unwrap(), "<alpha.alpha>");
    }

    #[test]
    fn an_unset_variable_becomes_nothing() {
        assert_eq!(variables("a{$NONE}b").unwrap(), "ab");
    }

    #[test]
    fn what_is_no_whole_reference_stays_as_it_is() {
        for text in ["{$}", "{$A", "{%A}", "{A}", "$A", "{%%}"] {
            assert_eq!(variables(text).unwrap(), text);
        }
        assert_eq!(variables("{$}{$A}").unwrap(), "{$}alpha");
    }

    #[test]
    fn a_value_is_not_looked_into_again() {
        assert_eq!(variables("{$NESTED}").unwrap(), "{$A}");
    }

    #[test]
    fn values_cannot_make_a_word_longer_than_the_limit() {
        assert_eq!(variables("{$LONG}{$LONG}"), Err(TooLong));
    }

    #[test]
    fn arguments_are_replaced_in_both_spellings_and_missing_ones_are_told() {
        let arguments = ["x".to_owned(), "y".to_owned()];
        let mut missing = Vec::new();
        let text = replace_arguments("{args[0]}-{args.1}-{args[7]}-{args}-{args[a]}", &arguments, 100, |number| {
            missing.push(number.to_owned());
        });
        assert_eq!(text.unwrap(), "x-y--{args}-{args[a]}");
        assert_eq!(missing, ["7"]);
    }
}
