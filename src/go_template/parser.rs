//! Parses the tokens of a template into a tree.

use super::error::{Problem, TemplateError, wrong};
use super::functions::{NAMES, TemplateFunction};
use super::lexer::{TemplateToken, TemplateTokenKind, clip, lex};
use super::tree::{Branch, Operand, OperandKind, Pipe, TemplateCommand, TemplateNode};
use super::value::Value;
use super::{TEMPLATE_OCTETS, Template, number};
use std::collections::HashMap;
use std::sync::Arc;

/// Blocks and parentheses within each other: the tree is walked by recursion.
const DEPTH: usize = 120;

pub(super) fn parse(text: &str) -> Result<Template, TemplateError> {
    if text.len() > TEMPLATE_OCTETS {
        return wrong(0, Problem::TooLong(text.len()));
    }
    let tokens = lex(text)?;
    let mut parser = TemplateParser {
        tokens: &tokens,
        next: 0,
        variables: vec!["$".into()],
        named: HashMap::new(),
        depth: 0,
        loops: 0,
        definitions: 0,
        uses_dot: false,
        dot_is_root: true,
        fields: Vec::new(),
    };
    let (root, end) = parser.list()?;
    let Ending::Text = end else { return parser.unexpected_ending(end) };
    Ok(Template { root, named: parser.named, uses_dot: parser.uses_dot, fields: parser.fields })
}

/// What ended a list of nodes. Octets before it.
enum Ending {
    /// The end of the template.
    Text,
    End(usize),
    /// The action of `else` is open.
    Else(usize),
}

struct TemplateParser<'t> {
    tokens: &'t [TemplateToken],
    next: usize,
    /// Those declared here.
    variables: Vec<Arc<str>>,
    named: HashMap<Box<str>, Vec<TemplateNode>>,
    depth: usize,
    /// `range` around here.
    loops: usize,
    /// `define` and `block` around here.
    definitions: usize,
    /// See [`Template`].
    uses_dot: bool,
    /// The dot is the data here, and not what `with` or `range` made it.
    dot_is_root: bool,
    fields: Vec<(usize, String)>,
}

