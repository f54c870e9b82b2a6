#![no_main]

#[path = "../bodies/corefile.rs"]
mod corefile;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| corefile::run(octets));
