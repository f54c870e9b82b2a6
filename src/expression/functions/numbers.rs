//! Functions of one number or of two whole ones.

use super::Builtin;
use crate::expression::error::EvaluationError;
use crate::expression::value::{Budget, Value};

impl Builtin {
    pub(super) fn of_one<'v>(self, value: &Value<'v>, budget: &mut Budget) -> Result<Value<'v>, EvaluationError> {
        let float = || value.as_float().ok_or_else(|| self.wrong(value));
        Ok(match (self, value) {
            (Self::Abs, Value::Int(number)) => Value::Int(number.wrapping_abs()),
            (Self::Abs, _) => Value::Float(float()?.abs()),
            (Self::Ceil, _) => Value::Float(float()?.ceil()),
            (Self::Floor, _) => Value::Float(float()?.floor()),
            (Self::Round, _) => Value::Float(float()?.round()),
            (Self::Int, Value::Int(number)) => Value::Int(*number),
            // What no whole number holds becomes the nearest.
            (Self::Int, Value::Float(number)) => Value::Int(*number as i64),
            (Self::Int, Value::Text(text)) => {
                Value::Int(text.parse().map_err(|_| EvaluationError::Value("a text is no whole number".to_owned()))?)
            }
            (Self::Float, Value::Text(text)) => {
                Value::Float(text.parse().map_err(|_| EvaluationError::Value("a text is no number".to_owned()))?)
            }
            (Self::Float, _) => Value::Float(float()?),
            (Self::String, Value::Text(text)) => Value::Text(text.clone()),
            (Self::String, Value::Int(number)) => {
                budget.make(20)?;
                Value::text(number.to_string())
            }
            (Self::String, Value::Bool(value)) => Value::text(if *value { "true" } else { "false" }),
            _ => return Err(self.wrong(value)),
        })
    }

    pub(super) fn of_bits<'v>(
        self,
        first: &Value<'v>,
        second: Option<&Value<'v>>,
    ) -> Result<Value<'v>, EvaluationError> {
        let Value::Int(first) = first else { return Err(self.wrong(first)) };
        let second = match second {
            Some(Value::Int(second)) => *second,
            Some(other) => return Err(self.wrong(other)),
            None => 0,
        };
        let count = u32::try_from(second);
        let shift = || count.map_err(|_| EvaluationError::Value(format!("a shift by {second} bits")));
        Ok(Value::Int(match self {
            Self::BitAnd => first & second,
            Self::BitOr => first | second,
            Self::BitXor => first ^ second,
            // Go's `&^`, which the language has under this name.
            Self::BitNand => first & !second,
            Self::BitNot => !first,
            Self::ShiftLeft => first.checked_shl(shift()?).unwrap_or(0),
            Self::ShiftRight => first.checked_shr(shift()?).unwrap_or(if *first < 0 { -1 } else { 0 }),
            _ => (*first as u64).checked_shr(shift()?).unwrap_or(0) as i64,
        }))
    }
}
