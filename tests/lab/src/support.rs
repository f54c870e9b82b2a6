//! What the lab shares with the tests of the whole program.

#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../../support/client.rs"]
pub mod client;
#[path = "../../support/overrun.rs"]
pub mod overrun;
#[path = "../../support/ports.rs"]
pub mod ports;
#[path = "../../support/processes.rs"]
pub mod processes;
#[path = "../../support/server.rs"]
pub mod server;
#[path = "../../support/text.rs"]
pub mod text;
#[path = "../../support/tools.rs"]
pub mod tools;
#[path = "../../support/upstream.rs"]
pub mod upstream;
