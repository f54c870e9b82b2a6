//! Which names a rule is for. A name is matched in lower case, in presentation form (RFC 1035 section 5.1) with its
//! final dot.

use crate::go_regex::Regex;
use crate::message::{LowerName, NameText};
use std::cell::OnceCell;

/// A name that rules look at; its text is made once for all that need it.
pub(super) struct Subject<'a> {
    pub name: &'a LowerName,
    text: OnceCell<NameText>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(name: &'a LowerName) -> Self {
        Self { name, text: OnceCell::new() }
    }
    pub(super) fn text(&self) -> &str {
        self.text.get_or_init(|| self.name.text()).as_str()
    }
}

/// The five ways to match a name.
#[derive(Debug)]
pub(super) enum NameMatch {
    /// This name. `None`: what is written is no name, so none is it.
    Exact(Option<Box<LowerName>>),
    /// It begins with this text, which ends in a dot.
    Prefix(String),
    /// It is below this name.
    Below(Box<LowerName>),
    /// It ends in this text, which need not begin where a label does.
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

impl NameMatch {
    /// `text` is in lower case and ends in a dot.
    pub(super) fn exact(text: &str) -> Self {
        Self::Exact(LowerName::parse(text).ok().map(Box::new))
    }

    /// `text` is in lower case and ends in a dot.
    pub(super) fn suffix(text: &str) -> Self {
        match text.strip_prefix('.').and_then(|name| LowerName::parse(name).ok()) {
            Some(name) => Self::Below(Box::new(name)),
            None => Self::Suffix(text.to_owned()),
        }
    }

    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Exact(name) => name.as_ref().is_some_and(|name| name.as_wire() == subject.name.as_wire()),
            Self::Below(name) => is_below(subject.name, name),
            Self::Prefix(text) => subject.text().starts_with(text),
            Self::Suffix(text) => subject.text().ends_with(text),
            Self::Substring(text) => subject.text().contains(text),
            Self::Regex(regex) => regex.is_match(subject.text()),
        }
    }
}

/// True if `name` lies below `zone` and is not it.
fn is_below(name: &LowerName, zone: &LowerName) -> bool {
    name.as_wire().len() > zone.as_wire().len() && name.is_within(zone.as_wire())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_regex::compile;

    fn matches(matcher: &NameMatch, name: &str) -> bool {
        matcher.matches(&Subject::new(&LowerName::parse(name).unwrap()))
    }

    #[test]
    fn a_suffix_that_begins_with_a_dot_is_whole_labels_and_any_other_is_text() {
        let below = NameMatch::suffix(".corp.");
        assert!(matches(&below, "a.corp.") && matches(&below, "a.b.corp.") && !matches(&below, "corp."));
        assert!(!matches(&below, "acorp.") && !matches(&below, r"a\.corp."));
        let text = NameMatch::suffix("corp.");
        assert!(
            matches(&text, "a.corp.")
                && matches(&text, "corp.")
                && matches(&text, "mycorp.")
                && !matches(&text, "corp.x.")
        );
    }

    #[test]
    fn each_way_matches_what_it_says() {
        assert!(
            matches(&NameMatch::exact("a.example."), "a.example.")
                && !matches(&NameMatch::exact("a.example."), "b.a.example.")
        );
        assert!(!matches(&NameMatch::exact("a..example."), "a.example."));
        let prefix = NameMatch::Prefix("old.".to_owned());
        assert!(
            matches(&prefix, "old.example.")
                && !matches(&prefix, "older.example.")
                && !matches(&prefix, "x.old.example.")
        );
        let substring = NameMatch::Substring("old.".to_owned());
        assert!(matches(&substring, "threshold.example.") && !matches(&substring, "older.example."));
        let regex = NameMatch::Regex(compile(r"^[a-z]+\.example\.$").unwrap());
        assert!(matches(&regex, "a.example.") && !matches(&regex, "a1.example."));
    }
}
