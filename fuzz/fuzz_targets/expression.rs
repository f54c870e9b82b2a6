#![no_main]

#[path = "../bodies/expression.rs"]
mod expression;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| expression::run(octets));
