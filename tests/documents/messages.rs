//! docs/messages.md quotes what the program says.

use super::support::tools::checkout;
use super::{files, root};
use regex::Regex;
use std::path::Path;

/// What is fixed in a message is at least so long, or not looked for.
const SHORTEST: usize = 6;

/// Each message of the page, by its line: the parts between `…`, which are the program's words.
fn quoted(page: &str) -> Vec<(usize, Vec<&str>)> {
    let is_long = |part: &&str| part.trim_matches(|c: char| !c.is_alphanumeric()).len() >= SHORTEST;
    let lines = page.lines().enumerate();
    let messages = lines.filter_map(|(index, line)| Some((index + 1, line.strip_prefix("| `")?.split_once("` |")?.0)));
    messages.map(|(line, message)| (line, message.split('…').map(str::trim).filter(is_long).collect())).collect()
}

/// All of `src/`, with string literals that go on in the next line put together.
fn source() -> String {
    let continued = Regex::new(r"\\\n\s*").expect("a valid pattern");
    let is_source = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let read = |path| std::fs::read_to_string(root().join(path)).expect("a source file can be read");
    let all: String = files(Path::new("src")).into_iter().filter(is_source).map(read).collect();
    continued.replace_all(&all, "").into_owned()
}

#[test]
fn messages_that_are_explained_are_those_of_the_source() {
    let page = std::fs::read_to_string(checkout("docs/messages.md")).expect("the page can be read");
    let (source, messages) = (source(), quoted(&page));
    assert!(messages.len() > 40, "{} messages were found", messages.len());
    let mut wrong = Vec::new();
    for (line, parts) in messages {
        assert!(!parts.is_empty(), "docs/messages.md:{line}: nothing in it can be looked for");
        let missing = parts.into_iter().filter(|part| !source.contains(*part));
        wrong.extend(missing.map(|part| format!("docs/messages.md:{line}: src/ does not say {part:?}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn messages_are_taken_apart_at_what_differs() {
    let page = "| message | x |\n| --- | --- |\n| `cannot read …: …; check it` | y |\n";
    assert_eq!(quoted(page), [(3, vec!["cannot read", "; check it"])]);
}
