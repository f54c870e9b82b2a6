//! Imports go one way: a layer knows those before it in the list below, never one after it, and a directive's room never another's.
//! Read off the tokens of src/**.rs, so that macros count and comments and strings do not.

use nodelocaldns::directives::ORDER;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::path::{Path, PathBuf};

/// The layers, each of which may import those before it. `main` is the binary, which sees the library from outside.
const LAYERS: &[&str] = &[
    "message",
    "corefile",
    "metrics",
    "platform",
    "datagrams",
    "threads",
    "deadline",
    "backoff",
    "net",
    "fairness",
    "sandbox",
    "chain",
    "directives",
    "plan",
    "server",
    "node",
    "kube_dns",
    "watchdog",
    "doctor",
    "cli",
    "app",
    "main",
];

#[test]
fn every_import_goes_up_the_list_of_layers() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let source = std::fs::read_to_string(source_root().join(&file)).expect("a source file can be read");
        wrong.extend(violations(&file, &source));
    }
    assert!(wrong.is_empty(), "imports against the order (tests/import_order.rs has it):\n{}", wrong.join("\n"));
}

#[test]
fn every_top_level_module_is_a_layer() {
    for file in source_files() {
        let module = module_path(&file);
        let known = module.first().is_none_or(|layer| LAYERS.contains(&layer.as_str()));
        assert!(known, "src/{}: its top-level module has no place in LAYERS of tests/import_order.rs", file.display());
    }
}

#[test]
fn an_import_of_a_later_layer_is_found_in_every_form() {
    let wrong = [
        "use crate::plan::Plan;",
        "pub use crate::server;",
        "use crate::{message::Name, plan::{self}};",
        "use crate::{message::{Name, Query}, app};",
        "use super::plan::Plan;",
        "use super::{server, message};",
        "mod tests { use super::super::plan::Plan; }",
        "mod tests { mod deeper { use super::super::super::{plan}; } }",
        "fn f() -> crate::plan::Plan { todo!() }",
        "fn f() { println!(\"{}\", crate::app::NAME); }",
        "macro_rules! m { () => { $crate::server::serve() } }",
        "use crate::r#plan::Plan;",
        "use crate::plan as p;",
    ];
    for source in wrong {
        assert_eq!(violations(Path::new("corefile.rs"), source).len(), 1, "{source}");
        assert_eq!(violations(Path::new("corefile/mod.rs"), source).len(), 1, "{source} in mod.rs");
    }
    assert_eq!(violations(Path::new("corefile/tree.rs"), "use super::super::plan::Plan;").len(), 1);
    assert_eq!(violations(Path::new("message/mod.rs"), "use crate::{corefile, metrics};").len(), 2);
    assert_eq!(violations(Path::new("message/mod.rs"), "use crate::nowhere::X;").len(), 1, "a module without a place");
}

#[test]
fn an_import_of_an_earlier_layer_is_allowed_and_text_is_no_import() {
    let right = [
        "use crate::message::Name; use crate::{corefile::Token, message};",
        "use super::message::Name;",
        "use self::tree::Token; use super::corefile::tree;",
        "mod tests { use super::*; use super::super::message; }",
        "/// See [`crate::app`].\n// use crate::app;\nconst A: &str = \"crate::app\";",
        "use std::{fmt, io}; use other::crate_plan::X;",
    ];
    for source in right {
        assert_eq!(violations(Path::new("corefile.rs"), source), Vec::<String>::new(), "{source}");
    }
    assert_eq!(violations(Path::new("main.rs"), "use nodelocaldns::app;"), Vec::<String>::new());
    assert_eq!(violations(Path::new("lib.rs"), "pub mod message; pub mod app;"), Vec::<String>::new());
}

#[test]
fn a_directive_that_imports_a_sibling_is_found() {
    let room = Path::new("directives/cache/store.rs");
    assert_eq!(violations(room, "use crate::directives::forward::Upstream;").len(), 1);
    assert_eq!(violations(room, "use crate::directives::{r#loop, cache};").len(), 1);
    assert_eq!(violations(room, "use super::super::forward::Upstream;").len(), 1);
    assert_eq!(violations(Path::new("directives/cache/mod.rs"), "use super::{forward, log};").len(), 2);
    assert_eq!(violations(Path::new("directives/lines.rs"), "use super::log::Format;").len(), 1, "nor does a shared part");
    assert_eq!(violations(room, "use super::entry::Entry; use crate::directives::cache::Entry;"), Vec::<String>::new());
    assert_eq!(
        violations(Path::new("directives/mod.rs"), "use self::cache::parse; use crate::directives::log;"),
        Vec::<String>::new()
    );
}

