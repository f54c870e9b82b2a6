//! What a sandboxed process can still do: it tries, and the table in src/sandbox/README.md says the same.
//!
//! Each attempt is made by this program, started anew for it, behind some of the walls; so one that succeeds spoils no
//! other.

#![allow(unsafe_code, reason = "system calls are made as they are, to see them refused")]

use libtest_mimic::{Arguments, Failed, Trial};
use nodelocaldns::sandbox::{MissingLayer, SandboxLayers, enter};
use std::ffi::{CString, c_int, c_long};
use std::fs;
use std::io::{self, Error, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use tempfile::TempDir;

/// What the process that makes an attempt is told.
const ATTEMPT: &str = "SANDBOX_ATTEMPT";
const WALLS: &str = "SANDBOX_WALLS";
const FOLDER: &str = "SANDBOX_FOLDER";
const VICTIM: &str = "SANDBOX_VICTIM";

const README: &str = include_str!("../src/sandbox/README.md");
/// Between the cells of the table: what keeps a process from it, and what does not.
const KEPT: &str = "x";
const ALLOWED: &str = "";

/// The columns: capabilities given up, which they are in all of them, and one wall each.
const COLUMNS: [SandboxLayers; 4] = [
    SandboxLayers { user: false, files: false, calls: false },
    SandboxLayers { user: true, files: false, calls: false },
    SandboxLayers { user: false, files: true, calls: false },
    SandboxLayers { user: false, files: false, calls: true },
];

/// What an attempt is made on.
struct Stage {
    /// Root's, and readable by root alone, but for `open`, where all may write.
    folder: PathBuf,
    /// Another process of root, as the watchdog is.
    victim: i32,
}

struct Attempt {
    /// As the table has it.
    name: &'static str,
    /// Another setting of the machine may forbid it too (sysctl, Yama), or its kernel not have it.
    varies: bool,
    make: Make,
}

type Make = fn(&Stage) -> io::Result<()>;

const fn attempt(name: &'static str, make: Make) -> Attempt {
    Attempt { name, varies: false, make }
}

const fn varying(name: &'static str, make: Make) -> Attempt {
    Attempt { name, varies: true, make }
}

const ATTEMPTS: &[Attempt] = &[
    attempt("send the watchdog a signal", |stage| call(libc::SYS_kill, [stage.victim.into(), 0, 0, 0, 0, 0])),
    attempt("write the watchdog's `oom_score_adj`", |stage| write(&format!("/proc/{}/oom_score_adj", stage.victim))),
    attempt("write its own", |_| write("/proc/self/oom_score_adj")),
    varying("trace the watchdog", |stage| {
        call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), stage.victim.into(), 0, 0, 0, 0])
    }),
    varying("read the watchdog's memory", read_memory),
    attempt("name the watchdog as who gets a descriptor's signals (`F_SETOWN`)", |stage| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        call(libc::SYS_fcntl, [socket.as_raw_fd().into(), libc::F_SETOWN.into(), stage.victim.into(), 0, 0, 0])
    }),
    attempt("have a close wait (`SO_LINGER`)", |_| {
        let linger = libc::linger { l_onoff: 1, l_linger: 3600 };
        let (stream, length) = (TcpListener::bind("127.0.0.1:0")?, size_of::<libc::linger>() as c_long);
        let arguments =
            [stream.as_raw_fd().into(), libc::SOL_SOCKET.into(), libc::SO_LINGER.into(), &raw const linger as c_long];
        call(libc::SYS_setsockopt, [arguments[0], arguments[1], arguments[2], arguments[3], length, 0])
    }),
    attempt("outlive the watchdog", |_| call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0, 0])),
    attempt("rename the hand-over socket", rename_socket),
    attempt("connect to the hand-over socket", |stage| {
        connect(&SocketAddr::from_pathname(stage.folder.join("socket"))?)
    }),
    attempt("connect to an abstract Unix socket", |stage| connect(&abstract_address(stage.victim)?)),
    attempt("write the pidfile", |stage| write(&stage.folder.join("file").to_string_lossy())),
    attempt("make a file where everybody may", make_file),
    attempt("write `/etc/hosts`", |_| write("/etc/hosts")),
    attempt("read the Corefile, if only root may", |stage| fs::read(stage.folder.join("file")).map(drop)),
    attempt("read `/etc/shadow`", |_| fs::read("/etc/shadow").map(drop)),
    attempt("read `/etc/passwd`", |_| fs::read("/etc/passwd").map(drop)),
    attempt("list `/etc`", |_| fs::read_dir("/etc").map(drop)),
    attempt("watch `/etc`", watch),
    attempt("execute a program", |_| Err(Command::new("/bin/echo").arg(DONE).exec())),
    attempt("fork", fork),
    varying("make a user namespace", |_| call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0])),
    attempt("make a network namespace", |_| call(libc::SYS_unshare, [libc::CLONE_NEWNET.into(), 0, 0, 0, 0, 0])),
    attempt("mount a file system", mount),
    attempt("become root", |_| call(libc::SYS_setresuid, [0, 0, 0, 0, 0, 0])),
    attempt("change its limits", change_limit),
    attempt("open a netlink socket", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    attempt("open a raw socket", |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    attempt("open a packet socket", |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    attempt("make memory that is code", |_| map_code()),
    varying("set up io_uring", |_| {
        let mut parameters = [0_u8; 120];
        call(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr() as c_long, 0, 0, 0, 0])
    }),
    varying("add a key", |_| {
        let (kind, name) = (c"user", c"sandbox");
        let session = -3;
        call(
            libc::SYS_add_key,
            [kind.as_ptr() as c_long, name.as_ptr() as c_long, name.as_ptr() as c_long, 1, session, 0],
        )
    }),
    varying("handle page faults", |_| call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0])),
    varying("load a BPF program", |_| {
        let attributes = [0_u8; 128];
        call(libc::SYS_bpf, [5, attributes.as_ptr() as c_long, 128, 0, 0, 0])
    }),
    attempt("load a kernel module", |_| call(libc::SYS_init_module, [0, 0, c"".as_ptr() as c_long, 0, 0, 0])),
];

