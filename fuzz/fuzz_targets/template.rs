#![no_main]

#[path = "../bodies/template.rs"]
mod template;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| template::run(octets));
