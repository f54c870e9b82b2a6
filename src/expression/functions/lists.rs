//! Functions of lists.

use super::Builtin;
use crate::expression::error::EvaluationError;
use crate::expression::value::{Budget, Value};

impl Builtin {
    pub(super) fn of_lists<'v>(
        self,
        first: &Value<'v>,
        arguments: &[Value<'v>],
        budget: &mut Budget,
    ) -> Result<Value<'v>, EvaluationError> {
        let list = match first {
            Value::List(list) => list,
            Value::Text(text) if self == Self::Len => {
                budget.look_at(text.len())?;
                return Ok(Value::Int(text.chars().count() as i64));
            }
            other => return Err(self.wrong(other)),
        };
        budget.steps(list.len())?;
        Ok(match self {
            Self::Len => Value::Int(list.len() as i64),
            Self::First => list.first().cloned().unwrap_or(Value::Nil),
            Self::Last => list.last().cloned().unwrap_or(Value::Nil),
            Self::Take => {
                let Some(Value::Int(count)) = arguments.get(1) else { return Err(self.wrong(first)) };
                let count = usize::try_from(*count)
                    .map_err(|_| EvaluationError::Value(format!("`take` of {count} elements, which is negative")))?;
                Value::List(list.iter().take(count).cloned().collect())
            }
            Self::Reverse => Value::List(list.iter().rev().cloned().collect()),
            Self::Uniq => {
                let mut unique: Vec<Value<'v>> = Vec::new();
                'elements: for element in list.iter() {
                    for known in &unique {
                        if known.equals(element, budget)? {
                            continue 'elements;
                        }
                    }
                    unique.push(element.clone());
                }
                Value::List(unique.into())
            }
            _ => {
                let mut joined = Vec::new();
                for argument in arguments {
                    let Value::List(list) = argument else { return Err(self.wrong(argument)) };
                    budget.steps(list.len())?;
                    joined.extend(list.iter().cloned());
                }
                Value::List(joined.into())
            }
        })
    }

    /// `max`, `min` and `mean` of numbers and of what lists of them hold.
    pub(super) fn of_numbers<'v>(
        self,
        arguments: &[Value<'v>],
        budget: &mut Budget,
    ) -> Result<Value<'v>, EvaluationError> {
        let mut best: Option<&Value<'v>> = None;
        let (mut sum, mut count) = (0.0, 0_usize);
        for argument in arguments {
            let numbers = match argument {
                Value::List(list) => &list[..],
                one => std::slice::from_ref(one),
            };
            budget.steps(numbers.len())?;
            for number in numbers {
                let value = number.as_float().ok_or_else(|| self.wrong(number))?;
                sum += value;
                count += 1;
                let is_better = match (best, best.and_then(Value::as_float)) {
                    (Some(Value::Int(best)), _) if matches!(number, Value::Int(_)) => {
                        let Value::Int(number) = number else { return Err(self.wrong(number)) };
                        if self == Self::Max { number > best } else { number < best }
                    }
                    (_, Some(best)) => {
                        if self == Self::Max {
                            value > best
                        } else {
                            value < best
                        }
                    }
                    _ => true,
                };
                if is_better {
                    best = Some(number);
                }
            }
        }
        match best {
            _ if self == Self::Mean && count == 0 => Ok(Value::Float(0.0)),
            _ if self == Self::Mean => Ok(Value::Float(sum / count as f64)),
            Some(best) => Ok(best.clone()),
            None => Err(EvaluationError::Value("`max` or `min` of an empty array".to_owned())),
        }
    }
}