/// What it needs, and must be able to do behind all walls.
const NEEDS: &[(&str, Make)] = &[
    ("serve UDP and TCP, and ask upstreams", exchange),
    ("have threads", |_| std::thread::spawn(|| ()).join().map_err(|_| Error::other("it panicked"))),
    ("have files without a name", |_| {
        let file = rustix::fs::memfd_create("cache", rustix::fs::MemfdFlags::CLOEXEC)?;
        fs::File::from(file).write_all(b"text")
    }),
    ("read its own figures", |_| {
        let own = procfs::process::Process::myself().map_err(Error::other)?;
        own.fd_count().and_then(|_| own.limits()).and_then(|_| own.stat()).map_err(Error::other)?;
        fs::read("/proc/self/cgroup").and(fs::read("/proc/stat")).map(drop)
    }),
    ("read the range of the node's ports", |_| fs::read("/proc/sys/net/ipv4/ip_local_port_range").map(drop)),
    ("read its cgroup's", |_| {
        if Path::new("/sys/fs/cgroup").exists() { fs::read_dir("/sys/fs/cgroup").map(drop) } else { Ok(()) }
    }),
    ("name functions in a backtrace", |_| {
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        if backtrace.contains("sandbox::attempt_here") { Ok(()) } else { Err(Error::other(backtrace)) }
    }),
    ("have itself interrupted after processor time", |_| {
        let timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 9, tv_usec: 0 },
        };
        call(libc::SYS_setitimer, [libc::ITIMER_PROF.into(), &raw const timer as c_long, 0, 0, 0, 0])
    }),
    ("send a signal to itself", |_| call(libc::SYS_kill, [std::process::id().into(), 0, 0, 0, 0, 0])),
    ("open the sockets of the control channel", |_| std::os::unix::net::UnixStream::pair().map(drop)),
];

