//! Keeps the text of an imported file that is no Corefile out of diagnostics. Whoever wrote the `import`, and whoever
//! reads the log, may not be allowed to read that file (`import /run/secrets/token`), and diagnostics quote what they
//! are about.

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::tree::{Sources, Span};
use std::collections::BTreeMap;

/// Places that are told of one file.
const PLACES: usize = 10;

impl Diagnostics {
    /// Puts one diagnostic, which tells no more than places, for all those that stand in an imported file which is not
    /// recognised as part of a Corefile. `is_keyword`: whether a word is a directive, or one misspelt.
    pub fn conceal(&mut self, sources: &Sources, is_keyword: &dyn Fn(&str) -> bool) {
        let is_strange =
            |(file, (_, text)): (usize, &(_, std::sync::Arc<str>))| file > 0 && !reads_as_corefile(text, is_keyword);
        let strange: Vec<bool> = sources.files.iter().enumerate().map(is_strange).collect();
        let mut hidden: BTreeMap<usize, (Vec<Span>, Severity)> = BTreeMap::new();
        self.retain(|Diagnostic { span, severity, .. }| {
            let Some((span, file)) = span.map(|span| (span, span.file.0 as usize)) else { return true };
            let is_hidden = strange.get(file).copied().unwrap_or(true);
            if is_hidden {
                let (places, worst) = hidden.entry(file).or_insert_with(|| (Vec::new(), *severity));
                places.push(span);
                *worst = (*worst).max(*severity);
            }
            !is_hidden
        });
        for (places, worst) in hidden.into_values() {
            self.push(of_strange_file(places, worst));
        }
    }
}

fn of_strange_file(mut places: Vec<Span>, severity: Severity) -> Diagnostic {
    places.sort_by_key(|span| (span.line, span.column));
    places.dedup_by_key(|span| (span.line, span.column));
    let first = places.first().map(|span| Span { length: 0, ..*span });
    let mut told: Vec<String> =
        places.iter().take(PLACES).map(|span| format!("{}:{}", span.line, span.column)).collect();
    if places.len() > PLACES {
        told.push("…".to_owned());
    }
    Diagnostic {
        span: first,
        message: format!("this imported file does not begin as a Corefile does, and cannot be read as one at {}", told.join(", ")),
        help: Some(
            "nothing of it is shown, for it may be secret; is it the file that `import` is to name? Begin it with a directive, a snippet or a server block"
                .to_owned(),
        ),
        severity,
        is_secret: true,
        is_of_machine: false,
    }
}

/// True if a text begins as a file does that is meant to be imported: with a directive, or with a block whose first
/// word is one.
fn reads_as_corefile(text: &str, is_keyword: &dyn Fn(&str) -> bool) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(head) = lines.next() else { return true };
    let mut words = head.split_whitespace();
    let first = words.next().unwrap_or_default();
    if is_keyword(first) {
        return true;
    }
    let opens = first != "{" && words.any(|word| word == "{");
    let inside = words.next().or_else(|| lines.next()?.split_whitespace().next());
    opens && inside.is_some_and(is_keyword)
}

#[cfg(test)]
mod tests {
    use super::reads_as_corefile;

    fn is_keyword(word: &str) -> bool {
        ["forward", "errors", "import", "cache"].contains(&word)
    }

    #[test]
    fn what_begins_with_a_directive_or_a_block_of_directives_is_a_corefile() {
        for text in [
            "",
            "# nothing yet\n",
            "\n# upstreams\nforward . 192.0.2.1\n",
            "example.org:53 {\n  errors\n}\n",
            "(common) {\n\n  # first\n  cache\n}\n",
            "a.example b.example { forward . 192.0.2.1 }",
            "import other",
        ] {
            assert!(reads_as_corefile(text, &is_keyword), "{text}");
        }
    }

    #[test]
    fn keys_tokens_passwords_and_other_formats_are_none() {
        for text in [
            "root:$6$salt$hash:19000:0:99999:7:::\n",
            "-----BEGIN PRIVATE KEY-----\nMIIE\n",
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl",
            "hunter2\n",
            "hunter2\nforward\n",
            "{\n \"password\": \"x\"\n}\n",
            "{ forward }",
            "PASSWORD=x\n",
            "apiVersion: v1\n",
            "storage \"consul\" {\n  token = \"x\"\n}\n",
            "server {\n",
            "hunter2 {\n}\n",
        ] {
            assert!(!reads_as_corefile(text, &is_keyword), "{text}");
        }
    }
}
