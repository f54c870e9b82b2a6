//! The imports of a source file, read off its tokens.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::path::{Path, PathBuf};

/// A path from the crate's root, and its line.
pub struct Import {
    pub path: Vec<String>,
    pub line: usize,
    /// It stands in a module `tests` within the file.
    pub in_tests: bool,
}

/// Every import of `source`, standing in `file` below src.
pub fn imports(file: &Path, source: &str) -> Vec<Import> {
    let tokens: TokenStream = source.parse().unwrap_or_else(|e| panic!("src/{}: {e}", file.display()));
    let mut imports = Vec::new();
    collect(tokens, &module_path(file), false, &mut imports);
    imports
}

/// Every `crate::…` and `super::…` of `tokens`, which stand in `module`.
fn collect(tokens: TokenStream, module: &[String], in_tests: bool, imports: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let inner = index.checked_sub(2).and_then(|start| inline_module(&tokens[start..index]));
                let in_tests = in_tests || inner.as_deref() == Some("tests");
                let module: Vec<String> = module.iter().cloned().chain(inner).collect();
                collect(group.stream(), &module, in_tests, imports);
            }
            TokenTree::Ident(_) if is_word(token, "crate") || is_word(token, "super") => {
                let mut base = if is_word(token, "crate") { &[][..] } else { parent(module) };
                index += 1;
                while separator(&tokens[index..]) && tokens.get(index + 2).is_some_and(|next| is_word(next, "super")) {
                    base = parent(base);
                    index += 3;
                }
                let mut paths = Vec::new();
                expand(&tokens[index..], base.to_vec(), &mut paths);
                imports.extend(paths.into_iter().map(|path| Import { path, line, in_tests }));
                continue;
            }
            _ => {}
        }
        index += 1;
    }
}

/// Paths that go on with `::name`, `::{a, b::c}` or neither from `path`.
fn expand(tokens: &[TokenTree], mut path: Vec<String>, paths: &mut Vec<Vec<String>>) {
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
                    expand(&element[1..], path.iter().cloned().chain(own).collect(), paths);
                }
                return;
            }
            _ => break,
        }
        rest = &rest[3..];
    }
    paths.push(path);
}

/// What a file re-exports of its own submodules: the name and the submodule's path below it.
pub fn reexports(source: &str) -> Vec<(String, Vec<String>)> {
    let tokens: Vec<TokenTree> = source.parse::<TokenStream>().expect("it was read before").into_iter().collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let Some(TokenTree::Ident(first)) = tokens.get(index + 1).filter(|_| is_word(token, "use")) else { continue };
        let mut paths = Vec::new();
        expand(&tokens[index + 2..], vec![first.to_string()], &mut paths);
        found.extend(paths.into_iter().filter_map(|mut path| Some((path.pop()?, path))));
    }
    found
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
pub fn module_path(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || parts == ["lib"]) {
        parts.pop();
    }
    parts
}

pub fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below src.
pub fn source_files() -> Vec<PathBuf> {
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
    assert!(files.len() > 100, "src was not found");
    files
}