/// What an attempt says when it succeeded.
const DONE: &str = "done";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(ATTEMPT) {
        return attempt_here(&name);
    }
    let arguments = Arguments::from_args();
    let trials = vec![
        Trial::test("the_table_says_what_keeps_a_process_from_what", the_table_is_right),
        Trial::test("behind_all_walls_nothing_in_the_table_can_be_done", nothing_can_be_done),
        Trial::test("behind_all_walls_the_server_can_do_what_it_needs", needs_are_met),
        Trial::test("behind_all_walls_a_process_can_abort", abort_works),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Makes one attempt, and says what came of it: done, or the system's number for why not.
fn attempt_here(name: &str) -> ExitCode {
    let variable = |name| std::env::var(name).expect("the test sets it");
    let layers = variable(WALLS);
    let layers = SandboxLayers { user: layers.contains('u'), files: layers.contains('f'), calls: layers.contains('c') };
    let stage = Stage { folder: variable(FOLDER).into(), victim: variable(VICTIM).parse().expect("a process ID") };
    let missing_layers = enter(layers, || ()).expect("capabilities can be given up");
    if !missing_layers.is_empty() {
        let missing_layers: Vec<String> = missing_layers.iter().map(MissingLayer::to_string).collect();
        println!("lacks {}", missing_layers.join("; "));
    }
    if name == "abort" {
        std::process::abort();
    }
    let make = ATTEMPTS.iter().find(|attempt| attempt.name == name).map(|attempt| attempt.make);
    let make =
        make.or_else(|| NEEDS.iter().find(|(need, _)| *need == name).map(|(_, make)| *make)).expect("it is known");
    match make(&stage) {
        Ok(()) => println!("{DONE}"),
        Err(error) => println!("{} {error}", error.raw_os_error().unwrap_or(-1)),
    }
    ExitCode::SUCCESS
}

/// What attempts are made on, and the processes that it takes.
struct Scene {
    folder: TempDir,
    victim: Child,
    _listeners: [UnixListener; 2],
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("open")).expect("the folder can be written");
        fs::write(at("file"), "text").expect("the folder can be written");
        let permit =
            |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).expect("it is ours");
        permit("", 0o755);
        permit("open", 0o1777);
        permit("file", 0o600);
        let victim = Command::new("sleep").arg("1000").spawn().expect("a program starts");
        let name = abstract_address(i32::try_from(victim.id()).expect("a process ID")).expect("a name");
        let listeners = [
            UnixListener::bind(at("socket")).expect("the folder can be written"),
            UnixListener::bind_addr(&name).expect("the name is free"),
        ];
        permit("socket", 0o600);
        Self { folder, victim, _listeners: listeners }
    }

    /// Makes an attempt; what it says, and how it ended.
    fn make(&self, name: &str, layers: SandboxLayers) -> (String, std::process::ExitStatus) {
        let letters = [(layers.user, 'u'), (layers.files, 'f'), (layers.calls, 'c')];
        let letters: String = letters.iter().filter(|(is_up, _)| *is_up).map(|(_, letter)| letter).collect();
        let mut command = Command::new("/proc/self/exe");
        command
            .env(ATTEMPT, name)
            .env(WALLS, letters)
            .env(FOLDER, self.folder.path())
            .env(VICTIM, self.victim.id().to_string());
        let output = command.output().expect("this program starts");
        (String::from_utf8_lossy(&output.stdout).trim().to_owned(), output.status)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _it_may_have_ended = self.victim.kill();
        let _it_is_reaped = self.victim.wait();
    }
}

/// Whether the attempt was kept from what it wanted; an error for what is neither.
fn is_kept(name: &str, said: &str) -> Result<bool, Failed> {
    let outcome = said.lines().last().unwrap_or_default();
    let number = outcome.split(' ').next().and_then(|number| number.parse().ok());
    match number {
        None if outcome == DONE => Ok(false),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Ok(true),
        _ => Err(format!("{name}: {said:?} is no answer").into()),
    }
}

