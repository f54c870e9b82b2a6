#![no_main]

#[path = "../bodies/packets.rs"]
mod packets;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| packets::run(octets));
