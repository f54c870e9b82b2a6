//! All cases, by family. A family is a file here with a list of its cases.

mod boots;
mod daemon_set;
mod firewalls;
mod kernels;
mod link;
mod managers;
mod matrix;
mod pod_network;
mod reports;
mod soak;

use crate::case::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    let families: &[&[Case]] = &[
        boots::CASES,
        daemon_set::CASES,
        firewalls::CASES,
        kernels::CASES,
        link::CASES,
        managers::CASES,
        matrix::CASES,
        pod_network::CASES,
        reports::CASES,
        soak::CASES,
    ];
    families.concat()
}