/// The rows of README's table: an attempt, and its cells.
fn rows() -> Vec<(String, [bool; COLUMNS.len()])> {
    let table = README
        .lines()
        .skip_while(|line| !line.starts_with("| attempt"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let is_kept = |place: usize| match cells.get(place + 1) {
            Some(&KEPT) => true,
            Some(&ALLOWED) => false,
            other => panic!("{other:?} in the row {line}"),
        };
        (cells[0].to_owned(), std::array::from_fn(is_kept))
    };
    table.map(row).collect()
}

fn the_table_is_right() -> Result<(), Failed> {
    let rows = rows();
    let names: Vec<&str> = ATTEMPTS.iter().map(|attempt| attempt.name).collect();
    assert_eq!(rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names, "the table's rows");
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for (attempt, (name, cells)) in ATTEMPTS.iter().zip(&rows) {
        for (layers, is_expected) in COLUMNS.into_iter().zip(cells) {
            let (said, _) = scene.make(name, layers);
            if said.contains("lacks") {
                eprintln!("{name}, {layers:?}: not compared, {said}");
                continue;
            }
            let is_kept = is_kept(name, &said)?;
            if is_kept != *is_expected && !(is_kept && attempt.varies) {
                wrong.push(format!("{name}, {layers:?}: {said}"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn nothing_can_be_done() -> Result<(), Failed> {
    let scene = Scene::new();
    for attempt in ATTEMPTS {
        let (said, _) = scene.make(attempt.name, SandboxLayers::ALL);
        if !is_kept(attempt.name, &said)? {
            return Err(format!("{} succeeded: {said}", attempt.name).into());
        }
    }
    Ok(())
}

fn needs_are_met() -> Result<(), Failed> {
    let scene = Scene::new();
    for (name, _) in NEEDS {
        let (said, status) = scene.make(name, SandboxLayers::ALL);
        if said.lines().last() != Some(DONE) {
            return Err(format!("{name}: {status}: {said}").into());
        }
    }
    Ok(())
}

fn abort_works() -> Result<(), Failed> {
    use std::os::unix::process::ExitStatusExt;
    let (said, status) = Scene::new().make("abort", SandboxLayers::ALL);
    if status.signal() == Some(libc::SIGABRT) { Ok(()) } else { Err(format!("{status}: {said}").into()) }
}

fn call(number: c_long, arguments: [c_long; 6]) -> io::Result<()> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: each caller passes what its call takes, and pointers to memory that lives as long as the call.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Opens it for writing, which is all it takes to be told.
fn write(path: &str) -> io::Result<()> {
    fs::File::options().write(true).open(path).map(drop)
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<()> {
    call(libc::SYS_socket, [family.into(), kind.into(), protocol.into(), 0, 0, 0])
}

fn abstract_address(victim: i32) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(format!("nodelocaldns-sandbox-{victim}"))
}

fn connect(address: &SocketAddr) -> io::Result<()> {
    std::os::unix::net::UnixStream::connect_addr(address).map(drop)
}

fn read_memory(stage: &Stage) -> io::Result<()> {
    let maps = format!("/proc/{}/mem", stage.victim);
    let mut here = [0_u8; 8];
    let local = libc::iovec { iov_base: here.as_mut_ptr().cast(), iov_len: here.len() };
    // Nothing is there; whoever may look is told that, and not that he may not.
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(8), iov_len: 8 };
    let pointers = [&raw const local as c_long, &raw const remote as c_long];
    let read = call(libc::SYS_process_vm_readv, [stage.victim.into(), pointers[0], 1, pointers[1], 1, 0]);
    let read = read.or_else(|error| if error.raw_os_error() == Some(libc::EFAULT) { Ok(()) } else { Err(error) });
    read.or_else(|_| fs::File::open(maps).map(drop))
}

/// And back, for the next attempt.
fn rename_socket(stage: &Stage) -> io::Result<()> {
    let (socket, renamed) = (stage.folder.join("socket"), stage.folder.join("renamed"));
    fs::rename(&socket, &renamed)?;
    fs::rename(renamed, socket)
}

/// And removes it, for the next attempt.
fn make_file(stage: &Stage) -> io::Result<()> {
    let path = stage.folder.join("open/new");
    fs::File::create(&path)?;
    fs::remove_file(path)
}

fn watch(_: &Stage) -> io::Result<()> {
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?;
    let path = CString::new(Path::new("/etc").as_os_str().as_bytes()).expect("no octet is 0");
    call(
        libc::SYS_inotify_add_watch,
        [inotify.as_raw_fd().into(), path.as_ptr() as c_long, libc::IN_CREATE.into(), 0, 0, 0],
    )
}

fn fork(_: &Stage) -> io::Result<()> {
    // SAFETY: this process has one thread, and the new one ends at once.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()),
        // SAFETY: it ends the process, and runs nothing before.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

fn mount(stage: &Stage) -> io::Result<()> {
    let at = CString::new(stage.folder.join("open").as_os_str().as_bytes()).expect("no octet is 0");
    call(libc::SYS_mount, [c"none".as_ptr() as c_long, at.as_ptr() as c_long, c"tmpfs".as_ptr() as c_long, 0, 0, 0])
}

fn change_limit(_: &Stage) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    call(libc::SYS_prlimit64, [0, c_long::from(libc::RLIMIT_CORE as i32), &raw const limit as c_long, 0, 0, 0])
}

fn map_code() -> io::Result<()> {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    call(libc::SYS_mmap, [0, 4096, access.into(), flags.into(), -1, 0])
}

fn exchange(_: &Stage) -> io::Result<()> {
    let (one, other) =
        (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?);
    one.set_nonblocking(true)?;
    drop(other);
    one.send_to(b"text", one.local_addr()?)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let (_accepted, _) = listener.accept()?;
    stream.write_all(b"text")
}
