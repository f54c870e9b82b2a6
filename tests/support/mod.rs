//! What the tests of the whole program share: free ports, the running server, a small DNS client, scripted upstreams,
//! clients that ask all the while, network namespaces, and other people's programs.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod alerts;
pub mod client;
pub mod daemons;
pub mod dnstap;
pub mod known;
pub mod mounts;
pub mod namespace;
pub mod overrun;
pub mod ports;
pub mod processes;
pub mod scope;
pub mod server;
pub mod steady;
pub mod story;
pub mod text;
pub mod tools;
pub mod upstream;
