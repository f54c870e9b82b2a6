#![no_main]

#[path = "../bodies/upstream_answer.rs"]
mod upstream_answer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| upstream_answer::run(octets));
