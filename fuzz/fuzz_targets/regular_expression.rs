#![no_main]

#[path = "../bodies/regular_expression.rs"]
mod regular_expression;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| regular_expression::run(octets));
