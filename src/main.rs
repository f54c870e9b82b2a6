//! The program: everything is in the library, so that tests and benches reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodelocaldns::app::main(std::env::args_os())
}
