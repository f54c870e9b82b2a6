//! What we hand out works: every Corefile under config/ and every corefile block of a Markdown file passes
//! `nodelocaldns check`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::server::{binary, scratch};
use support::tools::{everything, write};

/// Folders that hold no documents of ours.
const SKIPPED: &[&str] = &["target", ".git", "artifacts", "corpus"];

#[test]
fn every_shipped_corefile_passes_check() {
    let corefiles: Vec<PathBuf> = files(Path::new("config")).into_iter().filter(|path| is_corefile(path)).collect();
    assert!(!corefiles.is_empty(), "no Corefile under config/");
    let output = Command::new(binary()).arg("check").args(&corefiles).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{}", everything(&output));
}

#[test]
fn every_corefile_block_of_a_document_passes_check() {
    let folder = scratch();
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in
        files(Path::new(".")).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    {
        let text = std::fs::read_to_string(root().join(&document)).expect("a document can be read");
        for block in corefile_blocks(&text) {
            count += 1;
            let corefile = write(folder.path(), "Corefile", &block.text);
            let output = Command::new(binary()).arg("check").arg(&corefile).output().expect("the program runs");
            if !output.status.success() {
                wrong.push(format!(
                    "{}:{}: the block does not pass:\n{}",
                    document.display(),
                    block.line,
                    everything(&output)
                ));
            }
        }
    }
    assert!(count > 0, "no ```corefile block in any document");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_are_found_by_their_fence_and_line() {
    let text = "a\n```corefile\n. {\n}\n```\n```text\nno\n```\n  ```Corefile\n  x {\n  }\n  ```\n";
    let blocks = corefile_blocks(text);
    assert_eq!(blocks, [Block { line: 2, text: ". {\n}\n".into() }, Block { line: 9, text: "  x {\n  }\n".into() }]);
}

#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Of its opening fence.
    line: usize,
    text: String,
}

/// Fenced blocks marked `corefile`; each must be a whole Corefile.
fn corefile_blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Block)> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block)),
            (Some(mark), None) => {
                let wanted = mark.trim().eq_ignore_ascii_case("corefile");
                open = Some((wanted, Block { line: index + 1, text: String::new() }));
            }
            (None, Some((_, block))) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fenced block is not closed");
    blocks
}

fn is_corefile(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("Corefile"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder of the project, by their path from its root.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.expect("a folder of ours can be read");
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().expect("a folder of ours can be read").is_dir();
            if is_folder && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                folders.push(path);
            } else if !is_folder {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
