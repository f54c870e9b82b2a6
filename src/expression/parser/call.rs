//! Calls of functions, and predicates asked of each element of a list.

use super::{Operand, Parser};
use crate::corefile::nearest;
use crate::expression::error::{ExpressionError, Problem, wrong};
use crate::expression::functions::{Builtin, LEFT_OUT, names};
use crate::expression::lexer::Kind;
use crate::expression::node::{Iteration, Node};
use crate::expression::types::{Element, Type};
use crate::expression::value::Value;

impl Parser<'_> {
    /// Expressions between commas, up to a bracket; a comma may stand after the last.
    pub(super) fn arguments(&mut self, end: &str, wanted: &'static str) -> Result<Vec<Operand>, ExpressionError> {
        let mut arguments = Vec::new();
        while !self.accept(end) {
            if !arguments.is_empty() {
                self.expect(",", wanted)?;
                if self.accept(end) {
                    break;
                }
            }
            arguments.push(self.expression(0)?);
        }
        Ok(arguments)
    }

    /// `VALUE | function(…)`
    pub(super) fn piped(&mut self, left: Operand) -> Result<Operand, ExpressionError> {
        let at = self.at();
        let Kind::Word(name) = self.peek().clone() else { return self.unexpected("a function") };
        self.advance();
        if !self.is("(") {
            return self.unexpected("`(`");
        }
        let called = self.call(at, &name, Some(left))?;
        self.postfix(called)
    }

    /// A call, from its opening parenthesis on; `first` is what a pipe gives.
    pub(super) fn call(&mut self, at: usize, name: &str, first: Option<Operand>) -> Result<Operand, ExpressionError> {
        self.advance();
        let own = self.functions.iter().position(|function| function.name == name);
        if own.is_none()
            && let Some((_, iteration)) = Iteration::NAMED.iter().find(|(known, _)| *known == name)
        {
            return self.each(at, name, *iteration, first);
        }
        let mut arguments: Vec<Operand> = first.into_iter().collect();
        arguments.extend(self.arguments(")", "`,` or `)`")?);
        let depth = arguments.iter().map(|argument| argument.depth).max().unwrap_or_default();
        let kinds: Vec<Type> = arguments.iter().map(|argument| argument.kind).collect();
        let nodes: Vec<Node> = arguments.into_iter().map(|argument| argument.node).collect();
        if let Some(function) = own {
            return self.own_call(at, function, &kinds, depth, nodes);
        }
        let Some(builtin) = Builtin::named(name) else {
            if LEFT_OUT.contains(&name) {
                return wrong(at, Problem::NotHere(format!("`{name}`")));
            }
            let own = self.functions.iter().map(|function| function.name);
            let predicates = Iteration::NAMED.iter().map(|(known, _)| *known);
            let nearest = nearest(name, own.chain(names()).chain(predicates)).map(ToOwned::to_owned);
            return wrong(at, Problem::UnknownFunction { name: name.to_owned(), nearest });
        };
        let kind = builtin.result(&kinds).map_err(|usage| {
            let function = name.to_owned();
            ExpressionError { at, problem: Problem::Arguments { function, usage: format!("`{usage}`") } }
        })?;
        Self::around(at, depth, kind, Node::Call(builtin, nodes))
    }

    /// A call of a function of the environment.
    pub(super) fn own_call(
        &mut self,
        at: usize,
        place: usize,
        kinds: &[Type],
        depth: usize,
        nodes: Vec<Node>,
    ) -> Result<Operand, ExpressionError> {
        let Some(function) = self.functions.get(place) else { return self.unexpected("a function") };
        let are_taken = kinds.len() == function.parameters.len()
            && kinds.iter().zip(function.parameters).all(|(found, wanted)| found.may_be(*wanted));
        if !are_taken {
            let parameters: Vec<String> = function.parameters.iter().map(ToString::to_string).collect();
            let usage = format!("`{}({})`", function.name, parameters.join(", "));
            return wrong(at, Problem::Arguments { function: function.name.to_owned(), usage });
        }
        let constants: Vec<Option<&Value<'static>>> = nodes
            .iter()
            .map(|node| match node {
                Node::Constant(value) => Some(value),
                _ => None,
            })
            .collect();
        let prepared = function
            .prepare
            .map_or(Ok(None), |prepare| prepare(&constants))
            .map_err(|why| ExpressionError { at, problem: Problem::Argument { function: function.name, why } })?;
        if !self.called.contains(&place) {
            self.called.push(place);
        }
        let node = Node::Environment { function: place, prepared, arguments: nodes };
        Self::around(at, depth, function.returns, node)
    }

    /// `any(LIST, PREDICATE)` and the like, from the list on.
    pub(super) fn each(
        &mut self,
        at: usize,
        name: &str,
        iteration: Iteration,
        first: Option<Operand>,
    ) -> Result<Operand, ExpressionError> {
        let is_optional = matches!(iteration, Iteration::Count | Iteration::Sum);
        let is_piped = first.is_some();
        let list = match first {
            Some(list) => list,
            None => self.expression(0)?,
        };
        Self::wants(&list, Type::List(Element::Any), "what a predicate is asked about", "an array")?;
        let usage = || Problem::Arguments {
            function: name.to_owned(),
            usage: format!("`{name}(array, predicate)`, such as `{name}(['a', 'b'], # == 'a')`"),
        };
        let has_predicate = !self.is(")") && (is_piped || self.accept(",")) && !self.is(")");
        if !has_predicate && !is_optional {
            return wrong(self.at(), usage());
        }
        let predicate = has_predicate.then(|| self.predicate(list.kind.element())).transpose()?;
        self.accept(",");
        self.expect(")", "`)`")?;
        let answer = predicate.as_ref().map_or(list.kind.element(), |predicate| predicate.kind);
        if !iteration.takes_value() && !answer.may_be(Type::Bool) {
            let found = answer;
            return wrong(at, Problem::WrongType { what: "what the predicate says", found, wanted: "bool" });
        }
        let kind = match iteration {
            Iteration::All | Iteration::None | Iteration::Any | Iteration::One => Type::Bool,
            Iteration::Filter => list.kind,
            Iteration::Map => answer.list(),
            Iteration::Count => Type::Int,
            Iteration::Sum if answer.is_number() => answer,
            Iteration::Sum if answer == Type::Any => Type::Any,
            Iteration::Sum => {
                return wrong(at, Problem::WrongType { what: "what is summed", found: answer, wanted: "a number" });
            }
            // nil, if there is none.
            Iteration::Find | Iteration::FindIndex | Iteration::FindLast | Iteration::FindLastIndex => Type::Any,
        };
        let depth = predicate.as_ref().map_or(0, |predicate| predicate.depth).max(list.depth);
        let predicate = predicate.map(|predicate| Box::new(predicate.node));
        Self::around(at, depth, kind, Node::Each(iteration, Box::new(list.node), predicate))
    }

    /// What is asked of each element, with or without braces.
    pub(super) fn predicate(&mut self, element: Type) -> Result<Operand, ExpressionError> {
        let is_braced = self.accept("{");
        self.elements.push((self.height, element));
        self.height += 2;
        let read = if is_braced { self.nested(Self::sequence) } else { self.expression(0) };
        self.height -= 2;
        self.elements.pop();
        let read = read?;
        if is_braced {
            self.expect("}", "`}`")?;
        }
        Ok(read)
    }
}
