#![no_main]

#[path = "../bodies/client_packet.rs"]
mod client_packet;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| client_packet::run(octets));
