//! All cases, by family. A family is a file here with a list of its cases.

mod boots;
mod daemon_set;
mod kernels;
mod link;
mod matrix;
mod pod_network;

use crate::case::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    let families: &[&[Case]] = &[boots::CASES, daemon_set::CASES, kernels::CASES, link::CASES, matrix::CASES, pod_network::CASES];
    families.concat()
}
