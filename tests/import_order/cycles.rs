//! No two files import each other, not even by way of others: a file can be read once those below it are known.
//! A folder's `mod.rs` and what is in the folder are one, so what counts is what leads from one part of a folder to
//! another. Tests do not count.

use crate::imports::{imports, module_path, reexports, source_files, source_root};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_files_import_each_other() {
    let files: Vec<(PathBuf, String)> = source_files()
        .into_iter()
        .filter(|file| !module_path(file).iter().any(|part| ["tests", "testing", "fixtures"].contains(&part.as_str())))
        .map(|file| {
            (file.clone(), std::fs::read_to_string(source_root().join(file)).expect("a source file can be read"))
        })
        .collect();
    let found = cycles(&graph(&files));
    let lines: Vec<String> = found.iter().map(|cycle| cycle.join(" → ")).collect();
    assert!(found.is_empty(), "files that import each other:\n{}", lines.join("\n"));
}

#[test]
fn a_cycle_is_found_also_by_way_of_a_reexport_or_a_third_file() {
    let of = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(file, source)| (PathBuf::from(file), (*source).to_owned())).collect();
        cycles(&graph(&files)).len()
    };
    let folder = ("x/mod.rs", "mod a; mod b; mod c; pub use a::A; use b::B;");
    assert_eq!(of(&[folder, ("x/a.rs", "use super::b::B;"), ("x/b.rs", "use crate::x::c::C;"), ("x/c.rs", "")]), 0);
    assert_eq!(of(&[folder, ("x/a.rs", "use super::b::B;"), ("x/b.rs", "use super::a::A;")]), 1);
    assert_eq!(of(&[folder, ("x/a.rs", "use super::b::B;"), ("x/b.rs", "use super::A;")]), 1, "by a re-export");
    assert_eq!(of(&[folder, ("x/a.rs", "use super::b;"), ("x/b.rs", "use super::c;"), ("x/c.rs", "use super::a;")]), 1);
    assert_eq!(of(&[folder, ("x/a.rs", "use super::Plain;"), ("x/b.rs", "mod tests { use super::super::a::A; }")]), 0);
    let inner = ("x/a/mod.rs", "mod part; use super::b::B;");
    assert_eq!(of(&[folder, inner, ("x/a/part.rs", ""), ("x/b.rs", "use super::a::part::P;")]), 1, "a folder is one");
}

/// Which parts of a folder import which of its other parts.
fn graph(files: &[(PathBuf, String)]) -> Graph {
    let modules: BTreeSet<Module> = files.iter().map(|(file, _)| module_path(file)).collect();
    let reexported: HashMap<Module, HashMap<String, Module>> = files
        .iter()
        .map(|(file, source)| {
            let module = module_path(file);
            let full = |path: Module| module.iter().cloned().chain(path).collect();
            let names = reexports(source).into_iter().map(|(name, path)| (name, full(path))).collect();
            (module, names)
        })
        .collect();
    let mut graph = Graph::new();
    for (file, source) in files {
        let module = module_path(file);
        for import in imports(file, source).into_iter().filter(|import| !import.in_tests) {
            let Some(wanted) = resolve(&import.path, &modules, &reexported) else { continue };
            // The parts in which the two stand below the folder that they share; none if one of them is that folder.
            let shared = module.iter().zip(&wanted).take_while(|(own, other)| own == other).count();
            if shared < module.len() && shared < wanted.len() {
                graph.entry(module[..=shared].to_vec()).or_default().insert(wanted[..=shared].to_vec());
            }
        }
    }
    graph
}

/// The file that has what a path names.
fn resolve(
    path: &[String],
    modules: &BTreeSet<Module>,
    reexported: &HashMap<Module, HashMap<String, Module>>,
) -> Option<Module> {
    let length = (1..=path.len()).rev().find(|length| modules.contains(&path[..*length]))?;
    let module = path[..length].to_vec();
    match path.get(length).and_then(|name| reexported.get(&module)?.get(name)) {
        Some(deeper) if modules.contains(deeper) => Some(deeper.clone()),
        _ => Some(module),
    }
}

/// A way through the graph that leads back to where it began, for each part that has one and is the first on it.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let way_back = |start: &Module| {
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            for next in way.last().and_then(|last| graph.get(last)).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if next > start && seen.insert(next.clone()) {
                    ways.push(way.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        None
    };
    graph.keys().filter_map(way_back).map(|way| way.iter().map(|module| module.join("::")).collect()).collect()
}
