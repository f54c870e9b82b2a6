//! Every stored fuzz input goes through the same code as in the fuzzer, so that what was mended stays mended.

#[path = "../fuzz/bodies/cache_transfer.rs"]
mod cache_transfer;
#[path = "../fuzz/bodies/client_packet.rs"]
mod client_packet;
#[path = "../fuzz/bodies/corefile.rs"]
mod corefile;
#[path = "../fuzz/bodies/data_files.rs"]
mod data_files;
#[path = "../fuzz/bodies/expression.rs"]
mod expression;
#[path = "../fuzz/bodies/http_requests.rs"]
mod http_requests;
#[path = "../fuzz/bodies/netlink.rs"]
mod netlink;
#[path = "../fuzz/bodies/node_text.rs"]
mod node_text;
#[path = "../fuzz/bodies/nowhere.rs"]
mod nowhere;
#[path = "../fuzz/bodies/packets.rs"]
mod packets;
#[path = "../fuzz/bodies/regular_expression.rs"]
mod regular_expression;
#[path = "../fuzz/bodies/rewrite.rs"]
mod rewrite;
#[path = "../fuzz/bodies/sessions.rs"]
mod sessions;
#[path = "../fuzz/bodies/streams.rs"]
mod streams;
#[path = "../fuzz/bodies/template.rs"]
mod template;
#[path = "../fuzz/bodies/upstream_answer.rs"]
mod upstream_answer;

use std::path::Path;

/// Runs every file of a target's corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let octets = std::fs::read(&path).unwrap();
        if let Err(cause) = std::panic::catch_unwind(|| run(&octets)) {
            eprintln!("input: {}", path.display());
            std::panic::resume_unwind(cause);
        }
        count += 1;
    }
    assert!(count > 10, "{} holds only {count} inputs", folder.display());
}

#[test]
fn client_packets_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("client_packet", client_packet::run);
}

#[test]
fn upstream_answers_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("upstream_answer", upstream_answer::run);
}

#[test]
fn corefiles_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("corefile", corefile::run);
}

#[test]
fn handed_over_caches_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("cache_transfer", cache_transfer::run);
}

#[test]
fn netlink_messages_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("netlink", netlink::run);
}

#[test]
fn texts_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("node_text", node_text::run);
}

#[test]
fn packets_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("packets", packets::run);
}

#[test]
fn rules_of_rewrite_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("rewrite", rewrite::run);
}

#[test]
fn streams_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("streams", streams::run);
}

#[test]
fn sessions_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("sessions", sessions::run);
}

#[test]
fn http_requests_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("http_requests", http_requests::run);
}

#[test]
fn files_of_data_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("data_files", data_files::run);
}

#[test]
fn regular_expressions_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("regular_expression", regular_expression::run);
}

#[test]
fn templates_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("template", template::run);
}

#[test]
fn expressions_of_the_corpus_hold_what_the_fuzzer_demands() {
    replay("expression", expression::run);
}
