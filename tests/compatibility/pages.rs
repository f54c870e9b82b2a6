//! The tables of docs/flags.md and docs/metrics.md, made of what the program says of itself. The rest of these pages is
//! written by hand.

use super::support::tools::checkout;
use super::{compare_with, families};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Begins and ends what is written here in a page.
const BEGIN: &str = "<!-- Made by `COMPATIBILITY=write cargo test --test compatibility` -->\n";
const END: &str = "<!-- End -->\n";

/// A page of docs/ has `made` between its marks, or is given it.
fn compare_part(page: &str, made: &str) {
    let path = checkout("docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("{} lacks {BEGIN}or {END}", path.display()));
    compare_with(&path, &format!("{before}{BEGIN}\n{made}\n\n{END}{after}"));
}

/// docs/flags.md, of what `--help` prints for the program and each command (help.txt).
pub fn compare_flags(help: &str) {
    let made: Vec<String> = commands(help).iter().map(Command::page).collect();
    compare_part("flags.md", made.join("\n").trim_end());
}

/// docs/metrics.md, of what is scraped.
pub fn compare_metrics(exposition: &str) {
    let readmes = readmes();
    let helps: BTreeMap<&str, &str> =
        exposition.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let families = families(exposition);
    let alerts = alerts();
    let mut made =
        String::from("| name | type | labels | meaning | more | alerts |\n| --- | --- | --- | --- | --- | --- |\n");
    for line in families.lines() {
        let mut words = line.split(' ');
        let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let labels: Vec<String> =
            words.next().into_iter().flat_map(|list| list.split(',')).map(|label| format!("`{label}`")).collect();
        let (labels, help) = (labels.join(" "), helps.get(name).copied().unwrap_or_default());
        assert!(!help.is_empty(), "{name} has no HELP");
        let more = owner(&readmes, name).unwrap_or_else(|| {
            panic!("no README of src/ tells of {name}: its line goes into that of the folder that counts it")
        });
        let title = more.parent().and_then(Path::file_name).expect("a README is in a folder").to_string_lossy();
        let is_read = |series: &String| {
            series.strip_prefix(name).is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        };
        let fired = alerts.iter().filter(|(_, series)| series.iter().any(is_read));
        let fired: Vec<String> = fired.map(|(alert, _)| format!("[{alert}](runbooks/{alert}.md)")).collect();
        let (more, fired) = (more.display(), fired.join(" "));
        writeln!(made, "| `{name}` | {kind} | {labels} | {help} | [{title}](../{more}) | {fired} |")
            .expect("a string takes all");
    }
    compare_part("metrics.md", made.trim_end());
}

/// Each alert of monitoring/rules.yaml, and the series that it reads, those of recording rules among them.
fn alerts() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(checkout("monitoring/rules.yaml")).expect("the rules can be read");
    let rules: serde_json::Value = yaml_serde::from_str(&text).expect("the rules are YAML");
    let groups = rules["groups"].as_array().expect("a list");
    let rules: Vec<&serde_json::Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().expect("a list")).collect();
    let of = |rule: &serde_json::Value, key: &str| rule[key].as_str().map(str::to_owned);
    let named = |key: &str| -> BTreeMap<String, String> {
        rules.iter().filter_map(|rule| Some((of(rule, key)?, of(rule, "expr")?))).collect()
    };
    let recorded = named("record");
    let word = Regex::new("[a-zA-Z_:][a-zA-Z0-9_:]*").expect("an expression of ours");
    let read = |expression: &str| {
        let mut series = BTreeSet::new();
        let mut expressions = vec![expression.to_owned()];
        while let Some(expression) = expressions.pop() {
            for name in word.find_iter(&expression).map(|found| found.as_str().to_owned()) {
                if series.insert(name.clone()) {
                    expressions.extend(recorded.get(&name).cloned());
                }
            }
        }
        series
    };
    named("alert").into_iter().map(|(alert, expression)| (alert, read(&expression))).collect()
}

/// Path below the checkout, and text, of each README of `src/`, sorted.
fn readmes() -> BTreeMap<PathBuf, String> {
    let mut folders = vec![PathBuf::from("src")];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in checkout("").join(&folder).read_dir().expect("a folder of ours can be listed") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                folders.push(path);
            } else if entry.file_name() == "README.md" {
                let text = std::fs::read_to_string(entry.path()).expect("a document can be read");
                found.insert(path, text);
            }
        }
    }
    found
}

/// The README that tells most of a metric: one where it begins a row or an item, else one that names it.
fn owner<'a>(readmes: &'a BTreeMap<PathBuf, String>, metric: &str) -> Option<&'a Path> {
    let matching = |pattern: &str| {
        let pattern = Regex::new(&pattern.replace("NAME", metric)).expect("a valid pattern");
        readmes.iter().find(|(_, text)| pattern.is_match(text)).map(|(path, _)| path.as_path())
    };
    matching(r"(?m)^(- |\| )`NAME\b").or_else(|| matching(r"\bNAME\b"))
}

