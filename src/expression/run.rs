//! Evaluates an expression, within its bounds.

use super::Environment;
use super::error::EvaluationError;
use super::node::{Iteration, Node};
use super::value::{Budget, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// The value of an expression in an environment.
pub(super) fn evaluate<'v>(node: &'v Node, environment: &'v dyn Environment) -> Result<Value<'v>, EvaluationError> {
    Run { environment, budget: Budget::new(), locals: Vec::new() }.value(node)
}

struct Run<'v> {
    environment: &'v dyn Environment,
    budget: Budget,
    locals: Vec<Value<'v>>,
}

impl<'v> Run<'v> {
    fn value(&mut self, node: &'v Node) -> Result<Value<'v>, EvaluationError> {
        self.budget.step()?;
        match node {
            Node::Constant(value) => Ok(value.borrowed()),
            Node::Local(place) => Ok(self.locals.get(*place).cloned().unwrap_or(Value::Nil)),
            Node::Not(operand) => Ok(Value::Bool(!self.truth(operand, "not")?)),
            Node::Negate(operand) => match self.value(operand)? {
                Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
                Value::Float(number) => Ok(Value::Float(-number)),
                other => Err(wrong("-", &other)),
            },
            Node::And(operands) => self.decide(operands, false, "and"),
            Node::Or(operands) => self.decide(operands, true, "or"),
            Node::Binary(operator, operands) => {
                let [left, right] = &**operands;
                let (left, right) = (self.value(left)?, self.value(right)?);
                operator.apply(&left, &right, &mut self.budget)
            }
            Node::Matches(operand, pattern) => match self.value(operand)? {
                Value::Text(text) => {
                    self.budget.match_in(text.len(), pattern.octets())?;
                    Ok(Value::Bool(pattern.is_match(&text)))
                }
                other => Err(wrong("matches", &other)),
            },
            Node::Conditional(parts) => {
                let [condition, first, second] = &**parts;
                let chosen = if self.truth(condition, "?:")? { first } else { second };
                self.value(chosen)
            }
            Node::Coalesce(operands) => {
                let [first, second] = &**operands;
                match self.value(first)? {
                    Value::Nil => self.value(second),
                    value => Ok(value),
                }
            }
            Node::Shared(node) => self.value(node),
            Node::List(elements) => self.values(elements).map(|values| Value::List(values.into())),
            Node::Index(parts) => {
                let [of, index] = &**parts;
                let (of, index) = (self.value(of)?, self.value(index)?);
                element(&of, &index)
            }
            Node::Slice { of, from, to } => self.slice(of, from.as_deref(), to.as_deref()),
            Node::Let(parts) => {
                let [value, body] = &**parts;
                let value = self.value(value)?;
                self.with_locals([value], body)
            }
            Node::Call(builtin, arguments) => {
                let arguments = self.values(arguments)?;
                builtin.apply(&arguments, &mut self.budget)
            }
            Node::Each(iteration, list, predicate) => self.each(*iteration, list, predicate.as_deref()),
            Node::Environment { function, prepared, arguments } => {
                let arguments = self.values(arguments)?;
                let value = self.environment.call(*function, prepared.as_ref(), &arguments)?;
                if let Value::Text(text) = &value {
                    self.budget.make(text.len())?;
                }
                Ok(value)
            }
        }
    }

    fn values(&mut self, nodes: &'v [Node]) -> Result<Vec<Value<'v>>, EvaluationError> {
        nodes.iter().map(|node| self.value(node)).collect()
    }

    fn truth(&mut self, node: &'v Node, operation: &'static str) -> Result<bool, EvaluationError> {
        match self.value(node)? {
            Value::Bool(value) => Ok(value),
            other => Err(wrong(operation, &other)),
        }
    }

    /// The first operand that is `decisive` decides.
    fn decide(
        &mut self,
        operands: &'v [Node],
        decisive: bool,
        operation: &'static str,
    ) -> Result<Value<'v>, EvaluationError> {
        for operand in operands {
            if self.truth(operand, operation)? == decisive {
                return Ok(Value::Bool(decisive));
            }
        }
        Ok(Value::Bool(!decisive))
    }

    /// The value of a node that may name these, which stand above all that are there.
    fn with_locals<const N: usize>(
        &mut self,
        locals: [Value<'v>; N],
        body: &'v Node,
    ) -> Result<Value<'v>, EvaluationError> {
        let height = self.locals.len();
        self.locals.extend(locals);
        let value = self.value(body);
        self.locals.truncate(height);
        value
    }

    fn slice(
        &mut self,
        of: &'v Node,
        from: Option<&'v Node>,
        to: Option<&'v Node>,
    ) -> Result<Value<'v>, EvaluationError> {
        let of = self.value(of)?;
        let length = match &of {
            Value::Text(text) => text.len(),
            Value::List(list) => list.len(),
            other => return Err(wrong("[:]", other)),
        };
        let mut bound =
            |node: Option<&'v Node>, otherwise: usize| match node.map(|node| self.value(node)).transpose()? {
                None => Ok(otherwise),
                Some(Value::Int(index)) => Ok(bound(index, length)),
                Some(other) => Err(wrong("[:]", &other)),
            };
        let (from, to) = (bound(from, 0)?, bound(to, length)?);
        let from = from.min(to);
        match of {
            Value::Text(Cow::Borrowed(text)) => text.get(from..to).map(Value::text).ok_or_else(split_character),
            Value::Text(Cow::Owned(text)) => {
                self.budget.make(to - from)?;
                text.get(from..to).map(|part| Value::text(part.to_owned())).ok_or_else(split_character)
            }
            Value::List(list) => {
                self.budget.steps(to - from)?;
                Ok(Value::List(list.iter().skip(from).take(to - from).cloned().collect()))
            }
            other => Err(wrong("[:]", &other)),
        }
    }

    /// Asks a predicate of elements until it is known what the whole gives. `#` is the element, `#index` its place.
    fn each(
        &mut self,
        iteration: Iteration,
        list: &'v Node,
        predicate: Option<&'v Node>,
    ) -> Result<Value<'v>, EvaluationError> {
        let elements = match self.value(list)? {
            Value::List(elements) => elements,
            other => return Err(wrong("a predicate", &other)),
        };
        let (mut held, mut kept, mut sum) = (0_i64, Vec::new(), Value::Int(0));
        for step in 0..elements.len() {
            let place = if iteration.is_backwards() { elements.len() - 1 - step } else { step };
            let Some(element) = elements.get(place) else { break };
            self.budget.step()?;
            let answer = match predicate {
                Some(predicate) => self.with_locals([element.clone(), Value::Int(place as i64)], predicate)?,
                None => element.clone(),
            };
            if iteration == Iteration::Map {
                kept.push(answer);
                continue;
            }
            if iteration == Iteration::Sum {
                sum = super::operators::Operator::Add.apply(&sum, &answer, &mut self.budget)?;
                continue;
            }
            let Value::Bool(holds) = answer else { return Err(wrong("a predicate", &answer)) };
            held += i64::from(holds);
            match iteration {
                Iteration::All if !holds => return Ok(Value::Bool(false)),
                Iteration::None if holds => return Ok(Value::Bool(false)),
                Iteration::Any if holds => return Ok(Value::Bool(true)),
                Iteration::One if held > 1 => return Ok(Value::Bool(false)),
                Iteration::Filter if holds => kept.push(element.clone()),
                Iteration::Find | Iteration::FindLast if holds => return Ok(element.clone()),
                Iteration::FindIndex | Iteration::FindLastIndex if holds => return Ok(Value::Int(place as i64)),
                _ => {}
            }
        }
        Ok(match iteration {
            Iteration::All | Iteration::None => Value::Bool(true),
            Iteration::Any => Value::Bool(false),
            Iteration::One => Value::Bool(held == 1),
            Iteration::Filter | Iteration::Map => Value::List(Arc::from(kept)),
            Iteration::Find | Iteration::FindLast => Value::Nil,
            Iteration::FindIndex | Iteration::FindLastIndex => Value::Nil,
            Iteration::Count => Value::Int(held),
            Iteration::Sum => sum,
        })
    }
}

/// A bound of a slice within a length; a negative one counts from the end.
fn bound(index: i64, length: usize) -> usize {
    let from_start = if index < 0 { index.saturating_add(length as i64) } else { index };
    usize::try_from(from_start).unwrap_or(0).min(length)
}

fn element<'v>(of: &Value<'v>, index: &Value<'v>) -> Result<Value<'v>, EvaluationError> {
    let Value::List(list) = of else { return Err(wrong("[]", of)) };
    let Value::Int(index) = index else { return Err(wrong("[]", index)) };
    let place = if *index < 0 { index.saturating_add(list.len() as i64) } else { *index };
    let found = usize::try_from(place).ok().and_then(|place| list.get(place));
    found.cloned().ok_or(EvaluationError::Index { index: *index, length: list.len() })
}

fn split_character() -> EvaluationError {
    EvaluationError::Value("a slice that splits a character".to_owned())
}

fn wrong(operation: &'static str, value: &Value<'_>) -> EvaluationError {
    EvaluationError::Type { operation, found: value.kind() }
}
