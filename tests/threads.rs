//! A system that refuses threads: the program ends with a status and says why, and nothing panics.

#![allow(unsafe_code, reason = "a seccomp filter is installed between fork and exec")]

mod support;

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use support::server::binary;

/// `struct seccomp_data` begins with the system call's number; its arguments follow 16 octets from the beginning
/// (linux/seccomp.h).
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Runs the program with a filter that answers clone3 with `clone3`, and clone for a thread with `clone`; 0 lets it be.
fn run(clone3: i32, clone: i32) -> Output {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let answer = |error: i32| {
        let verdict = if error == 0 { libc::SECCOMP_RET_ALLOW } else { libc::SECCOMP_RET_ERRNO | error as u32 };
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, verdict)
    };
    let mut program = vec![
        load(NUMBER),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_clone3 as u32),
        answer(clone3),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, libc::SYS_clone as u32),
        load(FIRST_ARGUMENT),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, libc::CLONE_THREAD as u32),
        answer(clone),
        answer(0),
    ];
    let mut command = Command::new(binary());
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: both only change what this process, which is about to become the program, may do; the filter outlives
        // the call.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
        };
        if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: two system calls, which are safe between fork and exec; nothing is allocated.
    unsafe { command.pre_exec(install) };
    command.output().unwrap_or_else(|e| panic!("running {command:?}: {e}"))
}

fn assert_told(output: &Output, words: &[&str]) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert!(!text.contains("please report") && !text.contains("panicked"), "{text}");
}

#[test]
fn threads_at_their_limit_are_told_with_the_limits_names() {
    assert_told(&run(libc::ENOSYS, libc::EAGAIN), &["pids.max", "ulimit -u", "thread"]);
}

#[test]
fn a_seccomp_profile_that_refuses_clone3_is_told_as_such() {
    assert_told(&run(libc::EPERM, libc::EPERM), &["clone3", "seccomp"]);
}
