//! A row of the fault table: what was measured goes into it, for each backend and rate.

use crate::cluster::{inside, run_in_a_namespace};

/// The columns, in this order.
pub const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Marks, in what a process in a namespace prints, what is for the table.
const MARK: &str = "measured: ";

/// Measures the row of the test `name` with each backend in a network of its own, one after the other, and prints it as Markdown. `measure` returns
/// a cell for each rate.
pub fn row(name: &str, fault: &str, reference: &str, measure: impl FnOnce(&str) -> Vec<String>) {
    if let Some(backend) = inside() {
        return measure(&backend).iter().for_each(|cell| println!("{MARK}{cell}"));
    }
    print(fault, reference, BACKENDS.map(|backend| run_in_a_namespace(name, backend)));
}

/// The same with both backends at once, for what takes long and little of the machine.
pub fn slow_row(name: &str, fault: &str, reference: &str, measure: impl FnOnce(&str) -> Vec<String>) {
    if let Some(backend) = inside() {
        return measure(&backend).iter().for_each(|cell| println!("{MARK}{cell}"));
    }
    let printed = std::thread::scope(|scope| {
        let running = BACKENDS.map(|backend| scope.spawn(move || run_in_a_namespace(name, backend)));
        running.map(|backend| backend.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    print(fault, reference, printed);
}

fn print(fault: &str, reference: &str, printed: [String; 2]) {
    let cells: Vec<&str> =
        printed.iter().flat_map(|printed| printed.lines()).filter_map(|line| Some(line.split_once(MARK)?.1)).collect();
    assert_eq!(cells.len() % BACKENDS.len(), 0, "as many cells of each backend: {cells:?}");
    // The test harness leaves its own line open.
    println!("\n| {fault} | {reference} | {} |", cells.join(" | "));
}