impl TemplateParser<'_> {
    fn peek(&self) -> &TemplateToken {
        // The last is the end, which is never passed.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }
    fn take(&mut self) -> &TemplateToken {
        let index = self.next.min(self.tokens.len() - 1);
        self.next += 1;
        &self.tokens[index]
    }
    fn unexpected<T>(&self, wanted: &'static str) -> Result<T, TemplateError> {
        let token = self.peek();
        let found = match &token.kind {
            TemplateTokenKind::Text(_) | TemplateTokenKind::End => "the end of the action".to_owned(),
            TemplateTokenKind::Open => "`{{`".to_owned(),
            TemplateTokenKind::Close => "`}}`".to_owned(),
            TemplateTokenKind::Word(word) => format!("`{}`", clip(word)),
            TemplateTokenKind::Field(name) => format!("`.{}`", clip(name)),
            TemplateTokenKind::Dot => "`.`".to_owned(),
            TemplateTokenKind::Variable(name) => format!("`{}`", clip(name)),
            TemplateTokenKind::Number(number) => format!("`{}`", clip(number)),
            TemplateTokenKind::Character(character) => format!("`'{character}'`"),
            TemplateTokenKind::Quoted(text) => format!("the text {:?}", clip(text)),
            TemplateTokenKind::Declare => "`:=`".to_owned(),
            TemplateTokenKind::Assign => "`=`".to_owned(),
            TemplateTokenKind::Comma => "`,`".to_owned(),
            TemplateTokenKind::Pipe => "`|`".to_owned(),
            TemplateTokenKind::OpenParenthesis => "`(`".to_owned(),
            TemplateTokenKind::CloseParenthesis => "`)`".to_owned(),
        };
        wrong(token.at, Problem::Unexpected { found, wanted })
    }
    fn unexpected_ending<T>(&self, ending: Ending) -> Result<T, TemplateError> {
        match ending {
            Ending::Text => wrong(self.peek().at, Problem::Unclosed("if, with, range, define or block", "{{ end }}")),
            Ending::End(at) => wrong(at, Problem::Unexpected { found: "`end`".to_owned(), wanted: "something to end" }),
            Ending::Else(at) => wrong(
                at,
                Problem::Unexpected { found: "`else`".to_owned(), wanted: "`if`, `with` or `range` before it" },
            ),
        }
    }
    fn close(&mut self) -> Result<(), TemplateError> {
        match self.peek().kind {
            TemplateTokenKind::Close => {
                self.take();
                Ok(())
            }
            _ => self.unexpected("`}}`"),
        }
    }
    /// The word that comes next, if one does.
    fn word(&self) -> Option<&str> {
        match &self.peek().kind {
            TemplateTokenKind::Word(word) => Some(word),
            _ => None,
        }
    }
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, TemplateError>) -> Result<T, TemplateError> {
        if self.depth == DEPTH {
            return wrong(self.peek().at, Problem::TooDeep);
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    /// Nodes up to `end`, `else` or the end of the template.
    fn list(&mut self) -> Result<(Vec<TemplateNode>, Ending), TemplateError> {
        self.deeper(|parser| {
            let mut nodes = Vec::new();
            loop {
                let at = parser.peek().at;
                match parser.take().kind.clone() {
                    TemplateTokenKind::Text(text) => nodes.push(TemplateNode::Text(text.into())),
                    TemplateTokenKind::End => return Ok((nodes, Ending::Text)),
                    // The lexer makes nothing else outside of actions.
                    _ => match parser.word() {
                        Some("end") => {
                            parser.take();
                            parser.close()?;
                            return Ok((nodes, Ending::End(at)));
                        }
                        Some("else") => {
                            parser.take();
                            return Ok((nodes, Ending::Else(at)));
                        }
                        _ => nodes.extend(parser.action()?),
                    },
                }
            }
        })
    }

    /// What stands after `{{`. A definition is no node.
    fn action(&mut self) -> Result<Option<TemplateNode>, TemplateError> {
        let at = self.peek().at;
        let keyword = self.word().unwrap_or_default().to_owned();
        match keyword.as_str() {
            "if" | "with" | "range" => {
                self.take();
                self.branch(&keyword).map(Some)
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    let found = format!("`{keyword}`");
                    return wrong(at, Problem::Unexpected { found, wanted: "`range` around it" });
                }
                self.take();
                self.close()?;
                Ok(Some(if keyword == "break" { TemplateNode::Break } else { TemplateNode::Continue }))
            }
            "template" => {
                self.take();
                let name = self.template_name()?;
                let argument = self.optional_pipe()?;
                self.close()?;
                Ok(Some(TemplateNode::Template { at, name, argument }))
            }
            "define" => {
                self.take();
                let name = self.template_name()?;
                self.close()?;
                self.definition(at, name)?;
                Ok(None)
            }
            "block" => {
                self.take();
                let name = self.template_name()?;
                let argument = Some(self.pipe(Ends::Action, false)?);
                self.close()?;
                self.definition(at, name.clone())?;
                Ok(Some(TemplateNode::Template { at, name, argument }))
            }
            _ => {
                let pipe = self.pipe(Ends::Action, false)?;
                self.close()?;
                Ok(Some(TemplateNode::Action(pipe)))
            }
        }
    }

    fn optional_pipe(&mut self) -> Result<Option<Pipe>, TemplateError> {
        if self.peek().kind == TemplateTokenKind::Close { Ok(None) } else { self.pipe(Ends::Action, false).map(Some) }
    }

    fn template_name(&mut self) -> Result<Box<str>, TemplateError> {
        match self.peek().kind.clone() {
            TemplateTokenKind::Quoted(name) => {
                self.take();
                Ok(name.into())
            }
            _ => self.unexpected("the name of a template in quotes"),
        }
    }

    /// The rest of `define` or `block`. It sees no variables of here, and its dot is what it is called with.
    fn definition(&mut self, at: usize, name: Box<str>) -> Result<(), TemplateError> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let loops = std::mem::take(&mut self.loops);
        let is_root = std::mem::replace(&mut self.dot_is_root, false);
        self.definitions += 1;
        let list = self.list();
        self.definitions -= 1;
        (self.variables, self.loops, self.dot_is_root) = (variables, loops, is_root);
        let (nodes, ending) = list?;
        let Ending::End(_) = ending else { return self.unexpected_ending(ending) };
        // An empty one is replaced, as in Go.
        let is_empty = |nodes: &[TemplateNode]| {
            nodes.iter().all(|node| matches!(node, TemplateNode::Text(text) if text.trim().is_empty()))
        };
        match self.named.get(&name) {
            Some(other) if !is_empty(other) && !is_empty(&nodes) => wrong(at, Problem::DefinedTwice(clip(&name))),
            Some(other) if !is_empty(other) => Ok(()),
            _ => {
                self.named.insert(name, nodes);
                Ok(())
            }
        }
    }

    /// The rest of `if`, `with` or `range`.
    fn branch(&mut self, keyword: &str) -> Result<TemplateNode, TemplateError> {
        self.deeper(|parser| {
            let variables = parser.variables.len();
            let is_root = parser.dot_is_root;
            let pipe = parser.pipe(Ends::Action, keyword == "range")?;
            parser.close()?;
            parser.loops += usize::from(keyword == "range");
            parser.dot_is_root &= keyword == "if";
            let then = parser.list();
            parser.loops -= usize::from(keyword == "range");
            parser.dot_is_root = is_root;
            let (then, ending) = then?;
            let otherwise = match ending {
                Ending::End(_) => Vec::new(),
                Ending::Text => return parser.unexpected_ending(Ending::Text),
                // `else if` is an `if` within the `else`, and both end at once.
                Ending::Else(_) if parser.word() == Some(keyword) && keyword != "range" => {
                    parser.take();
                    vec![parser.branch(keyword)?]
                }
                Ending::Else(_) => {
                    parser.close()?;
                    let (nodes, Ending::End(_)) = parser.list()? else {
                        return parser.unexpected("`{{ end }}`");
                    };
                    nodes
                }
            };
            parser.variables.truncate(variables);
            let branch = Branch { pipe, then, otherwise };
            Ok(match keyword {
                "if" => TemplateNode::If(branch),
                "with" => TemplateNode::With(branch),
                _ => TemplateNode::Range(branch),
            })
        })
    }

    fn pipe(&mut self, ends: Ends, may_have_two: bool) -> Result<Pipe, TemplateError> {
        self.deeper(|parser| {
            let (declared, assigns) = parser.declaration(may_have_two)?;
            let mut commands = Vec::new();
            loop {
                let at = parser.peek().at;
                let command = parser.command()?;
                // What a later command is given goes to its function or method.
                let takes = matches!(
                    command.head.kind,
                    OperandKind::Function(_) | OperandKind::Fields(_) | OperandKind::Chain(..)
                ) || matches!(&command.head.kind, OperandKind::Variable(_, fields) if !fields.is_empty());
                if !commands.is_empty() && !takes {
                    let found = "a value".to_owned();
                    return wrong(at, Problem::Unexpected { found, wanted: "a function or method after `|`" });
                }
                commands.push(command);
                match (&parser.peek().kind, &ends) {
                    (TemplateTokenKind::Pipe, _) => _ = parser.take(),
                    (TemplateTokenKind::Close, Ends::Action)
                    | (TemplateTokenKind::CloseParenthesis, Ends::Parenthesis) => break,
                    _ => return parser.unexpected("`|`, or the end of the pipeline"),
                }
            }
            if !assigns {
                parser.variables.extend(declared.iter().cloned());
            }
            Ok(Pipe { variables: declared, assigns, commands })
        })
    }

    /// `$x :=`, `$x =`, or `$i, $x :=`, if one stands here: the variables, and whether they were there before.
    fn declaration(&mut self, may_have_two: bool) -> Result<(Vec<Arc<str>>, bool), TemplateError> {
        let name = |token: Option<&TemplateToken>| match token.map(|token| &token.kind) {
            Some(TemplateTokenKind::Variable(name)) => Some(name.clone()),
            _ => None,
        };
        let Some(first) = name(self.tokens.get(self.next)) else { return Ok((Vec::new(), false)) };
        let mut names = vec![first];
        let mut after = self.next + 1;
        if matches!(self.tokens.get(after).map(|token| &token.kind), Some(TemplateTokenKind::Comma)) {
            let Some(second) = name(self.tokens.get(after + 1)).filter(|_| may_have_two) else {
                self.next = after;
                return self.unexpected("`:=`; two variables have a place with `range` alone");
            };
            names.push(second);
            after += 2;
        }
        let assigns = match self.tokens.get(after).map(|token| &token.kind) {
            Some(TemplateTokenKind::Declare) => false,
            Some(TemplateTokenKind::Assign) => true,
            _ if names.len() == 1 => return Ok((Vec::new(), false)),
            _ => {
                self.next = after;
                return self.unexpected("`:=`");
            }
        };
        if assigns {
            for name in &names {
                self.check_variable(self.peek().at, name)?;
            }
        }
        self.next = after + 1;
        Ok((names, assigns))
    }

    fn check_variable(&self, at: usize, name: &Arc<str>) -> Result<(), TemplateError> {
        if self.variables.contains(name) { Ok(()) } else { wrong(at, Problem::UnknownVariable(clip(name))) }
    }

    fn command(&mut self) -> Result<TemplateCommand, TemplateError> {
        let head = self.operand()?;
        let mut arguments = Vec::new();
        loop {
            let token = self.peek();
            match token.kind {
                TemplateTokenKind::Pipe | TemplateTokenKind::Close | TemplateTokenKind::CloseParenthesis => break,
                _ if token.is_apart => arguments.push(self.operand()?),
                _ => return self.unexpected("white space, `|`, or the end of the pipeline"),
            }
        }
        let at = head.at;
        let may_have = matches!(head.kind, OperandKind::Function(_) | OperandKind::Fields(_) | OperandKind::Chain(..))
            || matches!(&head.kind, OperandKind::Variable(_, fields) if !fields.is_empty());
        match head.kind {
            OperandKind::Nil => {
                wrong(at, Problem::Unexpected { found: "`nil`".to_owned(), wanted: "a value, or a function" })
            }
            _ if !may_have && !arguments.is_empty() => {
                let at = arguments.first().map_or(at, |argument: &Operand| argument.at);
                wrong(
                    at,
                    Problem::Unexpected {
                        found: "an argument".to_owned(),
                        wanted: "`|` or the end, after what is no function,",
                    },
                )
            }
            _ => Ok(TemplateCommand { head, arguments }),
        }
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let token = self.peek().clone();
        let at = token.at;
        let kind = match token.kind {
            TemplateTokenKind::Dot => {
                self.uses_dot = true;
                OperandKind::Dot
            }
            TemplateTokenKind::Field(name) => {
                match self.dot_is_root {
                    true => self.fields.push((at, name.to_string())),
                    false => self.uses_dot = true,
                }
                self.take();
                return Ok(Operand { at, kind: OperandKind::Fields(self.fields_after(vec![name])) });
            }
            TemplateTokenKind::Variable(name) => {
                self.check_variable(at, &name)?;
                self.take();
                let fields = self.fields_after(Vec::new());
                if &*name == "$" {
                    match fields.first() {
                        // In a definition it is what that is called with.
                        Some(field) if self.definitions == 0 => self.fields.push((at, field.to_string())),
                        _ => self.uses_dot = true,
                    }
                }
                return Ok(Operand { at, kind: OperandKind::Variable(name, fields) });
            }
            TemplateTokenKind::Word(word) => match word.as_str() {
                "true" => OperandKind::Constant(Value::Bool(true)),
                "false" => OperandKind::Constant(Value::Bool(false)),
                "nil" => OperandKind::Nil,
                _ => match TemplateFunction::find(&word) {
                    Some(function) => OperandKind::Function(function),
                    None => return wrong(at, Problem::UnknownFunction { name: clip(&word), known: NAMES }),
                },
            },
            TemplateTokenKind::Number(text) => match number::constant(&text) {
                Some(value) => OperandKind::Constant(value),
                None => return wrong(at, Problem::Number(clip(&text))),
            },
            TemplateTokenKind::Character(character) => OperandKind::Constant(Value::Int(u32::from(character).into())),
            TemplateTokenKind::Quoted(text) => OperandKind::Constant(Value::text(text)),
            TemplateTokenKind::OpenParenthesis => {
                self.take();
                let pipe = self.pipe(Ends::Parenthesis, false)?;
                OperandKind::Pipe(Box::new(pipe))
            }
            _ => return self.unexpected("a value"),
        };
        self.take();
        let operand = Operand { at, kind };
        let is_field = |token: &TemplateToken| matches!(token.kind, TemplateTokenKind::Field(_)) && !token.is_apart;
        if !is_field(self.peek()) {
            return Ok(operand);
        }
        match operand.kind {
            OperandKind::Pipe(_) => {
                let fields = self.fields_after(Vec::new());
                Ok(Operand { at, kind: OperandKind::Chain(Box::new(operand), fields) })
            }
            _ => self.unexpected("white space after a value that has no fields"),
        }
    }

    /// The fields that follow without white space, after those that were read.
    fn fields_after(&mut self, mut fields: Vec<Arc<str>>) -> Vec<Arc<str>> {
        while let TemplateTokenKind::Field(name) = &self.peek().kind
            && !self.peek().is_apart
        {
            fields.push(name.clone());
            self.take();
        }
        fields
    }
}

/// What ends a pipeline.
enum Ends {
    Action,
    Parenthesis,
}
