//! A template as a tree. Every `at` is the octets of the template before it.

use super::functions::TemplateFunction;
use super::value::Value;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) enum TemplateNode {
    Text(Box<str>),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { at: usize, name: Box<str>, argument: Option<Pipe> },
    Break,
    Continue,
}

/// `if`, `with` or `range`.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub pipe: Pipe,
    pub then: Vec<TemplateNode>,
    pub otherwise: Vec<TemplateNode>,
}

#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// Variables that get the value; two only with `range`.
    pub variables: Vec<Arc<str>>,
    /// They were there before: `=`, not `:=`.
    pub assigns: bool,
    pub commands: Vec<TemplateCommand>,
}

/// An operand, with arguments if it is a function or method.
#[derive(Clone, Debug)]
pub(super) struct TemplateCommand {
    pub head: Operand,
    pub arguments: Vec<Operand>,
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub at: usize,
    pub kind: OperandKind,
}

#[derive(Clone, Debug)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    Constant(Value),
    Function(TemplateFunction),
    /// `.A.B`
    Fields(Vec<Arc<str>>),
    /// `$x.A.B`
    Variable(Arc<str>, Vec<Arc<str>>),
    Pipe(Box<Pipe>),
    /// `(…).A.B`
    Chain(Box<Operand>, Vec<Arc<str>>),
}
