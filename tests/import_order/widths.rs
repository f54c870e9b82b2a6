//! Lines within 120 columns, comments too. A string literal may be longer, since rustfmt leaves the line that has it as
//! it is.

use proc_macro2::{TokenStream, TokenTree};
use std::path::{Path, PathBuf};

/// As `max_width` of rustfmt.toml.
const COLUMNS: usize = 120;

/// The folders with our own code.
const FOLDERS: &[&str] = &["src", "tests", "benches", "fuzz/bodies", "fuzz/fuzz_targets", "monitoring/src"];

#[test]
fn every_line_is_within_120_columns_but_for_string_literals() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("build.rs")];
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files);
    }
    let mut wide = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).expect("a source file can be read");
        let shown = file.strip_prefix(root).expect("it is below the root").display();
        wide.extend(wide_lines(&source).into_iter().map(|line| format!("{shown}:{line}")));
    }
    assert!(wide.is_empty(), "lines over {COLUMNS} columns, which are to be broken by hand:\n{}", wide.join("\n"));
}

#[test]
fn a_wide_line_is_found_unless_its_string_literals_make_it_so() {
    let long = "x".repeat(COLUMNS);
    let wide = [
        format!("// {long}"),
        format!("/// {long}\nfn f() {{}}"),
        format!("fn f() {{}} // \"{long}\""),
        format!("const {long}: () = ();"),
        format!("const A: [&str; 2] = [\"{long}\", {long}];"),
    ];
    for source in wide {
        assert_eq!(wide_lines(&source), [1], "{source}");
    }
    let narrow = [
        format!("// {}", &long[3..]),
        format!("const A: &str = \"{long}\";"),
        format!("const A: &str = r#\"{long}\"#;"),
        format!("const A: &[u8] = b\"{long}\";"),
        format!("const A: &str = \"a\n{long}\nb\";"),
        format!("const A: &str = \"{}\";", "日".repeat(30)),
    ];
    for source in narrow {
        assert_eq!(wide_lines(&source), Vec::<usize>::new(), "{source}");
    }
}

/// The numbers, from 1, of the lines that are wide without the string literals in them.
fn wide_lines(source: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let mut columns: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    if columns.iter().any(|columns| *columns > COLUMNS) {
        let tokens: TokenStream = source.parse().unwrap_or_else(|e| panic!("{source}: {e}"));
        take_off_literals(tokens, &lines, &mut columns);
    }
    (1..).zip(columns).filter(|(_, columns)| *columns > COLUMNS).map(|(line, _)| line).collect()
}

/// Takes the columns of string literals off those of the lines that they stand in.
fn take_off_literals(tokens: TokenStream, lines: &[&str], columns: &mut [usize]) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => take_off_literals(group.stream(), lines, columns),
            TokenTree::Literal(literal) => {
                let (start, end) = (literal.span().start(), literal.span().end());
                let text: String = lines[start.line - 1].chars().skip(start.column).collect();
                // A comment of documentation is a literal too, to the tokens.
                if !text.trim_start_matches(['b', 'c', 'r', '#']).starts_with('"') {
                    continue;
                }
                for line in start.line..=end.line {
                    let from = if line == start.line { start.column } else { 0 };
                    let to = if line == end.line { end.column } else { lines[line - 1].chars().count() };
                    columns[line - 1] = columns[line - 1].saturating_sub(to - from);
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources can be read") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
