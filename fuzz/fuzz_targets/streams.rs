#![no_main]

#[path = "../bodies/streams.rs"]
mod streams;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| streams::run(octets));
