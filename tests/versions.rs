//! One version: the package's is that of the chart, of every image that a document or manifest names, and of the newest
//! entry of CHANGELOG.md; `scripts/release` changes it everywhere at once.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use support::server::scratch;
use support::tools::{checkout, everything, run, tool};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All files of the checkout that are not built, by their paths in it.
fn files() -> Vec<String> {
    let mut folders = vec![String::new()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in checkout(&folder).read_dir().expect("a folder of the checkout can be read") {
            let entry = entry.expect("a folder of the checkout can be read");
            let path = format!("{folder}{}", entry.file_name().to_string_lossy());
            if !entry.path().is_dir() {
                found.push(path);
            } else if ![".git", "target"].contains(&path.as_str()) {
                folders.push(format!("{path}/"));
            }
        }
    }
    found
}

/// What follows `before` in the text wherever that is followed by a version.
fn versions_after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let is_of_version = |c: char| c.is_ascii_digit() || c == '.';
    let found = text.match_indices(before).map(|(start, _)| &text[start + before.len()..]);
    let version = |rest: &'a str| rest.split(|c| !is_of_version(c)).next().unwrap_or_default().trim_end_matches('.');
    found.map(version).filter(|version| version.split('.').count() == 3).collect()
}

#[test]
fn every_place_that_names_a_version_names_the_package_s() {
    let mut count = 0;
    for file in files() {
        let is_of_users = file.starts_with("docs/") || file.starts_with("manifests/") || file.ends_with(".md");
        if !is_of_users || file == "CHANGELOG.md" {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(checkout(&file)) else { continue };
        for before in ["nodelocaldns:", "nodelocaldns-", "nodelocaldns_image_tag: ", " tag: "] {
            for version in versions_after(&text, before) {
                assert_eq!(version, VERSION, "{file} names another version after {before:?}");
                count += 1;
            }
        }
    }
    assert!(count > 5, "{count} places name a version");
    let chart = std::fs::read_to_string(checkout("charts/nodelocaldns/Chart.yaml")).expect("the chart");
    for key in ["version", "appVersion"] {
        assert!(chart.contains(&format!("\n{key}: {VERSION}\n")), "{key} of the chart is not {VERSION}:\n{chart}");
    }
}

#[test]
fn a_version_is_found_after_its_image() {
    assert_eq!(
        versions_after("a nodelocaldns:1.2.3, nodelocaldns:x nodelocaldns:1.2.30-iptables.", "nodelocaldns:"),
        ["1.2.3", "1.2.30"]
    );
    assert_eq!(versions_after("nodelocaldns:1.2. nodelocaldns:", "nodelocaldns:"), Vec::<&str>::new());
}

/// The versions of the headings, newest first, and the names of the links below the text.
fn changelog(text: &str) -> (Vec<&str>, BTreeSet<&str>) {
    let headings = text.lines().filter_map(|line| Some(line.strip_prefix("## [")?.split_once(']')?.0)).collect();
    let links = text.lines().filter_map(|line| Some(line.strip_prefix('[')?.split_once("]: https://")?.0)).collect();
    (headings, links)
}

#[test]
fn the_changelog_has_this_version_and_a_link_for_each() {
    let text = std::fs::read_to_string(checkout("CHANGELOG.md")).expect("the changelog");
    let (headings, links) = changelog(&text);
    assert_eq!(headings.get(..2), Some(&["Unreleased", VERSION][..]), "the first headings");
    assert_eq!(headings.iter().copied().collect::<BTreeSet<_>>(), links, "headings, and links at the end");
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    for line in text.lines().filter(|line| line.starts_with("### ")) {
        assert!(kinds.iter().any(|kind| line == format!("### {kind}")), "{line}");
    }
}

/// `scripts/release` in a copy: afterwards the copy names the new version everywhere, in one commit with its tag.
#[test]
fn a_release_changes_the_version_everywhere() {
    let folder = scratch();
    let root = folder.path();
    for file in files() {
        let is_wanted = file.starts_with("docs/") || file.starts_with("manifests/") || file.starts_with("charts/");
        if is_wanted || file.ends_with(".md") || file.starts_with("Cargo.") || file == "scripts/release" {
            let place = root.join(&file);
            std::fs::create_dir_all(place.parent().expect("a folder")).expect("the scratch folder can be written");
            std::fs::copy(checkout(&file), place).expect("the scratch folder can be written");
        }
    }
    let git = |arguments: &[&str]| {
        let mut command = tool("git");
        command.current_dir(root).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(arguments);
        run(&mut command)
    };
    let changelog_path = root.join("CHANGELOG.md");
    let text = std::fs::read_to_string(&changelog_path).expect("the changelog");
    let text = text.replacen("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- Something.\n", 1);
    std::fs::write(&changelog_path, text).expect("the scratch folder can be written");
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "a"]);
    let release = |version: &str| {
        let mut command = Command::new(root.join("scripts/release"));
        for (name, value) in [("NAME", "a"), ("EMAIL", "a@example.org")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command.args(["--without-tests", version]).output().expect("bash runs")
    };
    for wrong in ["0.0.1", "1.0", ""] {
        assert!(!release(wrong).status.success(), "{wrong:?} is taken");
    }
    let output = release("98.7.6");
    assert!(output.status.success(), "{}", everything(&output));
    assert_eq!(git(&["tag"]).trim(), "v98.7.6");
    assert_eq!(git(&["status", "--porcelain"]), "");
    let text = std::fs::read_to_string(&changelog_path).expect("the changelog");
    let (headings, links) = changelog(&text);
    assert_eq!(headings.get(..3), Some(&["Unreleased", "98.7.6", VERSION][..]));
    assert_eq!(headings.iter().copied().collect::<BTreeSet<_>>(), links);
    let left = Command::new("grep")
        .current_dir(root)
        .args(["--recursive", "--fixed-strings", "--line-number", "--exclude=CHANGELOG.md", "--exclude-dir=.git"])
        .args([&format!("nodelocaldns:{VERSION}"), "docs", "manifests", "charts", "README.md"])
        .output();
    assert_eq!(everything(&left.expect("grep runs")), "", "the old version is still named");
    let new = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file").matches("98.7.6").count();
    for (path, count) in [("Cargo.toml", 1), ("Cargo.lock", 1), ("charts/nodelocaldns/Chart.yaml", 2)] {
        assert_eq!(new(path), count, "{path}");
    }
    assert!(new("manifests/base/nodelocaldns.yaml") == 1 && new("docs/kubernetes.md") > 2);
    let again = release("98.7.6");
    assert!(!again.status.success() && everything(&again).contains("already"), "{}", everything(&again));
}
