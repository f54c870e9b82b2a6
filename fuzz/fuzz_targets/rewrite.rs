#![no_main]

#[path = "../bodies/nowhere.rs"]
mod nowhere;
#[path = "../bodies/rewrite.rs"]
mod rewrite;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| rewrite::run(octets));
