//! Words into what is evaluated. One pass: types are known as soon as an operand is read. Operands are read in
//! [`operand`], calls in [`call`].

mod call;
mod operand;

use super::error::{ExpressionError, Problem, wrong};
use super::functions::{Builtin, LEFT_OUT};
use super::lexer::{Kind, Token, lex};
use super::node::{Iteration, Node};
use super::operators::Operator;
use super::types::Type;
use super::{DEPTH, EXPRESSION_OCTETS, Expression, Function};
use crate::go_regex::Patterns;
use std::sync::Arc;

pub(super) fn parse(text: &str, functions: &[Function], patterns: &Patterns) -> Result<Expression, ExpressionError> {
    if text.len() > EXPRESSION_OCTETS {
        return wrong(EXPRESSION_OCTETS, Problem::TooLong(text.len()));
    }
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens,
        place: 0,
        functions,
        patterns,
        variables: Vec::new(),
        height: 0,
        elements: Vec::new(),
        nesting: 0,
        called: Vec::new(),
    };
    let whole = parser.sequence()?;
    if parser.peek() != &Kind::End {
        return parser.unexpected("an operator or the end");
    }
    Ok(Expression { node: whole.node, kind: whole.kind, called: parser.called })
}

/// An operand that was read.
#[derive(Debug)]
struct Operand {
    at: usize,
    /// Nodes within each other.
    depth: usize,
    kind: Type,
    node: Node,
}

/// What stands between two operands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Infix {
    Or,
    And,
    Binary(Operator),
    Matches,
    Coalesce,
    Pipe,
}

/// How strongly the operators bind that stand before one operand.
const NOT: u8 = 50;
const SIGN: u8 = 90;

impl Infix {
    /// The operator that is written so, and how strongly it binds.
    fn of(kind: &Kind) -> Option<(Self, u8)> {
        let word = match kind {
            Kind::Word(word) => word.as_str(),
            Kind::Symbol(symbol) => symbol,
            _ => return None,
        };
        Some(match word {
            "|" => (Self::Pipe, 0),
            "or" | "||" => (Self::Or, 10),
            "and" | "&&" => (Self::And, 15),
            "==" => (Self::Binary(Operator::Equal), 20),
            "!=" => (Self::Binary(Operator::NotEqual), 20),
            "<" => (Self::Binary(Operator::Less), 20),
            "<=" => (Self::Binary(Operator::LessOrEqual), 20),
            ">" => (Self::Binary(Operator::Greater), 20),
            ">=" => (Self::Binary(Operator::GreaterOrEqual), 20),
            "in" => (Self::Binary(Operator::In), 20),
            "matches" => (Self::Matches, 20),
            "contains" => (Self::Binary(Operator::Contains), 20),
            "startsWith" => (Self::Binary(Operator::StartsWith), 20),
            "endsWith" => (Self::Binary(Operator::EndsWith), 20),
            ".." => (Self::Binary(Operator::Range), 25),
            "+" => (Self::Binary(Operator::Add), 30),
            "-" => (Self::Binary(Operator::Subtract), 30),
            "*" => (Self::Binary(Operator::Multiply), 60),
            "/" => (Self::Binary(Operator::Divide), 60),
            "%" => (Self::Binary(Operator::Remainder), 60),
            "**" | "^" => (Self::Binary(Operator::Power), 100),
            "??" => (Self::Coalesce, 200),
            _ => return None,
        })
    }

    /// `a not in b` and the like.
    fn may_be_negated(self) -> bool {
        matches!(
            self,
            Self::Matches | Self::Binary(Operator::In | Operator::Contains | Operator::StartsWith | Operator::EndsWith)
        )
    }
}

struct Parser<'f> {
    tokens: Vec<Token>,
    place: usize,
    functions: &'f [Function],
    patterns: &'f Patterns,
    /// Those of `let` that may be named here: name, place and type.
    variables: Vec<(String, usize, Type)>,
    /// Values that stand on the stack here.
    height: usize,
    /// Elements that predicates look at here, from the outermost: place and type.
    elements: Vec<(usize, Type)>,
    nesting: usize,
    called: Vec<usize>,
}

