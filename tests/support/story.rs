//! The stories of docs/troubleshooting.md: what goes wrong, the commands that somebody tries first, and what they
//! print. The tests make it go wrong, run the page's own commands and hold what they print against the page.

use super::tools::checkout;

/// A line of a story that stands for lines that are left out, or the end of one whose rest is.
const LEFT_OUT: &str = "...";

/// A command of the page, and what it prints.
pub struct Told {
    /// What follows the program's name.
    pub arguments: Vec<String>,
    lines: Vec<String>,
}

/// The commands of the section with this heading, in their order.
pub fn story(heading: &str) -> Vec<Told> {
    let path = checkout("docs/troubleshooting.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("{} has no section {heading:?}", path.display()));
    let mut told: Vec<Told> = Vec::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("    ")) {
        match line.strip_prefix("$ nodelocaldns ") {
            Some(arguments) => {
                let arguments = arguments.split_whitespace().map(str::to_owned).collect();
                told.push(Told { arguments, lines: Vec::new() });
            }
            None => told.last_mut().expect("a command comes before what it prints").lines.push(line.to_owned()),
        }
    }
    assert!((1..=2).contains(&told.len()), "{heading}: the cause is named by the second command at the latest");
    told
}

impl Told {
    /// Its lines are printed in this order, next to each other unless `...` or empty lines stand between them. Numbers
    /// and blanks may be others.
    #[track_caller]
    pub fn assert_printed(&self, printed: &str) {
        let printed: Vec<String> = printed.lines().map(masked).filter(|line| !line.is_empty()).collect();
        let mut rest = printed.as_slice();
        for part in self.lines.split(|line| line.trim() == LEFT_OUT).filter(|part| !part.is_empty()) {
            let part: Vec<String> = part.iter().map(|line| masked(line)).collect();
            let found = rest
                .windows(part.len())
                .position(|window| window.iter().zip(&part).all(|(line, told)| fits(line, told)));
            let Some(at) = found else {
                panic!("{:?} does not print\n{}\nbut\n{}", self.arguments, part.join("\n"), printed.join("\n"))
            };
            rest = &rest[at + part.len()..];
        }
    }
}

fn fits(line: &str, told: &str) -> bool {
    match told.strip_suffix(LEFT_OUT) {
        Some(beginning) => line.starts_with(beginning),
        None => line == told,
    }
}

/// With one mark for each number, and one blank between words.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut masked = String::new();
    for character in words.join(" ").chars() {
        match character.is_ascii_digit() {
            true if masked.ends_with('#') => {}
            true => masked.push('#'),
            false => masked.push(character),
        }
    }
    masked
}
