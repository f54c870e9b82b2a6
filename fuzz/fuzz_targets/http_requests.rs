#![no_main]

#[path = "../bodies/http_requests.rs"]
mod http_requests;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| http_requests::run(octets));