/// The metrics whose names stand in `src/`, but for those of tests.
pub fn names_in_source() -> BTreeSet<String> {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#""((?:coredns|nodelocaldns|process)_[a-z0-9_]+)""#).expect("a valid pattern"));
    let mut folders = vec![checkout("src")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder of ours can be listed") {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
            let is_test = name.to_string_lossy().trim_end_matches(".rs") == "tests";
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = std::fs::read_to_string(&path).expect("a source file can be read");
                found.extend(NAME.captures_iter(&text).map(|found| found[1].to_owned()));
            }
        }
    }
    found
}

/// A command as its `--help` shows it.
#[derive(Default)]
struct Command {
    name: String,
    about: String,
    usage: Vec<String>,
    /// Heading, and its items.
    sections: Vec<(String, Vec<Item>)>,
}

struct Item {
    /// The flag with its value, or the argument.
    name: String,
    text: String,
}

/// Takes help.txt apart.
fn commands(help: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for line in help.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            commands.push(Command { name: name.trim().to_owned(), ..Command::default() });
            continue;
        }
        let command = commands.last_mut().expect("help.txt begins with a command");
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        if let Some(usage) = text.strip_prefix("Usage: ") {
            command.usage.push(usage.to_owned());
        } else if let Some(heading) = line.strip_suffix(':').filter(|_| indent == 0) {
            command.sections.push((heading.to_owned(), Vec::new()));
        } else if let Some((_, items)) = command.sections.last_mut() {
            // clap puts a flag at the left, and what it means two columns behind it or in lines further to the right.
            if indent < 10 {
                let (name, text) = text.split_once("  ").unwrap_or((text, ""));
                items.push(Item { name: name.to_owned(), text: text.trim().to_owned() });
            } else {
                let item = items.last_mut().expect("a description follows its flag");
                let separator = if item.text.is_empty() { "" } else { "\n" };
                item.text += &format!("{separator}{text}");
            }
        } else if command.usage.is_empty() {
            command.about += &format!("{text}\n");
        } else {
            command.usage.push(text.to_owned());
        }
    }
    commands
}

impl Command {
    fn page(&self) -> String {
        let mut page = format!("## {}\n\n{}\n", self.name, self.about);
        self.usage.iter().for_each(|usage| page += &format!("    {usage}\n"));
        for (heading, items) in &self.sections {
            page += &match heading.as_str() {
                "Commands" => "\n| command | meaning |\n| --- | --- |\n".to_owned(),
                "Arguments" => "\n| argument | meaning |\n| --- | --- |\n".to_owned(),
                "Options" => "\n| flag | default | meaning |\n| --- | --- | --- |\n".to_owned(),
                other => format!("\n### {other}\n\n| flag | default | meaning |\n| --- | --- | --- |\n"),
            };
            let has_default = !matches!(heading.as_str(), "Commands" | "Arguments");
            items.iter().for_each(|item| page += &item.row(has_default));
        }
        page
    }
}

impl Item {
    fn row(&self, has_default: bool) -> String {
        static DEFAULT: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\s*\[default(?: ([^:\]]*))?: ([^\]]*)\]").expect("a valid pattern"));
        static VARIABLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"__\w+__").expect("a valid pattern"));
        let default = DEFAULT.captures(&self.text).map(|found| {
            let when = found.get(1).map_or(String::new(), |when| format!(" {}", when.as_str()));
            format!("`{}`{when}", &found[2])
        });
        let text = DEFAULT.replace(&self.text, "");
        let (text, values) = text.split_once("Possible values:").unwrap_or((&text, ""));
        let mut text = VARIABLE.replace_all(&text.trim().replace('\n', " "), "`$0`").into_owned();
        let values: Vec<String> = values
            .lines()
            .filter_map(|line| line.strip_prefix("- "))
            .map(|value| match value.split_once(':') {
                Some((value, meaning)) => format!("`{value}` ({})", meaning.trim()),
                None => format!("`{value}`"),
            })
            .collect();
        if !values.is_empty() {
            text += &format!(": {}", values.join(", "));
        }
        let default = default.unwrap_or_default();
        let default = if has_default { format!(" {default} |") } else { String::new() };
        format!("| `{}` |{default} {text} |\n", self.name)
    }
}

#[test]
fn help_is_taken_apart_into_flags_defaults_and_values() {
    let help = "# p\nAbout.\n\nUsage: p [OPTIONS]\n       p <C>\n\nCommands:\n  go  Goes\n\nOptions:\n      --a <X>\n          \
                First line of __X__,\n          the second [default: 1]\n\n      --b <HOW>\n          How [default with \
                -a: c]\n\n          Possible values:\n          - c: as c\n          - d\n\n# p go\nGoes\n\nUsage: p go \
                <F>\n\nArguments:\n  <F>  A file\n";
    let pages: Vec<String> = commands(help).iter().map(Command::page).collect();
    let expected = [
        "## p\n\nAbout.\n\n    p [OPTIONS]\n    p <C>\n\n| command | meaning |\n| --- | --- |\n| `go` | Goes \
         |\n\n| flag | default | meaning |\n| --- | --- | --- |\n| `--a <X>` | `1` | First line of \
         `__X__`, the second |\n| `--b <HOW>` | `c` with -a | How: `c` (as c), `d` |\n",
        "## p go\n\nGoes\n\n    p go <F>\n\n| argument | meaning |\n| --- | --- |\n| `<F>` | A file |\n",
    ];
    assert_eq!(pages, expected);
}
