//! A node-local DNS cache for Kubernetes: a drop-in for NodeLocal DNSCache.
//!
//! The modules below are listed in import order: each may import those above it, never one below
//! (`tests/import_order` enforces it). `ARCHITECTURE.md` tells the journey of a query through them.

#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

pub mod message;

pub mod corefile;

pub mod metrics;

pub mod platform;

pub mod datagrams;

pub mod threads;

pub mod deadline;

pub mod stack_sampling;

pub mod backoff;

pub mod go_regex;

pub mod go_template;

pub mod expression;

pub mod net;

pub mod fairness;

pub mod sandbox;

pub mod chain;

pub mod directives;

pub mod plan;

pub mod server;

pub mod node;

pub mod kube_dns;

pub mod watchdog;

pub mod doctor;

pub mod cli;

pub mod app;
