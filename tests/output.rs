//! What the program writes to standard output while it serves.

mod support;

use std::time::Duration;
use support::client::{ask, loopback};
use support::ports::free_port;
use support::server::{Server, reference_command, scratch, write_corefile};

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

#[test]
fn with_log_format_json_every_line_is_an_object() {
    let (port, nobody) = (free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n log\n debug\n forward . 127.0.0.1:{nobody} {{\n  max_connect_attempts 1\n }}\n}}\n"
    );
    let folder = scratch();
    let mut command = reference_command(&write_corefile(folder.path(), &corefile), free_port());
    command.args(["--log-format", "json"]);
    let mut server = Server::spawn(command, folder);
    server.wait_ready(port).unwrap();
    ask(loopback(port), "a.example.", "A").expect("an answer");
    server.wait_output("plugin/errors: 2 a.example. A: ", Duration::from_secs(10));
    server.wait_output("A IN a.example.", Duration::from_secs(10));
    server.signal(libc::SIGTERM);
    assert!(server.wait_exit(Duration::from_secs(10)).is_some_and(|status| status.success()));
    let output = server.output();
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let records: Vec<serde_json::Value> = output.lines().map(read).collect();
    let level_of = |part: &str| {
        let has_part =
            |record: &&serde_json::Value| record["message"].as_str().is_some_and(|message| message.contains(part));
        records.iter().find(has_part).unwrap_or_else(|| panic!("{part} is not in {output}"))["level"].clone()
    };
    assert_eq!(level_of(" serves\n"), "info", "the banner is one record");
    assert_eq!(level_of("A IN a.example."), "info", "of `log`");
    assert_eq!(level_of("plugin/errors: 2 a.example."), "error");
}
