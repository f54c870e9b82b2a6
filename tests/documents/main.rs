//! What we hand out works: every Corefile under config/ and every corefile block of a Markdown file passes
//! `nodelocaldns check`; links lead somewhere, commands are ones that the programs take, messages are those of the
//! source, and the site can be made.

mod commands;
mod messages;
mod page;
mod scale;
mod site;
#[path = "../support/mod.rs"]
mod support;

use page::Page;
use std::collections::BTreeMap;
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
    for (document, page) in documents() {
        for block in page.blocks.iter().filter(|block| block.language.eq_ignore_ascii_case("corefile")) {
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
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (document, page) in &documents {
        for link in page.links.iter().filter(|link| !link.target.contains("://") && !link.target.starts_with("mailto:"))
        {
            count += 1;
            if let Err(why) = resolve(document, &link.target, &documents) {
                wrong.push(format!("{}:{}: {}: {why}", document.display(), link.line, link.target));
            }
        }
    }
    assert!(count > 100, "{count} links were found in all documents");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a relative link leads to a file or folder of the checkout, and its anchor to a heading of that.
fn resolve(document: &Path, link: &str, documents: &BTreeMap<PathBuf, Page>) -> Result<(), String> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() { document.to_owned() } else { joined(document, path) };
    if !root().join(&target).exists() {
        return Err("there is no such file".to_owned());
    }
    let Some(anchor) = anchor else { return Ok(()) };
    match documents.get(&target) {
        Some(page) if page.anchors.contains(anchor) => Ok(()),
        Some(page) => {
            Err(format!("it has no such heading, but {}", page.anchors.iter().cloned().collect::<Vec<_>>().join(", ")))
        }
        None => Err("an anchor of what is no document".to_owned()),
    }
}

/// The path from the root that a relative one in `document` leads to.
fn joined(document: &Path, path: &str) -> PathBuf {
    let mut joined = document.parent().expect("a document is in a folder").to_owned();
    for part in Path::new(path).components() {
        match part {
            std::path::Component::ParentDir => drop(joined.pop()),
            std::path::Component::CurDir => {}
            part => joined.push(part),
        }
    }
    joined
}

#[test]
fn a_link_into_nothing_is_found() {
    let documents = BTreeMap::from([(PathBuf::from("docs/index.md"), Page::read("# A b\n"))]);
    let resolve = |link| resolve(Path::new("docs/index.md"), link, &documents);
    for good in ["index.md", "#a-b", "index.md#a-b", "../src", "../src/lib.rs"] {
        assert_eq!(resolve(good), Ok(()), "{good}");
    }
    for bad in ["absent.md", "#b", "index.md#A-b", "../src/lib.rs#a"] {
        assert!(resolve(bad).is_err(), "{bad}");
    }
}

/// All Markdown files, by their path from the root.
fn documents() -> BTreeMap<PathBuf, Page> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root().join(&path)).expect("a document can be read");
        (path, Page::read(&text))
    };
    files(Path::new("")).into_iter().filter(is_document).map(read).collect()
}

fn is_corefile(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("Corefile"))
}

fn root() -> PathBuf {
    support::tools::checkout("")
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
