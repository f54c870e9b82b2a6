//! Imports go one way: a layer knows those before it in the list below, never one after it, and a directive's room
//! never another's. Read off the tokens of src/**.rs, so that macros count and comments and strings do not.

mod cycles;
mod imports;
mod widths;

use imports::{imports, module_path, source_files, source_root};
use nodelocaldns::directives::ORDER;
use std::path::Path;

/// The layers, each of which may import those before it. `main` is the binary, which sees the library from outside.
const LAYERS: &[&str] = &[
    // Of tests.
    "ports",
    "message",
    "corefile",
    "metrics",
    "platform",
    "datagrams",
    "threads",
    "deadline",
    "stack_sampling",
    "backoff",
    "go_regex",
    "go_template",
    "expression",
    "net",
    "fairness",
    "query_stats",
    "query_tap",
    "sandbox",
    "chain",
    "directives",
    "plan",
    "server",
    "admin",
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
    assert!(wrong.is_empty(), "imports against the order (tests/import_order has it):\n{}", wrong.join("\n"));
}

#[test]
fn every_top_level_module_is_a_layer() {
    for file in source_files() {
        let module = module_path(&file);
        let known = module.first().is_none_or(|layer| LAYERS.contains(&layer.as_str()));
        assert!(known, "src/{}: its top-level module has no place in LAYERS of tests/import_order", file.display());
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
    let room = Path::new("directives/cache/store/mod.rs");
    assert_eq!(violations(room, "use crate::directives::forward::Upstream;").len(), 1);
    assert_eq!(violations(room, "use crate::directives::{r#loop, cache};").len(), 1);
    assert_eq!(violations(room, "use super::super::forward::Upstream;").len(), 1);
    assert_eq!(violations(Path::new("directives/cache/mod.rs"), "use super::{forward, log};").len(), 2);
    assert_eq!(
        violations(Path::new("directives/lines.rs"), "use super::log::Format;").len(),
        1,
        "nor does a shared part"
    );
    assert_eq!(violations(room, "use super::entry::Entry; use crate::directives::cache::Entry;"), Vec::<String>::new());
    assert_eq!(
        violations(Path::new("directives/mod.rs"), "use self::cache::parse; use crate::directives::log;"),
        Vec::<String>::new()
    );
}

/// One line for each import of `source`, standing in `file` below src, that goes against the order.
fn violations(file: &Path, source: &str) -> Vec<String> {
    let module = module_path(file);
    let told = imports(file, source).into_iter().filter_map(|import| {
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
    let room =
        |path: &[String]| path.get(1).filter(|_| path.first().is_some_and(|layer| layer == "directives")).cloned();
    let (own_room, wanted_room) = (room(module)?, room(path)?);
    let is_keyword = ORDER.iter().any(|keyword| keyword.name == wanted_room);
    (is_keyword && own_room != wanted_room).then(|| format!("is another directive's room, seen from {own_room}"))
}