impl Parser<'_> {
    fn peek(&self) -> &Kind {
        self.tokens.get(self.place).map_or(&Kind::End, |token| &token.kind)
    }
    fn at(&self) -> usize {
        self.tokens.get(self.place).map_or(0, |token| token.at)
    }
    fn advance(&mut self) {
        // The last word is the end, and stays.
        self.place = (self.place + 1).min(self.tokens.len().saturating_sub(1));
    }
    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Kind::Symbol(found) if *found == symbol)
    }
    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Word(found) if found == word)
    }
    fn accept(&mut self, symbol: &str) -> bool {
        let is_there = self.is(symbol);
        if is_there {
            self.advance();
        }
        is_there
    }
    fn expect(&mut self, symbol: &str, wanted: &'static str) -> Result<(), ExpressionError> {
        if self.accept(symbol) { Ok(()) } else { self.unexpected(wanted) }
    }
    fn unexpected<T>(&self, wanted: &'static str) -> Result<T, ExpressionError> {
        let found = self.tokens.get(self.place).map_or_else(String::new, Token::told);
        wrong(self.at(), Problem::Unexpected { found, wanted })
    }

    /// Joins what was read to one operand around it.
    fn around(at: usize, inner: usize, kind: Type, node: Node) -> Result<Operand, ExpressionError> {
        match inner < DEPTH {
            true => Ok(Operand { at, depth: inner + 1, kind, node }),
            false => wrong(at, Problem::TooDeep),
        }
    }

    /// `let NAME = VALUE; …`, or an expression.
    fn sequence(&mut self) -> Result<Operand, ExpressionError> {
        if !self.is_word("let") {
            return self.expression(0);
        }
        let at = self.at();
        self.advance();
        let name = self.declared()?;
        self.expect("=", "`=` and the value of the variable")?;
        let value = self.expression(0)?;
        self.expect(";", "`;` and what the variable is for")?;
        self.variables.push((name, self.height, value.kind));
        self.height += 1;
        let body = self.nested(Self::sequence)?;
        self.height -= 1;
        self.variables.pop();
        let node = Node::Let(Box::new([value.node, body.node]));
        Self::around(at, value.depth.max(body.depth), body.kind, node)
    }

    /// The name of a new variable.
    fn declared(&mut self) -> Result<String, ExpressionError> {
        let Kind::Word(name) = self.peek().clone() else { return self.unexpected("the name of a variable") };
        let is_taken = self.is_function(&name)
            || LEFT_OUT.contains(&name.as_str())
            || self.variables.iter().any(|(known, ..)| *known == name)
            || ["true", "false", "nil", "let"].contains(&name.as_str())
            || Infix::of(self.peek()).is_some();
        if is_taken {
            return wrong(self.at(), Problem::Redeclared(name));
        }
        self.advance();
        Ok(name)
    }

    fn is_function(&self, name: &str) -> bool {
        self.functions.iter().any(|function| function.name == name)
            || Builtin::named(name).is_some()
            || Iteration::NAMED.iter().any(|(known, _)| *known == name)
    }

    /// Goes one level deeper into the text.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ExpressionError>) -> Result<T, ExpressionError> {
        if self.nesting == DEPTH {
            return wrong(self.at(), Problem::TooDeep);
        }
        self.nesting += 1;
        let read = read(self);
        self.nesting -= 1;
        read
    }

    /// Operands with the operators between them that bind at least so strongly; with the weakest also `a ? b : c`.
    fn expression(&mut self, least: u8) -> Result<Operand, ExpressionError> {
        self.nested(|parser| {
            let mut left = parser.operand()?;
            while let Some((infix, strength, is_negated)) = parser.infix(least)? {
                left = parser.join(left, infix, strength, is_negated)?;
            }
            if least == 0 { parser.conditional(left) } else { Ok(left) }
        })
    }

    /// The operator that stands here, if it binds that strongly: how strongly, and whether `not` stands before it.
    fn infix(&self, least: u8) -> Result<Option<(Infix, u8, bool)>, ExpressionError> {
        let is_negated = self.is_word("not");
        let word = self.tokens.get(self.place + usize::from(is_negated)).map_or(&Kind::End, |token| &token.kind);
        match Infix::of(word) {
            Some((infix, _)) if is_negated && !infix.may_be_negated() => self.unexpected("an operator or the end"),
            Some((infix, strength)) if strength >= least => Ok(Some((infix, strength, is_negated))),
            _ => Ok(None),
        }
    }

    /// Reads an operator and its right operand.
    fn join(
        &mut self,
        left: Operand,
        infix: Infix,
        strength: u8,
        is_negated: bool,
    ) -> Result<Operand, ExpressionError> {
        let at = self.at();
        if is_negated {
            self.advance();
        }
        self.advance();
        let joined = match infix {
            Infix::Pipe => self.piped(left)?,
            Infix::Matches => self.matches(at, left)?,
            Infix::Binary(operator) if operator.is_order() => self.comparisons(at, left, operator, strength)?,
            Infix::Binary(operator) => {
                // `2 ** 3 ** 2` is `2 ** (3 ** 2)`, all others begin from the left.
                let right = self.expression(if operator == Operator::Power { strength } else { strength + 1 })?;
                Self::binary(at, operator, left, right)?
            }
            Infix::And | Infix::Or => {
                let right = self.expression(strength + 1)?;
                Self::logical(at, infix == Infix::And, left, right)?
            }
            Infix::Coalesce => {
                let right = self.expression(strength + 1)?;
                let kind = if left.kind == Type::Nil { right.kind } else { left.kind.or(right.kind) };
                let node = Node::Coalesce(Box::new([left.node, right.node]));
                Self::around(at, left.depth.max(right.depth), kind, node)?
            }
        };
        match is_negated {
            true => Self::around(at, joined.depth, Type::Bool, Node::Not(Box::new(joined.node))),
            false => Ok(joined),
        }
    }

    fn binary(at: usize, operator: Operator, left: Operand, right: Operand) -> Result<Operand, ExpressionError> {
        let Some(kind) = operator.result(left.kind, right.kind) else {
            let (operator, left, right) = (operator.symbol(), left.kind, right.kind);
            return wrong(at, Problem::Operands { operator, left, right });
        };
        let depth = left.depth.max(right.depth);
        Self::around(at, depth, kind, Node::Binary(operator, Box::new([left.node, right.node])))
    }

    /// Any number of them stand side by side, so that many alternatives make no deep tree.
    fn logical(at: usize, is_and: bool, left: Operand, right: Operand) -> Result<Operand, ExpressionError> {
        if !left.kind.may_be(Type::Bool) || !right.kind.may_be(Type::Bool) {
            let operator = if is_and { "and" } else { "or" };
            return wrong(at, Problem::Operands { operator, left: left.kind, right: right.kind });
        }
        let (inner, mut operands) = match (is_and, left.node) {
            (true, Node::And(operands)) | (false, Node::Or(operands)) => (left.depth - 1, operands),
            (_, first) => (left.depth, vec![first]),
        };
        operands.push(right.node);
        let node = if is_and { Node::And(operands) } else { Node::Or(operands) };
        Self::around(at, inner.max(right.depth), Type::Bool, node)
    }

    /// `a < b`, and `a < b < c`, which is `a < b and b < c`.
    fn comparisons(
        &mut self,
        at: usize,
        left: Operand,
        operator: Operator,
        strength: u8,
    ) -> Result<Operand, ExpressionError> {
        let right = self.expression(strength + 1)?;
        let Some((Infix::Binary(next), _)) = Infix::of(self.peek()).filter(|(infix, _)| match infix {
            Infix::Binary(next) => next.is_order(),
            _ => false,
        }) else {
            return Self::binary(at, operator, left, right);
        };
        let Operand { at: right_at, depth, kind, node } = right;
        let shared = Arc::new(node);
        let of_both = || Operand { at: right_at, depth: depth + 1, kind, node: Node::Shared(shared.clone()) };
        let first = Self::binary(at, operator, left, of_both())?;
        let next_at = self.at();
        self.advance();
        let rest = self.nested(|parser| parser.comparisons(next_at, of_both(), next, strength))?;
        Self::logical(at, true, first, rest)
    }

    fn matches(&mut self, at: usize, left: Operand) -> Result<Operand, ExpressionError> {
        let pattern_at = self.at();
        let Kind::Text(pattern) = self.peek().clone() else { return wrong(pattern_at, Problem::PatternNotConstant) };
        self.advance();
        if !left.kind.may_be(Type::Text) {
            let (left, right) = (left.kind, Type::Text);
            return wrong(at, Problem::Operands { operator: "matches", left, right });
        }
        let compiled = self
            .patterns
            .compile(&pattern)
            .map_err(|error| ExpressionError { at: pattern_at, problem: Problem::Pattern(error) })?;
        Self::around(at, left.depth, Type::Bool, Node::Matches(Box::new(left.node), compiled))
    }

    /// `a ? b : c` and `a ?: b`
    fn conditional(&mut self, mut condition: Operand) -> Result<Operand, ExpressionError> {
        while self.is("?") {
            let at = self.at();
            self.advance();
            if self.is(":") {
                // `a ?: b` is `a ? a : b`.
                self.advance();
                let second = self.expression(0)?;
                condition = Self::binary_or_else(at, condition, second)?;
                continue;
            }
            let first = self.expression(0)?;
            self.expect(":", "`:` and what holds otherwise")?;
            let second = self.expression(0)?;
            Self::wants(&condition, Type::Bool, "what stands before `?`", "bool")?;
            let depth = condition.depth.max(first.depth).max(second.depth);
            let kind = first.kind.or(second.kind);
            let node = Node::Conditional(Box::new([condition.node, first.node, second.node]));
            condition = Self::around(at, depth, kind, node)?;
        }
        Ok(condition)
    }

    fn binary_or_else(at: usize, condition: Operand, second: Operand) -> Result<Operand, ExpressionError> {
        Self::wants(&condition, Type::Bool, "what stands before `?`", "bool")?;
        let depth = condition.depth.max(second.depth) + 1;
        let shared = Arc::new(condition.node);
        let same = || Node::Shared(shared.clone());
        let node = Node::Conditional(Box::new([same(), same(), second.node]));
        Self::around(at, depth, Type::Bool.or(second.kind), node)
    }

    fn wants(operand: &Operand, wanted: Type, what: &'static str, told: &'static str) -> Result<(), ExpressionError> {
        match operand.kind.may_be(wanted) {
            true => Ok(()),
            false => wrong(operand.at, Problem::WrongType { what, found: operand.kind, wanted: told }),
        }
    }
}
