//! The site can be made, and works without the network.

use super::support::server::scratch;
use super::support::tools::{checkout, everything, tool};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a page of the site loads and links to.
struct Html {
    /// That a heading or something else has.
    anchors: BTreeSet<String>,
    /// Of `a`.
    links: Vec<String>,
    /// Of scripts, styles and pictures.
    loads: Vec<String>,
}

impl Html {
    fn read(text: &str) -> Self {
        let all = |pattern: &str| {
            let pattern = Regex::new(pattern).expect("a valid pattern");
            pattern.captures_iter(text).map(|found| found[1].replace("&amp;", "&")).collect::<Vec<_>>()
        };
        Self {
            anchors: all(r#"\bid="([^"]+)""#).into_iter().collect(),
            links: all(r#"<a\b[^>]*\bhref="([^"]*)""#),
            loads: [all(r#"\bsrc="([^"]*)""#), all(r#"<link\b[^>]*\bhref="([^"]*)""#)].concat(),
        }
    }
}

/// A relative link of a page leads to a file of the site, and to an anchor there.
fn leads_somewhere(site: &Path, page: &Path, link: &str, pages: &BTreeMap<PathBuf, Html>) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = path.split('?').next().unwrap_or_default();
    let folder = page.parent().expect("a page is in a folder");
    let target = if path.is_empty() { page.to_owned() } else { folder.join(path) };
    let Ok(target) = target.canonicalize() else { return false };
    target.starts_with(site)
        && (anchor.is_empty() || pages.get(&target).is_some_and(|page| page.anchors.contains(anchor)))
}

fn html_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("the site can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            html_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "html") {
            found.push(path);
        }
    }
}

/// With warnings as errors: a link that leads nowhere is one, and a page of docs/ that the navigation lacks.
#[test]
fn the_site_is_made_whole_and_loads_nothing_from_elsewhere() {
    let folder = scratch();
    let site = folder.path().canonicalize().expect("the folder is there");
    let made = tool("mkdocs").args(["build", "--strict", "--site-dir"]).arg(&site).current_dir(checkout("")).output();
    let made = made.expect("mkdocs runs");
    assert!(made.status.success(), "{}", everything(&made));
    let mut files = Vec::new();
    html_files(&site, &mut files);
    let read = |path: PathBuf| {
        let html = Html::read(&std::fs::read_to_string(&path).expect("a page can be read"));
        (path, html)
    };
    let pages: BTreeMap<PathBuf, Html> = files.into_iter().map(read).collect();
    assert!(pages.len() > 80, "{} pages", pages.len());
    let mut wrong = Vec::new();
    // Whoever serves the site says where its root is, from which the page of what is not there links.
    for (path, page) in pages.iter().filter(|(path, _)| !path.ends_with("404.html")) {
        let name = path.strip_prefix(&site).expect("a page of the site").display();
        for load in page.loads.iter().filter(|load| !leads_somewhere(&site, path, load, &pages)) {
            wrong.push(format!("{name} loads {load}"));
        }
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            if !leads_somewhere(&site, path, link, &pages) {
                wrong.push(format!("{name} links to {link}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
