//! What the program writes to standard output while it serves.

mod support;

use std::time::Duration;
use support::client::{ask, loopback};
use support::ports::free_port;
use support::server::Server;

/// Serves one block on `port`, in front of an upstream that refuses connections, and asks it once.
fn output_of_a_failed_query(directives: &str) -> String {
    let (port, nobody) = (free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n {directives}\n forward . 127.0.0.1:{nobody} {{\n  max_connect_attempts 1\n }}\n}}\n"
    );
    let server = Server::start(&corefile, port);
    ask(loopback(port), "a.example.", "A").expect("an answer");
    server.wait_output("plugin/errors: 2 a.example. A: ", Duration::from_secs(10));
    server.wait_output("A IN a.example.", Duration::from_secs(10));
    server.output()
}

#[test]
fn a_query_is_logged_before_its_error_as_in_the_reference() {
    let output = output_of_a_failed_query("errors\n log");
    let place = |text| output.find(text).expect("it was waited for");
    assert!(place("A IN a.example.") < place("plugin/errors: 2 a.example."), "{output}");
}

#[test]
fn lines_carry_no_escape_sequences_for_terminals() {
    let output = output_of_a_failed_query("errors\n log\n debug");
    assert!(output.contains("[DEBUG] ") && !output.contains('\u{1b}'), "{output:?}");
}
