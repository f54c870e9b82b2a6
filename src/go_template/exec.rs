//! Executes a parsed template, within bounds on steps and output.

use super::error::{Problem, TemplateError, wrong};
use super::functions::{self, TemplateFunction};
use super::print::written;
use super::tree::{Branch, Operand, OperandKind, Pipe, TemplateCommand, TemplateNode};
use super::value::Value;
use super::{OUTPUT_OCTETS, STEPS};
use std::collections::HashMap;
use std::sync::Arc;

/// Blocks, templates and parentheses within each other: they are walked by recursion.
const DEPTH: usize = 150;

pub(super) fn execute(
    root: &[TemplateNode],
    named: &HashMap<Box<str>, Vec<TemplateNode>>,
    data: Value,
) -> Result<String, TemplateError> {
    let variables = vec![("$".into(), data.clone())];
    let mut run = Execution { named, variables, steps: STEPS, octets: OUTPUT_OCTETS, depth: 0, out: String::new() };
    run.list(0, root, &data)?;
    Ok(run.out)
}

struct Execution<'t> {
    named: &'t HashMap<Box<str>, Vec<TemplateNode>>,
    variables: Vec<(Arc<str>, Value)>,
    /// What is left of both.
    steps: usize,
    octets: usize,
    depth: usize,
    out: String,
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Execution<'_> {
    fn step(&mut self, at: usize) -> Result<(), TemplateError> {
        match self.steps.checked_sub(1) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => wrong(at, Problem::Steps),
        }
    }
    /// Counts what is made.
    fn charge(&mut self, at: usize, octets: usize) -> Result<(), TemplateError> {
        match self.octets.checked_sub(octets) {
            Some(left) => {
                self.octets = left;
                Ok(())
            }
            None => wrong(at, Problem::Output),
        }
    }

    /// Where it goes too deep, `at` says where that is.
    fn deeper<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == DEPTH {
            return wrong(at, Problem::TooDeep);
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn list(&mut self, at: usize, nodes: &[TemplateNode], dot: &Value) -> Result<Flow, TemplateError> {
        self.deeper(at, |run| {
            for node in nodes {
                match run.node(node, dot)? {
                    Flow::On => {}
                    other => return Ok(other),
                }
            }
            Ok(Flow::On)
        })
    }

    fn node(&mut self, node: &TemplateNode, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            TemplateNode::Text(text) => {
                self.step(0)?;
                self.charge(0, text.len())?;
                self.out.push_str(text);
            }
            TemplateNode::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    let at = place(pipe);
                    let text = written(&value, self.octets).map_err(|problem| TemplateError { at, problem })?;
                    self.charge(at, text.len())?;
                    self.out.push_str(&text);
                }
            }
            TemplateNode::If(branch) | TemplateNode::With(branch) => {
                let mark = self.variables.len();
                let at = place(&branch.pipe);
                let value = self.pipe(&branch.pipe, dot)?;
                let inner = if matches!(node, TemplateNode::With(_)) { &value } else { dot };
                let flow = if value.is_true() {
                    self.list(at, &branch.then, inner)
                } else {
                    self.list(at, &branch.otherwise, dot)
                };
                self.variables.truncate(mark);
                return flow;
            }
            TemplateNode::Range(branch) => return self.range(branch, dot),
            TemplateNode::Template { at, name, argument } => self.template(*at, name, argument.as_ref(), dot)?,
            TemplateNode::Break => return Ok(Flow::Break),
            TemplateNode::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn template(&mut self, at: usize, name: &str, argument: Option<&Pipe>, dot: &Value) -> Result<(), TemplateError> {
        let named = self.named;
        let Some(nodes) = named.get(name) else { return wrong(at, Problem::NoTemplate(super::lexer::clip(name))) };
        let data = match argument {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::Missing,
        };
        // It sees no variables of here.
        let variables = std::mem::replace(&mut self.variables, vec![("$".into(), data.clone())]);
        let result = self.list(at, nodes, &data);
        self.variables = variables;
        result.map(|_| ())
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        let at = place(&branch.pipe);
        let over = self.pipe(&branch.pipe, dot)?;
        let ran = match &over {
            Value::List(list) => self.rounds(
                branch,
                list.iter().enumerate().map(|(index, value)| (Value::Int(index as i64), value.clone())),
            )?,
            Value::Map(map) => {
                self.rounds(branch, map.iter().map(|(key, value)| (Value::text(key.as_str()), value.clone())))?
            }
            Value::Int(_) | Value::Uint(_) if branch.pipe.variables.len() > 1 => {
                return wrong(at, Problem::Value("a number has no second value to range over".to_owned()));
            }
            Value::Int(count) => self.rounds(branch, (0..*count).map(|index| (Value::Missing, Value::Int(index))))?,
            Value::Uint(count) => self.rounds(branch, (0..*count).map(|index| (Value::Missing, Value::Uint(index))))?,
            Value::Missing | Value::Nil => false,
            other => {
                return wrong(at, Problem::Value(format!("there is nothing to range over in a {}", other.type_name())));
            }
        };
        if !ran {
            let flow = self.list(at, &branch.otherwise, dot);
            self.variables.truncate(mark);
            return flow;
        }
        self.variables.truncate(mark);
        Ok(Flow::On)
    }

    /// Runs the body for each pair of index and value; false if there was none.
    fn rounds(&mut self, branch: &Branch, pairs: impl Iterator<Item = (Value, Value)>) -> Result<bool, TemplateError> {
        let names = &branch.pipe.variables;
        let mark = self.variables.len();
        let mut ran = false;
        for (index, value) in pairs {
            self.step(place(&branch.pipe))?;
            ran = true;
            // The pipeline has declared them, with what is ranged over as their value.
            match &names[..] {
                [only] => self.set(only, value.clone()),
                [first, second] => {
                    self.set(first, index);
                    self.set(second, value.clone());
                }
                _ => {}
            }
            let flow = self.list(place(&branch.pipe), &branch.then, &value)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(ran)
    }

    /// The innermost variable of a name gets a value; that there is one was checked when it was read.
    fn set(&mut self, name: &Arc<str>, value: Value) {
        if let Some((_, slot)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *slot = value;
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipe.variables {
            match pipe.assigns {
                true => self.set(name, value.clone()),
                false => self.variables.push((name.clone(), value.clone())),
            }
        }
        Ok(value)
    }

    /// `last` is what the command before this one in its pipeline gave.
    fn command(&mut self, command: &TemplateCommand, dot: &Value, last: Option<Value>) -> Result<Value, TemplateError> {
        let at = command.head.at;
        self.step(at)?;
        let arguments = &command.arguments;
        match &command.head.kind {
            OperandKind::Function(function) => self.call(at, *function, arguments, dot, last),
            OperandKind::Fields(fields) => self.method(at, dot.clone(), fields, arguments, dot, last),
            OperandKind::Variable(name, fields) if !fields.is_empty() => {
                let receiver = self.variable(name);
                self.method(at, receiver, fields, arguments, dot, last)
            }
            OperandKind::Chain(inner, fields) => {
                let receiver = self.operand(inner, dot)?;
                self.method(at, receiver, fields, arguments, dot, last)
            }
            _ => self.operand(&command.head, dot),
        }
    }

    fn variable(&self, name: &Arc<str>) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map_or(Value::Missing, |(_, value)| value.clone())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        let at = operand.at;
        self.step(at)?;
        match &operand.kind {
            OperandKind::Dot => Ok(dot.clone()),
            OperandKind::Nil => Ok(Value::Nil),
            OperandKind::Constant(value) => Ok(value.clone()),
            OperandKind::Function(function) => self.call(at, *function, &[], dot, None),
            OperandKind::Fields(fields) => self.method(at, dot.clone(), fields, &[], dot, None),
            OperandKind::Variable(name, fields) => {
                let receiver = self.variable(name);
                self.method(at, receiver, fields, &[], dot, None)
            }
            OperandKind::Pipe(pipe) => {
                let mark = self.variables.len();
                let value = self.deeper(at, |run| run.pipe(pipe, dot));
                self.variables.truncate(mark);
                value
            }
            OperandKind::Chain(inner, fields) => {
                let receiver = self.operand(inner, dot)?;
                self.method(at, receiver, fields, &[], dot, None)
            }
        }
    }

    fn arguments(
        &mut self,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Vec<Value>, TemplateError> {
        let mut values = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            values.push(self.operand(operand, dot)?);
        }
        values.extend(last);
        Ok(values)
    }

    fn call(
        &mut self,
        at: usize,
        function: TemplateFunction,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let fail =
            |why: String| TemplateError { at, problem: Problem::Call { function: function.name().to_owned(), why } };
        if let Some(decides) = function.decides_on() {
            return self
                .decide(decides, operands, dot, last)?
                .ok_or_else(|| fail("it needs at least one argument".to_owned()));
        }
        let arguments = self.arguments(operands, dot, last)?;
        let value = functions::call(function, &arguments, self.octets).map_err(fail)?;
        if let Value::Text(text) = &value {
            self.charge(at, text.len())?;
        }
        Ok(value)
    }

    /// `and` and `or`: the first argument that is `decides`, or the last. Those after it are not looked at.
    fn decide(
        &mut self,
        decides: bool,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Option<Value>, TemplateError> {
        let mut value = None;
        for operand in operands {
            let next = self.operand(operand, dot)?;
            let is_decided = next.is_true() == decides;
            value = Some(next);
            if is_decided {
                return Ok(value);
            }
        }
        Ok(last.or(value))
    }

    /// Fields one after another, the last of which may be a method with arguments.
    fn method(
        &mut self,
        at: usize,
        mut receiver: Value,
        fields: &[Arc<str>],
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let arguments = self.arguments(operands, dot, last)?;
        for (index, name) in fields.iter().enumerate() {
            self.step(at)?;
            let arguments = if index + 1 == fields.len() { &arguments[..] } else { &[] };
            receiver = field(at, &receiver, name, arguments)?;
        }
        Ok(receiver)
    }
}

/// A field or method of a value.
fn field(at: usize, receiver: &Value, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let fail = |why: &str| wrong(at, Problem::Call { function: name.to_owned(), why: why.to_owned() });
    let missing = |kind| wrong(at, Problem::Field { field: name.to_owned(), kind });
    match receiver {
        Value::Object(object) if object.has_method(name) => match arguments {
            [Value::Text(argument)] => object.call(name, argument).map_or_else(|| missing(object.kind()), Ok),
            [_] => fail("its argument must be a text"),
            _ => fail("it takes one argument"),
        },
        _ if !arguments.is_empty() => match receiver {
            Value::Missing => Ok(Value::Missing),
            _ => fail("it takes no arguments"),
        },
        Value::Object(object) => object.field(name).map_or_else(|| missing(object.kind()), Ok),
        Value::Map(map) => Ok(map.get(name).cloned().unwrap_or(Value::Missing)),
        Value::Missing => Ok(Value::Missing),
        Value::Nil => fail("there is nothing that it would be of"),
        other => missing(other.type_name()),
    }
}

/// Where a pipeline begins.
fn place(pipe: &Pipe) -> usize {
    pipe.commands.first().map_or(0, |command| command.head.at)
}
