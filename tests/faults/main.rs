//! The fault table: clients of all kinds ask at a fixed rate while something goes wrong, and what they lose is counted.
//! Each test is a row, and prints it; `make faults` makes the table of docs/faults.md of them. Each backend has a
//! network of its own (tests/interception/cluster.rs).

mod answers;
mod cgroup;
mod config;
mod eaten;
mod kube_dns;
mod limits;
mod load;
mod node;
mod processes;
mod records;
mod row;
mod scene;
mod streams;
mod upstream;
mod wire;

#[allow(dead_code, reason = "the tests of the interception use the rest")]
#[path = "../interception/cluster.rs"]
mod cluster;

#[path = "../support/mod.rs"]
mod support;
