//! A node-local DNS cache for Kubernetes: a drop-in for NodeLocal DNSCache.
//!
//! The modules below are listed in import order: each may import those above it, never one below
//! (`tests/import_order` enforces it). `ARCHITECTURE.md` tells the journey of a query through them.

// What tests/ and benches/ use is public; everything else says how far it is seen.
#![warn(unreachable_pub)]
// Neither a value that is missing nor an output that nobody reads may end the program.
#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "what is here is for the tests of the whole program too")]
#[path = "../tests/support/ports.rs"]
mod ports;

pub mod message;

pub mod corefile;

pub mod metrics;

mod platform;

mod datagrams;

mod threads;

mod deadline;

pub mod stack_sampling;

mod backoff;

pub mod go_regex;

pub mod go_template;

pub mod expression;

mod net;

mod fairness;

mod query_stats;

mod query_tap;

pub mod sandbox;

pub mod chain;

pub mod directives;

pub mod plan;

pub mod server;

mod admin;

pub mod node;

pub mod kube_dns;

pub mod watchdog;

pub mod doctor;

mod cli;

pub mod app;
