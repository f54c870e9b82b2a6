#![no_main]

#[path = "../bodies/netlink.rs"]
mod netlink;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| netlink::run(octets));
