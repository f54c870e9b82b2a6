//! `name`: the question's name is rewritten, and names of the answer are written back.

use super::expansion::{Expansion, name_of};
use super::name_match::{NameMatch, Subject};
use crate::go_regex::Regex;
use crate::message::LowerName;

/// What a `name` rule does.
#[derive(Debug)]
pub(super) struct NameRule {
    pub from: NameMatch,
    pub to: Replacement,
    /// `answer auto`: the rewritten name, and names below it, become the name before again. Always so with `exact`,
    /// never with `suffix`, which has [`AnswerChange::Suffix`] for it.
    pub auto: bool,
    /// What else is done to the answer.
    pub answers: Vec<AnswerRule>,
    /// Owners in the answer are changed by the rule's own reverse alone, so that the name that it has made becomes the
    /// one before it again (`suffix … answer auto`).
    pub restores_owner: bool,
}

/// What a matching name becomes.
#[derive(Debug)]
pub(super) enum Replacement {
    /// With `exact`. The text if it is no name.
    Whole(Result<Box<LowerName>, String>),
    /// With `prefix`, `suffix` and `substring`: in the place of what was matched.
    Text(String),
    /// With `suffix`, in the place of the name that is matched.
    Above(Box<LowerName>),
    /// With `regex`.
    Expansion(Expansion),
}

impl NameRule {
    /// The name at the end of those that it is for, and the one that takes its place, of a rule that is for whole
    /// labels.
    #[inline]
    pub(super) fn suffixes(&self) -> Option<(&LowerName, &LowerName)> {
        match (&self.from, &self.to) {
            (NameMatch::Below(zone), Replacement::Above(name)) => Some((zone, name)),
            _ => None,
        }
    }

    /// What the name becomes; `None` if the rule is not for it, an error with the text that is no name.
    pub(super) fn apply(&self, subject: &Subject<'_>) -> Option<Result<LowerName, String>> {
        match (&self.from, &self.to) {
            (NameMatch::Regex(regex), Replacement::Expansion(expansion)) => expansion.apply(regex, subject.text()),
            (NameMatch::Below(zone), Replacement::Above(name)) => {
                match subject.name.replace_suffix(zone.as_wire(), name) {
                    Some(_) if subject.name.as_wire().len() <= zone.as_wire().len() => None,
                    Some(renamed) => Some(Ok(renamed)),
                    // It is not for it, or the name would be too long.
                    None => self.from.matches(subject).then(|| Err(subject.text().to_owned())),
                }
            }
            (from, _) if !from.matches(subject) => None,
            (_, Replacement::Whole(name)) => Some(name.as_deref().cloned().map_err(Clone::clone)),
            (from, Replacement::Text(text)) => Some(name_of(&replace(from, subject.text(), text))),
            (_, Replacement::Above(_) | Replacement::Expansion(_)) => None,
        }
    }
}

/// `text`, which matches, with `by` in the place of what was matched.
fn replace(from: &NameMatch, text: &str, by: &str) -> String {
    match from {
        NameMatch::Prefix(prefix) => [by, text.strip_prefix(prefix.as_str()).unwrap_or(text)].concat(),
        NameMatch::Suffix(suffix) => [text.strip_suffix(suffix.as_str()).unwrap_or(text), by].concat(),
        NameMatch::Below(zone) => {
            let suffix = zone.text();
            [text.strip_suffix(suffix.as_str()).and_then(|text| text.strip_suffix('.')).unwrap_or(text), by].concat()
        }
        NameMatch::Substring(part) => text.replace(part.as_str(), by),
        NameMatch::Exact(_) | NameMatch::Regex(_) => by.to_owned(),
    }
}

/// Which names of an answer a rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamePosition {
    /// Owners of records.
    Owner,
    /// Names in their data.
    Value,
}

/// What is done to names of an answer.
#[derive(Debug)]
pub(super) struct AnswerRule {
    pub place: NamePosition,
    pub change: AnswerChange,
}

/// How a name of an answer is changed.
#[derive(Debug)]
pub(super) enum AnswerChange {
    /// `suffix … answer auto`: a suffix rule the other way round.
    Suffix(NameMatch, Replacement),
    /// `answer name FROM TO`, `answer value FROM TO`.
    Regex(Regex, Expansion),
}

impl AnswerChange {
    /// What the name becomes. `None` if it is not matched, or would be no name: then it stays.
    pub(super) fn apply(&self, subject: &Subject<'_>) -> Option<LowerName> {
        match self {
            Self::Regex(regex, expansion) => expansion.apply(regex, subject.text())?.ok(),
            Self::Suffix(NameMatch::Below(zone), Replacement::Above(name)) => {
                let is_below = subject.name.as_wire().len() > zone.as_wire().len();
                is_below.then(|| subject.name.replace_suffix(zone.as_wire(), name))?
            }
            Self::Suffix(from, _) if !from.matches(subject) => None,
            Self::Suffix(from, Replacement::Text(text)) => name_of(&replace(from, subject.text(), text)).ok(),
            Self::Suffix(..) => None,
        }
    }
}
