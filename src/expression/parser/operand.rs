//! Operands: constants, variables, lists, what stands in parentheses, and the operators before and after one.

use super::{NOT, Operand, Parser, SIGN};
use crate::expression::error::{ExpressionError, Problem, wrong};
use crate::expression::lexer::Kind;
use crate::expression::node::Node;
use crate::expression::types::{Element, Type};
use crate::expression::value::Value;

impl Parser<'_> {
    /// One operand with the operators before it and after it.
    pub(super) fn operand(&mut self) -> Result<Operand, ExpressionError> {
        let at = self.at();
        let read = match self.peek() {
            Kind::Symbol("!") => self.negation(at, NOT)?,
            Kind::Word(word) if word == "not" => self.negation(at, NOT)?,
            Kind::Symbol(sign @ ("-" | "+")) => {
                let is_minus = *sign == "-";
                self.signed(at, is_minus)?
            }
            Kind::Symbol("(") => {
                self.advance();
                let inner = self.nested(Self::sequence)?;
                self.expect(")", "`)`")?;
                inner
            }
            Kind::Symbol("#") => self.element()?,
            Kind::Symbol("[") => self.list()?,
            Kind::Symbol("{") => return wrong(at, Problem::NotHere("a map".to_owned())),
            Kind::Text(text) => {
                let node = Node::Constant(Value::text(text.clone()));
                self.advance();
                Operand { at, depth: 1, kind: Type::Text, node }
            }
            Kind::Number(number) => {
                let value = read_number(number)
                    .ok_or_else(|| ExpressionError { at, problem: Problem::Number(number.clone()) })?;
                self.advance();
                let kind = if matches!(value, Value::Int(_)) { Type::Int } else { Type::Float };
                Operand { at, depth: 1, kind, node: Node::Constant(value) }
            }
            Kind::Word(word) => {
                let word = word.clone();
                self.named(at, &word)?
            }
            _ => return self.unexpected("a value"),
        };
        self.postfix(read)
    }

    pub(super) fn negation(&mut self, at: usize, strength: u8) -> Result<Operand, ExpressionError> {
        self.advance();
        let operand = self.expression(strength)?;
        Self::wants(&operand, Type::Bool, "what stands after `not`", "bool")?;
        Self::around(at, operand.depth, Type::Bool, Node::Not(Box::new(operand.node)))
    }

    pub(super) fn signed(&mut self, at: usize, is_minus: bool) -> Result<Operand, ExpressionError> {
        self.advance();
        let operand = self.expression(SIGN)?;
        if !operand.kind.is_number() && operand.kind != Type::Any {
            let found = operand.kind;
            return wrong(at, Problem::WrongType { what: "what has a sign", found, wanted: "a number" });
        }
        match (is_minus, operand.node) {
            (false, node) => Ok(Operand { at, node, ..operand }),
            (true, Node::Constant(Value::Int(number))) => {
                Ok(Operand { at, node: Node::Constant(Value::Int(number.wrapping_neg())), ..operand })
            }
            (true, node) => Self::around(at, operand.depth, operand.kind, Node::Negate(Box::new(node))),
        }
    }

    /// `#`, `#index`
    pub(super) fn element(&mut self) -> Result<Operand, ExpressionError> {
        let at = self.at();
        let Some((place, kind)) = self.elements.last().copied() else {
            return wrong(at, Problem::Character('#'));
        };
        self.advance();
        let is_joined = self.at() == at + 1;
        let (place, kind) = match self.peek() {
            Kind::Word(word) if is_joined && word == "index" => {
                self.advance();
                (place + 1, Type::Int)
            }
            Kind::Word(word) if is_joined => {
                return wrong(at, Problem::NotHere(format!("`#{word}`")));
            }
            _ => (place, kind),
        };
        Ok(Operand { at, depth: 1, kind, node: Node::Local(place) })
    }

    pub(super) fn list(&mut self) -> Result<Operand, ExpressionError> {
        let at = self.at();
        self.advance();
        let elements = self.arguments("]", "`,` or `]`")?;
        let depth = elements.iter().map(|element| element.depth).max().unwrap_or_default();
        let first = elements.first().map_or(Type::Any, |element| element.kind);
        let kind = elements.iter().fold(first, |kind, element| kind.or(element.kind)).list();
        let nodes: Vec<Node> = elements.into_iter().map(|element| element.node).collect();
        let constants = nodes.iter().map(|node| match node {
            Node::Constant(value) => Some(value.clone()),
            _ => None,
        });
        let node = match constants.collect::<Option<Vec<_>>>() {
            Some(values) => Node::Constant(Value::List(values.into())),
            None => Node::List(nodes),
        };
        Self::around(at, depth, kind, node)
    }

    /// `true`, `false`, `nil`, a variable, a call.
    pub(super) fn named(&mut self, at: usize, name: &str) -> Result<Operand, ExpressionError> {
        let constant = match name {
            "true" => Some((Type::Bool, Value::Bool(true))),
            "false" => Some((Type::Bool, Value::Bool(false))),
            "nil" => Some((Type::Nil, Value::Nil)),
            _ => None,
        };
        self.advance();
        if let Some((kind, value)) = constant {
            return Ok(Operand { at, depth: 1, kind, node: Node::Constant(value) });
        }
        if self.is("(") {
            return self.call(at, name, None);
        }
        if let Some((_, place, kind)) = self.variables.iter().find(|(known, ..)| known == name) {
            return Ok(Operand { at, depth: 1, kind: *kind, node: Node::Local(*place) });
        }
        if matches!(self.peek(), Kind::Text(_)) && matches!(name, "b" | "B") {
            return wrong(at, Problem::NotHere("a text of octets".to_owned()));
        }
        if self.is_function(name) {
            return wrong(at, Problem::NotCalled(name.to_owned()));
        }
        if matches!(name, "let" | "if") {
            return wrong(at, Problem::NotHere(format!("`{name}`")));
        }
        wrong(at, Problem::UnknownName(name.to_owned()))
    }

    /// What stands after an operand: `[index]`, `[from:to]`.
    pub(super) fn postfix(&mut self, mut operand: Operand) -> Result<Operand, ExpressionError> {
        loop {
            let at = self.at();
            if self.is(".") || self.is("?.") {
                return wrong(at, Problem::NotHere("a field".to_owned()));
            }
            if !self.accept("[") {
                return Ok(operand);
            }
            let from = if self.is(":") { None } else { Some(self.expression(0)?) };
            let is_slice = self.accept(":");
            let to = if is_slice && !self.is("]") { Some(self.expression(0)?) } else { None };
            self.expect("]", "`]`")?;
            let mut bounds = from.iter().chain(&to);
            bounds.try_for_each(|bound| Self::wants(bound, Type::Int, "an index", "int"))?;
            let depth_of = |bound: &Option<Operand>| bound.as_ref().map_or(0, |bound| bound.depth);
            let depth = operand.depth.max(depth_of(&from)).max(depth_of(&to));
            let is_text = is_slice && operand.kind == Type::Text;
            if !is_text {
                Self::wants(&operand, Type::List(Element::Any), "what has an index", "an array")?;
            }
            let kind = operand.kind;
            operand = match (is_slice, from) {
                (false, Some(index)) => {
                    let node = Node::Index(Box::new([operand.node, index.node]));
                    Self::around(at, depth, kind.element(), node)?
                }
                (_, from) => {
                    let boxed = |bound: Option<Operand>| bound.map(|bound| Box::new(bound.node));
                    let node = Node::Slice { of: Box::new(operand.node), from: boxed(from), to: boxed(to) };
                    Self::around(at, depth, kind, node)?
                }
            };
        }
    }
}

/// Whole numbers, of which some have another base, and floating point ones. Underscores are left out.
fn read_number(text: &str) -> Option<Value<'static>> {
    let text: String = text.chars().filter(|character| *character != '_').collect::<String>().to_ascii_lowercase();
    let whole = |digits: &str, radix| i64::from_str_radix(digits, radix).ok().map(Value::Int);
    match text.get(..2) {
        Some("0x") => whole(&text[2..], 16),
        Some("0o") => whole(&text[2..], 8),
        Some("0b") => whole(&text[2..], 2),
        _ if text.contains(['.', 'e']) => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float),
        _ => whole(&text, 10),
    }
}
