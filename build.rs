//! Packed relocations in the optimised program, which each start reads (benches/README.md, "What was tried"). No code
//! is made here, and nothing depends on it but memory.

#![allow(unsafe_code, reason = "no crate tells the version of the C library")]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    if is("OPT_LEVEL", "0") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // Relocations take 6 KiB instead of 540. The C library has to know the format; what is built for another machine
    // keeps the old one.
    if env::var("HOST") == env::var("TARGET") && glibc_knows_relr() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether this machine's C library is glibc 2.36 or newer.
#[cfg(target_env = "gnu")]
fn glibc_knows_relr() -> bool {
    unsafe extern "C" {
        safe fn gnu_get_libc_version() -> *const std::ffi::c_char;
    }
    // SAFETY: it returns a string that lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) };
    let mut numbers = version.to_str().unwrap_or_default().split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(2), Some(36))
}

#[cfg(not(target_env = "gnu"))]
fn glibc_knows_relr() -> bool {
    false
}
