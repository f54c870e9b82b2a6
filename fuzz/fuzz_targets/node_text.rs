#![no_main]

#[path = "../bodies/node_text.rs"]
mod node_text;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| node_text::run(octets));
