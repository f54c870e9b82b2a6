#![no_main]

#[path = "../bodies/data_files.rs"]
mod data_files;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| data_files::run(octets));
