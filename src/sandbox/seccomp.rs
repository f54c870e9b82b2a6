//! Bounds the system calls that may be made: seccomp(2).
//!
//! Any other fails with EPERM. To kill the process instead would be stricter, and would take a node's DNS down for a
//! call that a library makes since its last version and that was forgotten here; with an error that library does
//! without, or a query fails.

use super::MissingLayer;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::collections::BTreeMap;

/// Whatever their arguments.
const ALLOWED: &[i64] = &[
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    // Paths, as far as landlock lets them be opened.
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    // Things without a name.
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Sockets.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Its own signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    // Clocks, random numbers, and who it is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Answered by the second filter.
    libc::SYS_clone3,
];

/// Older forms of the same, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_LEGACY: &[i64] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_LEGACY: &[i64] = &[];

/// A condition on one argument: its place, and how it is compared with what.
type Argument = (u8, SeccompCmpOp, u64);

/// Of an argument of which the kernel reads no more than these.
const ALL_BITS: u64 = u32::MAX as u64;
/// No new limit is beside prlimit64.
const NO_POINTER: Argument = (2, SeccompCmpOp::MaskedEq(u64::MAX), 0);
/// socket(2)'s kinds without their flags.
const KIND: u64 = 0xf;

/// These bits of the argument at `place` must be `value`.
fn bits(place: u8, mask: u64, value: u64) -> Argument {
    (place, SeccompCmpOp::MaskedEq(mask), value)
}

/// Calls that may be made with one of these lists of arguments.
fn allowed_with_arguments() -> Vec<(i64, Vec<Vec<Argument>>)> {
    let own = u64::from(std::process::id());
    let is = |place: u8, value: i32| bits(place, ALL_BITS, value as u32 as u64);
    let is_not = |place: u8, value: i32| (place, SeccompCmpOp::Ne, value as u32 as u64);
    let one_of = |place: u8, values: &[i32]| values.iter().map(|value| vec![is(place, *value)]).collect::<Vec<_>>();
    let changes_nothing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE) & !libc::O_DIRECTORY;
    let reads = |place: u8| vec![vec![bits(place, changes_nothing as u64, libc::O_RDONLY as u64)]];
    let no_code = vec![vec![bits(2, libc::PROT_EXEC as u64, 0)]];
    let thread = (libc::CLONE_THREAD | libc::CLONE_VM) as u64;
    let mut internet = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            for protocol in [0, if kind == libc::SOCK_STREAM { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP }] {
                internet.push(vec![is(0, family), bits(1, KIND, kind as u64), is(2, protocol)]);
            }
        }
    }
    // No datagrams, which could be sent to any socket that has a path.
    let pair = |kind: i32| vec![is(0, libc::AF_UNIX), bits(1, KIND, kind as u64)];
    vec![
        (libc::SYS_socket, internet),
        (libc::SYS_socketpair, vec![pair(libc::SOCK_STREAM), pair(libc::SOCK_SEQPACKET)]),
        // Neither leases nor signals, which the kernel would send to whom the server names.
        (
            libc::SYS_fcntl,
            one_of(
                1,
                &[
                    libc::F_DUPFD,
                    libc::F_DUPFD_CLOEXEC,
                    libc::F_GETFD,
                    libc::F_SETFD,
                    libc::F_GETFL,
                    libc::F_SETFL,
                    libc::F_GET_SEALS,
                ],
            ),
        ),
        // No close that waits, be it in a process that a socket is passed to.
        (libc::SYS_setsockopt, vec![vec![is_not(1, libc::SOL_SOCKET)], vec![is_not(2, libc::SO_LINGER)]]),
        (libc::SYS_openat, reads(2)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, reads(1)),
        (libc::SYS_mmap, no_code.clone()),
        (libc::SYS_mprotect, no_code),
        (libc::SYS_clone, vec![vec![bits(0, thread, thread)]]),
        // Its end when the watchdog is gone, and abort(3).
        (libc::SYS_kill, vec![vec![bits(0, ALL_BITS, own)]]),
        (libc::SYS_tgkill, vec![vec![bits(0, ALL_BITS, own)]]),
        // Limits may be read: without a new one.
        (libc::SYS_prlimit64, vec![vec![is(0, 0), NO_POINTER], vec![bits(0, ALL_BITS, own), NO_POINTER]]),
        // The clock of a profile, which has the process interrupted after so much processor time. It is allowed
        // whatever the Corefile says: the filters stand before it is read and for good, and a reload may bring `pprof`.
        (libc::SYS_setitimer, vec![vec![is(0, libc::ITIMER_PROF)]]),
        (libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA])),
        (
            libc::SYS_ioctl,
            [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS]
                .map(|request| vec![bits(1, ALL_BITS, request)])
                .into(),
        ),
    ]
}

/// Keeps this thread, and those it starts, to these calls.
pub(super) fn restrict() -> Result<(), MissingLayer> {
    let missing = |error: &dyn std::fmt::Display| MissingLayer::Calls(error.to_string());
    for filter in filters().map_err(|error| missing(&error))? {
        apply_filter(&filter).map_err(|error| missing(&error))?;
    }
    Ok(())
}

/// To be applied in this order, since the second allows no other.
fn filters() -> Result<[BpfProgram; 2], BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_LEGACY).map(|call| (*call, Vec::new())).collect();
    for (call, ways) in allowed_with_arguments() {
        let rule = |arguments: Vec<Argument>| {
            let condition = |(place, comparison, value): Argument| {
                let is_long = matches!(comparison, SeccompCmpOp::MaskedEq(mask) if mask > ALL_BITS);
                let length = if is_long { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
                SeccompCondition::new(place, length, comparison, value)
            };
            SeccompRule::new(arguments.into_iter().map(condition).collect::<Result<_, _>>()?)
        };
        rules.insert(call, ways.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let listed = SeccompFilter::new(rules, denied, SeccompAction::Allow, architecture)?;
    // Its flags are in memory, where no filter sees them: the C library then takes clone, whose flags are an argument.
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 =
        SeccompFilter::new([(libc::SYS_clone3, Vec::new())].into(), SeccompAction::Allow, unknown, architecture)?;
    Ok([clone3.try_into()?, listed.try_into()?])
}
