//! A row of the fault table: what was measured goes into it, for each backend and rate.

use crate::cluster::{inside, run_in_a_namespace};
use crate::scene::RATES;

/// The columns, in this order.
pub const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Marks, in what a process in a namespace prints, what is for the table.
const MARK: &str = "measured: ";

/// Measures the row of the test `name` with each backend in a network of its own, one after the other, and prints it as
/// Markdown. `measure` returns a cell for each rate, or for the first only.
pub fn row(name: &str, fault: &str, reference: &str, measure: impl FnOnce(&str) -> Vec<String>) {
    if let Some(backend) = inside() {
        return measure(&backend).iter().for_each(|cell| println!("{MARK}{cell}"));
    }
    print(fault, reference, BACKENDS.map(|backend| run_in_a_namespace(name, backend)));
}

/// The same with both backends at once, for what takes long and little of the machine: at the first rate only.
pub fn row_at_once(name: &str, fault: &str, reference: &str, measure: impl FnOnce(&str) -> Vec<String>) {
    if let Some(backend) = inside() {
        return measure(&backend).iter().for_each(|cell| println!("{MARK}{cell}"));
    }
    let printed = std::thread::scope(|scope| {
        let running = BACKENDS.map(|backend| scope.spawn(move || run_in_a_namespace(name, backend)));
        running.map(|backend| backend.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    print(fault, reference, printed);
}

/// One for each rate, in what a process printed.
fn cells(printed: &str) -> Vec<&str> {
    let mut cells: Vec<&str> = printed.lines().filter_map(|line| Some(line.split_once(MARK)?.1)).collect();
    assert!((1..=RATES.len()).contains(&cells.len()), "cells of a row: {cells:?}");
    cells.resize(RATES.len(), "–");
    cells
}

fn print(fault: &str, reference: &str, printed: [String; 2]) {
    let cells: Vec<&str> = printed.iter().flat_map(|printed| cells(printed)).collect();
    // The test harness leaves its own line open.
    println!("\n| {fault} | {reference} | {} |", cells.join(" | "));
}
