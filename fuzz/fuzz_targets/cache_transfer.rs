#![no_main]

#[path = "../bodies/cache_transfer.rs"]
mod cache_transfer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| cache_transfer::run(octets));