/// One line for each import of `source`, standing in `file` below src, that goes against the order.
fn violations(file: &Path, source: &str) -> Vec<String> {
    let tokens: TokenStream = source.parse().unwrap_or_else(|e| panic!("src/{}: {e}", file.display()));
    let module = module_path(file);
    let mut imports = Vec::new();
    collect(tokens, &module, &mut imports);
    let told = imports.iter().filter_map(|import| {
        let why = objection(&module, &import.path)?;
        Some(format!("src/{}:{}: {} {why}", file.display(), import.line, import.path.join("::")))
    });
    told.collect()
}

/// What is wrong with `module` importing `path`, if anything.
fn objection(module: &[String], path: &[String]) -> Option<String> {
    let (own, wanted) = (module.first()?, path.first()?);
    let place = |layer: &String| LAYERS.iter().position(|known| known == layer);
    let Some(wanted_place) = place(wanted) else { return Some("is no layer: give it a place in LAYERS".to_owned()) };
    if place(own).is_some_and(|own_place| wanted_place > own_place) {
        return Some(format!("comes after {own}"));
    }
    let room = |path: &[String]| path.get(1).filter(|_| path.first().is_some_and(|layer| layer == "directives")).cloned();
    let (own_room, wanted_room) = (room(module)?, room(path)?);
    let is_keyword = ORDER.iter().any(|keyword| keyword.name == wanted_room);
    (is_keyword && own_room != wanted_room).then(|| format!("is another directive's room, seen from {own_room}"))
}

/// A path from the crate's root, and its line.
struct Import {
    path: Vec<String>,
    line: usize,
}

/// Every `crate::…` and `super::…` of `tokens`, which stand in `module`.
fn collect(tokens: TokenStream, module: &[String], imports: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let inner = index.checked_sub(2).and_then(|start| inline_module(&tokens[start..index]));
                let module: Vec<String> = module.iter().cloned().chain(inner).collect();
                collect(group.stream(), &module, imports);
            }
            TokenTree::Ident(_) if is_word(token, "crate") || is_word(token, "super") => {
                let mut base = if is_word(token, "crate") { &[][..] } else { parent(module) };
                index += 1;
                while separator(&tokens[index..]) && tokens.get(index + 2).is_some_and(|next| is_word(next, "super")) {
                    base = parent(base);
                    index += 3;
                }
                expand(&tokens[index..], base.to_vec(), line, imports);
                continue;
            }
            _ => {}
        }
        index += 1;
    }
}

/// Paths that go on with `::name`, `::{a, b::c}` or neither from `path`.
fn expand(tokens: &[TokenTree], mut path: Vec<String>, line: usize, imports: &mut Vec<Import>) {
    let mut rest = tokens;
    while separator(rest) {
        match rest.get(2) {
            Some(TokenTree::Ident(ident)) => path.push(ident.to_string().trim_start_matches("r#").to_owned()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for element in inner.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
                    let Some(first @ TokenTree::Ident(ident)) = element.first() else { continue };
                    let name = ident.to_string().trim_start_matches("r#").to_owned();
                    let own = if is_word(first, "self") { None } else { Some(name) };
                    expand(&element[1..], path.iter().cloned().chain(own).collect(), line, imports);
                }
                return;
            }
            _ => break,
        }
        rest = &rest[3..];
    }
    imports.push(Import { path, line });
}

fn separator(tokens: &[TokenTree]) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(tokens.first()) && colon(tokens.get(1))
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn parent(module: &[String]) -> &[String] {
    module.split_last().map_or(&[], |(_, above)| above)
}

/// The name in `mod name`, the two tokens before a block.
fn inline_module(tokens: &[TokenTree]) -> Option<String> {
    match tokens {
        [keyword, TokenTree::Ident(name)] if is_word(keyword, "mod") => Some(name.to_string()),
        _ => None,
    }
}

/// `corefile/tree.rs` is `corefile::tree`, `corefile/mod.rs` is `corefile`, `lib.rs` the root.
fn module_path(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || parts == ["lib"]) {
        parts.pop();
    }
    parts
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below src.
fn source_files() -> Vec<PathBuf> {
    let mut folders = vec![source_root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(source_root()).expect("it was found below src").to_owned());
            }
        }
    }
    assert!(files.len() > LAYERS.len(), "src was not found");
    files
}
