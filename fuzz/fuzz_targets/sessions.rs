#![no_main]

#[path = "../bodies/nowhere.rs"]
mod nowhere;
#[path = "../bodies/sessions.rs"]
mod sessions;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| sessions::run(octets));
