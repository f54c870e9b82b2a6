//! The user's side: fetches, packs, boots, and shows what comes of it.

mod debian;
pub mod image;
mod kernels;
mod newc;
mod program;
mod qemu;
pub mod run;
