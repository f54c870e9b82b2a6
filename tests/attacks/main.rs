//! Attacks on the running program: what pods and upstreams that mean harm send, and what a polite client loses beside
//! it. Each ignored test is a row, and prints it; `make attacks` makes the table of docs/attacks.md of them. `quick`
//! has short ones of each kind, which run with all tests.

mod answers;
mod certificate;
mod connections;
mod crowd;
mod encrypted;
mod flights;
mod flood;
mod hostile;
mod http;
mod http2;
mod memory;
mod misses;
mod neighbour;
mod others;
mod outcome;
mod polite;
mod polite_sessions;
mod pours;
mod queries;
mod quick;
mod raw;
mod rights;
mod row;
mod scene;
mod sessions;
mod sizes;
mod sockets;
mod starvation;
mod target;
mod together;
mod upstream;
mod wire;

#[allow(dead_code, reason = "the fault table's rows use the rest")]
#[path = "../faults/cgroup.rs"]
mod cgroup;

#[path = "../support/mod.rs"]
mod support;
