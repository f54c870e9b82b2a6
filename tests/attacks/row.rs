//! A row of the table: an attack on the program, and on the reference where there is one, each in namespaces of its
//! own.

use crate::outcome::Outcome;
use crate::support::tools::{everything, require, tool};
use crate::target::{Program, reference};
use std::process::Command;

/// Set to the program's role in the process that runs inside.
const INSIDE: &str = "NODELOCALDNS_TEST_ATTACKED";

/// Marks, in what that process prints, a cell of the table, and what did not hold.
const CELL: &str = "measured: ";
const BROKEN: &str = "does not hold: ";

/// Columns of the table; for the reference the same again without the first.
pub const COLUMNS: [&str; 8] = [
    "attack",
    "lost over UDP",
    "lost over TCP",
    "MiB before → peak → after",
    "descriptors",
    "processors",
    "replaced",
    "besides",
];

/// Makes the attack of the test `name` on the program in namespaces of its own, where this process is root, and prints
/// the row as Markdown. Fails when something does not hold of ours.
pub fn row(name: &str, attack: &str, measure: impl FnOnce(Program) -> Outcome) {
    row_where(Place::Anywhere, name, attack, measure);
}

/// What the attacked process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Anywhere,
    /// User IDs other than root's, where this process is root.
    WithUsers,
}

/// [`row`] in a certain place.
pub fn row_where(place: Place, name: &str, attack: &str, measure: impl FnOnce(Program) -> Outcome) {
    if let Ok(role) = std::env::var(INSIDE) {
        let outcome = measure(Program::of_role(&role));
        outcome.cells().iter().for_each(|cell| println!("\n{CELL}{cell}"));
        outcome.broken().iter().for_each(|what| println!("\n{BROKEN}{what}"));
        return;
    }
    let ours = run(place, name, Program::Ours);
    let mut cells = ours.cells.clone();
    if reference().is_some() {
        let theirs = run(place, name, Program::Reference);
        cells.extend(theirs.cells);
    }
    let mark = if ours.broken.is_empty() { "" } else { "**✗** " };
    // The test harness leaves its own line open.
    println!("\n| {mark}{attack} | {} |", cells.join(" | "));
    assert!(ours.broken.is_empty(), "{attack}: does not hold:\n- {}\n{}", ours.broken.join("\n- "), ours.printed);
}

/// What a process in a namespace has found.
pub struct Told {
    pub cells: Vec<String>,
    /// What does not hold.
    pub broken: Vec<String>,
    /// All that it printed.
    pub printed: String,
}

/// Runs the test `name` again, inside.
pub fn run(place: Place, name: &str, program: Program) -> Told {
    require("ip");
    let mut command = tool("unshare");
    if place == Place::Anywhere || !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net").arg(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"]);
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.env(INSIDE, program.role()).env("PATH", path);
    told(&mut command)
}

fn told(command: &mut Command) -> Told {
    let output = command.output().unwrap_or_else(|e| panic!("running {command:?}: {e}"));
    let printed = everything(&output);
    let marked = |mark: &str| -> Vec<String> {
        let lines = printed.lines().filter_map(|line| line.strip_prefix(mark));
        lines.map(|text| text.trim().replace('|', "\\|")).collect()
    };
    let (mut cells, mut broken) = (marked(CELL), marked(BROKEN));
    if !output.status.success() || !printed.contains("1 passed") {
        broken.push(format!(
            "the attack could not be made to its end, {} (are user namespaces allowed, kernel.unprivileged_userns_clone?)",
            output.status
        ));
    }
    cells.resize(COLUMNS.len() - 1, "–".to_owned());
    Told { cells, broken, printed }
}

/// The table's head, for `make attacks`.
#[test]
#[ignore = "prints the head of the table that make attacks makes"]
fn head() {
    let mut columns: Vec<String> = COLUMNS.map(str::to_owned).into();
    if reference().is_some() {
        columns.extend(COLUMNS[1..].iter().map(|column| format!("reference: {column}")));
    }
    println!("\n| {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len()));
}
