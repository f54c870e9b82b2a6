//! Functions of texts. What they make is asked for before it is made.

use super::Builtin;
use crate::expression::error::EvaluationError;
use crate::expression::value::{Budget, Value};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

impl Builtin {
    pub(super) fn join<'v>(
        self,
        list: &[Value<'v>],
        glue: &str,
        budget: &mut Budget,
    ) -> Result<Value<'v>, EvaluationError> {
        budget.steps(list.len())?;
        let mut parts = Vec::with_capacity(list.len());
        for part in list {
            parts.push(self.text(part)?);
        }
        budget.make(parts.iter().map(|part| part.len()).sum::<usize>() + glue.len() * parts.len())?;
        Ok(Value::Text(Cow::Owned(parts.join(glue))))
    }

    pub(super) fn of_texts<'v>(
        self,
        first: &Value<'v>,
        arguments: &[Value<'v>],
        budget: &mut Budget,
    ) -> Result<Value<'v>, EvaluationError> {
        let Value::Text(subject) = first else { return Err(self.wrong(first)) };
        budget.look_at(subject.len())?;
        if self == Self::Repeat {
            return self.repeat(subject, arguments.get(1), budget);
        }
        let argument = |index: usize| arguments.get(index).map(|value| self.text(value)).transpose();
        let number = |index: usize| match arguments.get(index) {
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(other) => Err(self.wrong(other)),
            None => Ok(None),
        };
        let second = argument(1)?;
        let part = second.unwrap_or_default();
        budget.look_at(part.len())?;
        let place = |found: Option<usize>| Value::Int(found.map_or(-1, |place| place as i64));
        Ok(match self {
            Self::Lower => changed(
                subject,
                |text| text.chars().any(|one| !one.to_lowercase().eq([one])),
                budget,
                |text| text.to_lowercase(),
            )?,
            Self::Upper => changed(
                subject,
                |text| text.chars().any(|one| !one.to_uppercase().eq([one])),
                budget,
                |text| text.to_uppercase(),
            )?,
            Self::Trim => cut(subject, |text| match second {
                Some(characters) => {
                    let characters: HashSet<char> = characters.chars().collect();
                    text.trim_matches(|one| characters.contains(&one))
                }
                None => text.trim(),
            }),
            Self::TrimPrefix => cut(subject, |text| text.strip_prefix(second.unwrap_or(" ")).unwrap_or(text)),
            Self::TrimSuffix => cut(subject, |text| text.strip_suffix(second.unwrap_or(" ")).unwrap_or(text)),
            Self::Split | Self::SplitAfter => {
                split(subject, part, number(2)?.unwrap_or(-1), self == Self::SplitAfter, budget)?
            }
            Self::Replace => {
                let by = argument(2)?.unwrap_or_default();
                replace(subject, part, by, number(3)?.unwrap_or(-1), budget)?
            }
            Self::IndexOf => place(subject.find(part)),
            Self::LastIndexOf => place(subject.rfind(part)),
            Self::HasPrefix => Value::Bool(subject.starts_with(part)),
            _ => Value::Bool(subject.ends_with(part)),
        })
    }

    pub(super) fn repeat<'v>(
        self,
        text: &str,
        count: Option<&Value<'v>>,
        budget: &mut Budget,
    ) -> Result<Value<'v>, EvaluationError> {
        let Some(Value::Int(count)) = count else { return Err(self.wrong(count.unwrap_or(&Value::Nil))) };
        let count =
            usize::try_from(*count).map_err(|_| EvaluationError::Value(format!("a text repeated {count} times")))?;
        budget.make(text.len().saturating_mul(count))?;
        Ok(Value::Text(Cow::Owned(text.repeat(count))))
    }

    pub(super) fn text<'a>(self, value: &'a Value<'_>) -> Result<&'a str, EvaluationError> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong(other)),
        }
    }
}

/// A text that is changed only where it would not stay the same.
fn changed<'v>(
    text: &Cow<'v, str>,
    changes: impl Fn(&str) -> bool,
    budget: &mut Budget,
    change: impl Fn(&str) -> String,
) -> Result<Value<'v>, EvaluationError> {
    if !changes(text) {
        return Ok(Value::Text(text.clone()));
    }
    // A character may become three of three octets.
    budget.make(text.len() * 9)?;
    Ok(Value::Text(Cow::Owned(change(text))))
}

/// A part of a text; borrowed where the text is.
fn cut<'v>(text: &Cow<'v, str>, part: impl Fn(&str) -> &str) -> Value<'v> {
    match text {
        Cow::Borrowed(text) => Value::Text(Cow::Borrowed(part(text))),
        Cow::Owned(text) => Value::Text(Cow::Owned(part(text).to_owned())),
    }
}

/// The parts of a text between separators, or after them; with an empty separator its characters. At most so many; all
/// for a negative number, as in Go.
fn split<'v>(
    text: &str,
    separator: &str,
    most: i64,
    is_after: bool,
    budget: &mut Budget,
) -> Result<Value<'v>, EvaluationError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts: Vec<Value<'v>> = Vec::new();
    budget.make(text.len())?;
    let mut rest = text;
    while parts.len() < most {
        budget.step()?;
        let end = match separator.is_empty() {
            true => rest.chars().next().map(char::len_utf8).filter(|length| *length < rest.len()).map(|end| (end, 0)),
            false => rest.find(separator).map(|end| (end, separator.len())),
        };
        match end {
            Some((end, length)) if parts.len() + 1 < most => {
                let kept = if is_after { end + length } else { end };
                parts.push(Value::text(rest[..kept].to_owned()));
                rest = &rest[end + length..];
            }
            _ => {
                if !(separator.is_empty() && rest.is_empty()) {
                    parts.push(Value::text(rest.to_owned()));
                }
                break;
            }
        }
    }
    Ok(Value::List(Arc::from(parts)))
}

/// A text with so many of `old` replaced; all for a negative number, as in Go.
fn replace<'v>(text: &str, old: &str, new: &str, most: i64, budget: &mut Budget) -> Result<Value<'v>, EvaluationError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = text.matches(old).take(most).count();
    budget.make(text.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(Value::Text(Cow::Owned(text.replacen(old, new, most))))
}
