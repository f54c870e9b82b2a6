//! The two processes: what the watchdog does when the server ends, hangs or refuses, and the server when the watchdog
//! is gone.

mod support;

use hickory_proto::op::ResponseCode;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::client::{PATIENCE, ask, loopback, metric, query};
use support::namespace::Namespace;
use support::ports::{free_port, taken_port};
use support::processes::signal;
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::steady::SteadyClient;
use support::tools::write;
use support::upstream::{Reply, Rule, Upstream, address_rule};

/// For what takes milliseconds on a machine that is not busy with other things.
const SOON: Duration = Duration::from_secs(10);

/// A program under test with its ports.
struct Guarded {
    watchdog: Server,
    dns: u16,
    metrics: u16,
}

impl Guarded {
    /// Serves `corefile`, in which `{port}` stands for the port, as a node's agent.
    fn start(corefile: &str) -> Self {
        Self::start_as(reference_command, corefile)
    }

    /// The same with the command that is made for the Corefile's path and the port of metrics, `{metrics}` in it.
    fn start_as(command: impl FnOnce(&Path, u16) -> Command, corefile: &str) -> Self {
        let (dns, metrics) = (free_port(), free_port());
        let folder = scratch();
        let corefile = corefile.replace("{port}", &dns.to_string()).replace("{metrics}", &metrics.to_string());
        let path = write_corefile(folder.path(), &corefile);
        let mut watchdog = Server::spawn(command(&path, metrics), folder);
        watchdog.wait_ready(dns).unwrap_or_else(|e| panic!("{e}"));
        let guarded = Self { watchdog, dns, metrics };
        guarded.await_answer();
        guarded
    }

    /// A server that answers from itself.
    fn start_plain() -> Self {
        Self::start(".:{port} {\n bind 127.0.0.1\n whoami\n}\n")
    }

    fn await_answer(&self) {
        let answered = wait_until(SOON, || ask(loopback(self.dns), "ready.example.", "A").is_some());
        assert!(answered, "no answer on port {}:\n{}", self.dns, self.watchdog.tail(20));
    }

    /// The server's process.
    fn server(&self) -> i32 {
        let mut found = None;
        wait_until(SOON, || {
            found = support::processes::server(self.watchdog.pid());
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("the watchdog has no child:\n{}", self.watchdog.tail(20)))
    }

    fn restarts(&self, cause: &str) -> f64 {
        self.shown_restarts(cause).expect("the watchdog's metrics are served")
    }

    /// `None` while nobody serves the metrics.
    fn shown_restarts(&self, cause: &str) -> Option<f64> {
        metric(self.metrics, &format!("nodelocaldns_watchdog_server_restarts_total{{cause=\"{cause}\"}}"))
    }

    /// Waits until so many servers were replaced for this cause.
    fn await_restarts(&self, cause: &str, count: f64) {
        let counted = wait_until(SOON, || self.shown_restarts(cause).is_some_and(|shown| shown >= count));
        assert!(counted, "fewer than {count} restarts because of {cause}:\n{}", self.watchdog.tail(20));
    }
}

/// Whether the process has not ended; one that only waits to be reaped has. While a thread is left its sockets are
/// open, though its first thread may be a zombie already.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_running = stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'));
    is_running || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// A field of /proc/PID/status.
fn status_field(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    field_of(&status, name)
}

fn field_of(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in\n{status}")).trim().to_owned()
}

#[test]
fn a_server_that_is_told_to_end_hands_its_cache_to_the_next_one() {
    let upstream = Upstream::start(vec![address_rule("kept.example.", 300, "192.0.2.1")], None);
    let corefile =
        ".:{port} {\n bind 127.0.0.1\n cache 300\n forward . 127.0.0.1:{upstream} {\n  read_timeout 200ms\n }\n}\n";
    let guarded = Guarded::start(&corefile.replace("{upstream}", &upstream.port.to_string()));
    assert_eq!(ask(loopback(guarded.dns), "kept.example.", "A").map(|answer| answer.answers.len()), Some(1));
    drop(upstream);
    let before = guarded.server();
    signal(before, libc::SIGTERM);
    guarded.await_restarts("exit", 1.0);
    assert_ne!(guarded.server(), before);
    let answer = ask(loopback(guarded.dns), "kept.example.", "A");
    let records = answer.map(|answer| answer.answers.len());
    assert_eq!(records, Some(1), "{}", guarded.watchdog.tail(20));
}

#[test]
fn a_server_that_is_killed_is_replaced_on_the_same_sockets_and_hardly_a_query_is_lost() {
    let guarded = Guarded::start_plain();
    let client = SteadyClient::start(guarded.dns);
    for round in 1..=3 {
        client.await_queries();
        let before = guarded.server();
        signal(before, libc::SIGKILL);
        guarded.await_restarts("signal", f64::from(round));
        assert_ne!(guarded.server(), before);
    }
    client.await_queries();
    // Lost is what a server had read and not answered: a datagram or two of each, and the connection it had accepted.
    let (udp, tcp) = client.hit_counter();
    assert!(udp.lost <= 6, "over UDP: {udp:?}\n{}", guarded.watchdog.tail(20));
    assert!(tcp.lost <= 3, "over TCP: {tcp:?}\n{}", guarded.watchdog.tail(20));
    for cause in ["hang", "exit", "configuration", "start", "protocol"] {
        assert_eq!(guarded.restarts(cause), 0.0, "{cause}");
    }
    let without = metric(guarded.metrics, "nodelocaldns_watchdog_seconds_without_service_total");
    assert!(without.is_some_and(|seconds| seconds > 0.0 && seconds < SOON.as_secs_f64()), "{without:?}");
    let banners = guarded.watchdog.output().matches("try: dig").count();
    assert_eq!(banners, 1, "it says where it listens once:\n{}", guarded.watchdog.output());
}

#[test]
fn a_server_that_hangs_is_replaced_and_no_query_that_waits_is_lost() {
    let guarded = Guarded::start_plain();
    let client = SteadyClient::start(guarded.dns);
    client.await_queries();
    // One that has answered no probe yet is waited for for 30 s.
    let probes = || metric(guarded.metrics, "nodelocaldns_watchdog_probe_duration_seconds_count");
    assert!(wait_until(SOON, || probes().is_some_and(|count| count >= 4.0)), "no probe is answered");
    let hung = guarded.server();
    let stopped = Instant::now();
    signal(hung, libc::SIGSTOP);
    guarded.await_restarts("hang", 1.0);
    guarded.await_answer();
    let gap = stopped.elapsed();
    assert!(gap < Duration::from_secs(3), "{gap:?}");
    client.await_queries();
    // What the server had in hand when it stopped is gone with it: at most one datagram, and the connection it had
    // accepted.
    let (udp, tcp) = client.hit_counter();
    assert!(udp.lost <= 1 && tcp.lost <= 1, "{udp:?}, {tcp:?}\n{}", guarded.watchdog.tail(20));
    assert!(!is_alive(hung));
    assert!(metric(guarded.metrics, "nodelocaldns_watchdog_probe_failures_total{transport=\"udp\"}") >= Some(1.0));
}

#[test]
fn a_watchdog_that_was_held_up_blames_nobody() {
    let guarded = Guarded::start_plain();
    let server = guarded.server();
    guarded.watchdog.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(ask(loopback(guarded.dns), "a.example.", "A").is_some(), "the server serves without its watchdog");
    guarded.watchdog.signal(libc::SIGCONT);
    let answered = || metric(guarded.metrics, "nodelocaldns_watchdog_probe_duration_seconds_count").unwrap_or_default();
    let before = answered();
    assert!(wait_until(SOON, || answered() > before + 20.0), "{}", guarded.watchdog.tail(20));
    assert_eq!((guarded.server(), guarded.restarts("hang")), (server, 0.0), "{}", guarded.watchdog.tail(20));
}

/// The Corefile becomes bad, and is bad when servers begin. Then it is mended, and gone when one begins.
fn assert_last_served_is_kept(guarded: &Guarded) {
    let folder = guarded.watchdog.folder.path();
    let refused = |expected: f64| {
        let shown = || metric(guarded.metrics, "nodelocaldns_configuration_refused") == Some(expected);
        assert!(wait_until(SOON, shown), "{}", guarded.watchdog.tail(20));
    };
    let good = std::fs::read_to_string(guarded.watchdog.corefile()).expect("the Corefile is there");
    let mut killed = 0.0;
    let mut kill = || {
        killed += 1.0;
        signal(guarded.server(), libc::SIGKILL);
        guarded.await_restarts("signal", killed);
        guarded.await_answer();
        refused(1.0);
    };
    // Twice each: what serves then is what is remembered.
    for bad in [&good.replace("whoami", "whoma"), "", "# it is being written\n"] {
        write_corefile(folder, bad);
        kill();
        kill();
    }
    guarded.watchdog.wait_output("whoma", SOON);
    let mended = good.replace("whoami", "template ANY ANY {\n  rcode REFUSED\n }");
    write_corefile(folder, &mended);
    let code = || ask(loopback(guarded.dns), "mended.example.", "A").map(|answer| answer.metadata.response_code);
    // It is looked for, and once more when somebody asks: by then the first is remembered.
    let times_served = || guarded.watchdog.output().matches("the changed Corefile serves").count();
    assert!(wait_until(SOON, || times_served() == 1), "{}", guarded.watchdog.tail(20));
    guarded.watchdog.signal(libc::SIGUSR1);
    assert!(wait_until(SOON, || times_served() == 2), "{}", guarded.watchdog.tail(20));
    assert_eq!(code(), Some(ResponseCode::Refused), "{}", guarded.watchdog.tail(20));
    refused(0.0);
    for path in [guarded.watchdog.corefile(), folder.join("Corefile.base")] {
        std::fs::remove_file(path).expect("it is there");
    }
    kill();
    assert_eq!(code(), Some(ResponseCode::Refused), "{}", guarded.watchdog.tail(20));
    assert_eq!((guarded.restarts("configuration"), guarded.restarts("exit")), (0.0, 0.0));
}

#[test]
fn a_server_that_begins_when_its_template_is_bad_serves_the_corefile_that_was_served_last() {
    assert_last_served_is_kept(&Guarded::start_plain());
}

/// Not as a node's agent: with a Corefile alone, which shows its metrics itself.
fn start_with_a_corefile(directives: &str) -> Guarded {
    let command = |corefile: &Path, _| {
        let mut command = Command::new(binary());
        command.arg("-conf").arg(corefile);
        command
    };
    let corefile = ".:{port} {\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n {directives}\n}\n";
    Guarded::start_as(command, &corefile.replace("{directives}", directives))
}

#[test]
fn a_server_that_begins_when_its_corefile_is_bad_serves_the_one_that_was_served_last() {
    assert_last_served_is_kept(&start_with_a_corefile("whoami"));
}

#[test]
fn a_server_that_begins_when_a_file_of_weights_is_bad_serves_what_was_served_last() {
    let folder = scratch();
    let weights = write(folder.path(), "weights", "ready.example.\n192.0.2.1 100\n");
    let guarded = start_with_a_corefile(&format!("whoami\n loadbalance weighted {}", weights.display()));
    std::fs::write(&weights, "ready.example.\n192.0.2.1 1000\n").expect("the scratch folder can be written");
    signal(guarded.server(), libc::SIGKILL);
    guarded.await_restarts("signal", 1.0);
    guarded.await_answer();
    let refused = || metric(guarded.metrics, "nodelocaldns_configuration_refused");
    assert!(wait_until(SOON, || refused() == Some(1.0)), "{}", guarded.watchdog.tail(20));
    assert_eq!(guarded.restarts("configuration"), 0.0);
    std::fs::write(&weights, "ready.example.\n192.0.2.1 101\n").expect("the scratch folder can be written");
    guarded.watchdog.signal(libc::SIGUSR1);
    assert!(wait_until(SOON, || refused() == Some(0.0)), "{}", guarded.watchdog.tail(20));
}

#[test]
fn a_corefile_whose_port_is_taken_when_a_server_begins_is_forgotten_once_it_is_taken_back() {
    let guarded = start_with_a_corefile("whoami");
    let good = std::fs::read_to_string(guarded.watchdog.corefile()).expect("the Corefile is there");
    let (taken, port) = taken_port();
    let refused = |expected: f64| {
        let shown = || metric(guarded.metrics, "nodelocaldns_configuration_refused") == Some(expected);
        assert!(wait_until(SOON, shown), "{}", guarded.watchdog.tail(20));
    };
    let more = format!("{good}other.example:{port} {{\n bind 127.0.0.1\n whoami\n}}\n");
    write_corefile(guarded.watchdog.folder.path(), &more);
    signal(guarded.server(), libc::SIGKILL);
    guarded.await_restarts("signal", 1.0);
    guarded.await_answer();
    refused(1.0);
    write_corefile(guarded.watchdog.folder.path(), &good);
    guarded.watchdog.signal(libc::SIGUSR1);
    refused(0.0);
    drop(taken);
    // It would be tried again within two seconds.
    std::thread::sleep(Duration::from_secs(3));
    assert!(ask(loopback(port), "a.other.example.", "A").is_none(), "{}", guarded.watchdog.tail(20));
    write_corefile(guarded.watchdog.folder.path(), &more);
    guarded.watchdog.signal(libc::SIGUSR1);
    let served = || ask(loopback(port), "a.other.example.", "A").is_some();
    assert!(wait_until(SOON, served), "{}", guarded.watchdog.tail(20));
}

#[test]
fn a_first_corefile_that_is_bad_ends_the_watchdog_with_its_message_once() {
    let folder = scratch();
    let corefile = write_corefile(folder.path(), ".:1 {\n cahce\n}\n");
    let mut server = Server::spawn(reference_command(&corefile, free_port()), folder);
    let status = server.wait_exit(SOON);
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", server.tail(20));
    assert_eq!(server.output().matches("did you mean").count(), 1, "{}", server.output());
}

#[test]
fn an_address_in_use_by_another_program_is_told_by_the_first_start() {
    // Without SO_REUSEPORT, so that nobody else can bind it.
    let holder = UdpSocket::bind(loopback(free_port())).expect("a free port");
    let port = holder.local_addr().expect("it is bound").port();
    let folder = scratch();
    let corefile = write_corefile(folder.path(), &format!(".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"));
    let mut server = Server::spawn(reference_command(&corefile, free_port()), folder);
    let status = server.wait_exit(SOON);
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", server.tail(20));
    assert!(server.output().contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", server.output());
}

#[test]
fn a_server_whose_watchdog_is_killed_ends_by_itself_at_once() {
    for lameduck in ["", "health 127.0.0.1:{health} {\n  lameduck 60s\n }"] {
        let health = free_port().to_string();
        let corefile =
            format!(".:{{port}} {{\n bind 127.0.0.1\n whoami\n {}\n}}\n", lameduck.replace("{health}", &health));
        let guarded = Guarded::start(&corefile);
        let server = guarded.server();
        let killed = Instant::now();
        guarded.watchdog.signal(libc::SIGKILL);
        assert!(wait_until(SOON, || !is_alive(server)), "{}", guarded.watchdog.tail(20));
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}\n{}", guarded.watchdog.tail(20));
        assert!(TcpStream::connect(loopback(guarded.dns)).is_err(), "nobody listens any longer");
    }
}

/// On a node, cluster DNS answers from the next packet on; a late reply of ours, which the kernel then tracks, would
/// keep its client's port here.
#[test]
fn an_orphaned_server_says_nothing_more() {
    let reply = Reply { answer: vec!["slow.example. 0 IN A 192.0.2.7".to_owned()], delay: 0.5, ..Reply::default() };
    let rule = Rule { name: "slow.example.".to_owned(), rtype: "A".to_owned(), via: None, reply };
    let upstream = Upstream::start(vec![rule], None);
    let corefile = format!(".:{{port}} {{\n bind 127.0.0.1\n forward . 127.0.0.1:{}\n}}\n", upstream.port);
    let guarded = Guarded::start(&corefile);
    upstream.take_seen();
    let client = UdpSocket::bind(loopback(0)).expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout above zero");
    client.connect(loopback(guarded.dns)).expect("loopback");
    client.send(&query("slow.example.", "A").to_vec().expect("a query of ours encodes")).expect("loopback");
    assert!(wait_until(PATIENCE, || upstream.take_seen().values().sum::<u32>() > 0), "it did not reach the upstream");
    guarded.watchdog.signal(libc::SIGKILL);
    let answer = client.recv(&mut [0; 512]);
    assert!(answer.is_err(), "{answer:?}");
}

/// The program in a namespace, once it serves.
fn start_in(namespace: &Namespace) -> Server {
    let folder = scratch();
    let corefile = write_corefile(folder.path(), ".:53 {\n bind 127.0.0.1\n whoami\n}\n");
    let reference = reference_command(&corefile, 9353);
    let mut command = namespace.command(Path::new(reference.get_program()));
    command.args(reference.get_args());
    let watchdog = Server::spawn(command, folder);
    watchdog.wait_output("try: dig", SOON);
    watchdog
}

#[test]
fn the_server_has_no_capability_though_the_watchdog_has_all() {
    let namespace = Namespace::new(&[]);
    let watchdog = start_in(&namespace);
    let watchdog_pid = i32::try_from(watchdog.pid()).expect("a process ID");
    assert_ne!(u64::from_str_radix(&status_field(watchdog_pid, "CapEff"), 16), Ok(0), "or this test shows nothing");
    let server = support::processes::server(watchdog.pid()).expect("it has a child");
    let tasks = std::fs::read_dir(format!("/proc/{server}/task")).expect("the server lives");
    let tasks: Vec<i32> = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
    assert!(tasks.len() > 1, "its workers are threads");
    for task in tasks {
        // One that has ended meanwhile has nothing.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{task}/status")) else { continue };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field_of(&status, set), "0000000000000000", "{set} of thread {task}");
        }
        assert_eq!(field_of(&status, "NoNewPrivs"), "1", "thread {task}");
    }
}

/// In a container without CAP_SYS_RESOURCE the watchdog may not lower its own score, nor may it in a user namespace.
#[test]
fn out_of_memory_the_kernel_takes_each_server_before_its_watchdog() {
    let namespace = Namespace::new(&[]);
    let watchdog = start_in(&namespace);
    let own = oom_score(watchdog.pid());
    assert_eq!(own, oom_score(std::process::id()), "it may lower its own here, so this test shows nothing");
    assert!(own <= 800, "the score of everything is {own} here, near the most there is, so this test shows nothing");
    for _ in 0..2 {
        let mut server = 0;
        let is_first = || {
            server = support::processes::server(watchdog.pid()).unwrap_or_default();
            server != 0 && oom_score(server.unsigned_abs()) == own + 200
        };
        assert!(wait_until(SOON, is_first), "the server's score is not 200 above {own}:\n{}", watchdog.tail(20));
        signal(server, libc::SIGKILL);
        assert!(
            wait_until(SOON, || support::processes::server(watchdog.pid()).is_some_and(|next| next != server)),
            "{}",
            watchdog.tail(20)
        );
    }
}

/// What the kernel, when it looks for one to kill, adds to what the process holds, in thousandths of all there is.
fn oom_score(pid: u32) -> i32 {
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
    score.trim().parse().unwrap_or(i32::MIN)
}

#[test]
fn sigterm_leaves_no_process_behind_and_status_0() {
    let mut guarded = Guarded::start_plain();
    let server = guarded.server();
    guarded.watchdog.signal(libc::SIGTERM);
    let status = guarded.watchdog.wait_exit(SOON);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", guarded.watchdog.tail(20));
    assert!(!is_alive(server));
}

#[test]
fn a_server_that_is_told_to_end_by_somebody_else_is_replaced() {
    let guarded = Guarded::start_plain();
    let client = SteadyClient::start(guarded.dns);
    client.await_queries();
    signal(guarded.server(), libc::SIGTERM);
    guarded.await_restarts("exit", 1.0);
    guarded.await_answer();
    client.await_queries();
    client.finish();
}

/// Queries that it does not read meanwhile wait for its successor.
#[test]
fn a_server_that_is_told_to_end_does_not_wait_long_for_an_upstream_that_is_dead() {
    let silent = UdpSocket::bind(loopback(0)).expect("a socket");
    let upstream = silent.local_addr().expect("it is bound");
    let corefile = format!(
        "dead.example:{{port}} {{\n bind 127.0.0.1\n forward . {upstream}\n}}\n.:{{port}} {{\n bind 127.0.0.1\n whoami\n}}\n"
    );
    let guarded = Guarded::start(&corefile);
    let client = SteadyClient::start(guarded.dns);
    client.await_queries();
    let misses = UdpSocket::bind(loopback(0)).expect("a socket");
    misses.connect(loopback(guarded.dns)).expect("loopback");
    for n in 0..20 {
        let question = query(&format!("n{n}.dead.example."), "A").to_vec().expect("a query of ours encodes");
        misses.send(&question).expect("loopback");
    }
    silent.set_read_timeout(Some(SOON)).expect("a timeout above zero");
    silent.recv(&mut [0; 512]).expect("it is asked");
    signal(guarded.server(), libc::SIGTERM);
    guarded.await_restarts("exit", 1.0);
    guarded.await_answer();
    client.await_queries();
    client.finish();
}

#[test]
fn a_reload_takes_new_addresses_from_the_watchdog_and_gives_old_ones_back() {
    let guarded = Guarded::start_plain();
    let server = guarded.server();
    let second = free_port();
    let at = |ports: &[u16]| {
        let blocks = ports.iter().map(|port| format!(".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"));
        write_corefile(guarded.watchdog.folder.path(), &blocks.collect::<String>());
        guarded.watchdog.signal(libc::SIGUSR1);
    };
    let answers = |port: u16| ask(loopback(port), "a.example.", "A").is_some();
    at(&[guarded.dns, second]);
    assert!(wait_until(SOON, || answers(second)), "{}", guarded.watchdog.tail(20));
    at(&[second]);
    let is_closed = || TcpStream::connect(loopback(guarded.dns)).is_err();
    assert!(
        wait_until(SOON, is_closed),
        "the watchdog keeps a socket open that nobody serves:\n{}",
        guarded.watchdog.tail(20)
    );
    // And back again: what was given back is opened anew.
    at(&[guarded.dns, second]);
    assert!(wait_until(SOON, || answers(guarded.dns)), "{}", guarded.watchdog.tail(20));
    for _ in 0..50 {
        assert!(answers(guarded.dns) && answers(second), "{}", guarded.watchdog.tail(20));
    }
    assert_eq!(guarded.server(), server, "{}", guarded.watchdog.tail(20));
}

#[test]
fn a_corefile_from_standard_input_outlives_the_server_that_read_it() {
    let port = free_port();
    let mut command = Command::new(binary());
    command.args(["-conf", "stdin"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut process = command.spawn().expect("the program runs");
    let mut input = process.stdin.take().expect("standard input is a pipe");
    write!(input, ".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n").expect("the watchdog reads");
    drop(input);
    let answered = || ask(loopback(port), "a.example.", "A").is_some();
    let first = wait_until(SOON, answered).then(|| support::processes::server(process.id())).flatten();
    if let Some(server) = first {
        signal(server, libc::SIGKILL);
    }
    let is_replaced =
        wait_until(SOON, || support::processes::server(process.id()).is_some_and(|server| Some(server) != first))
            && answered();
    process.kill().expect("it runs");
    process.wait().expect("it is reaped");
    assert!(first.is_some() && is_replaced, "{first:?} {is_replaced}");
}

#[test]
fn the_pidfile_holds_the_watchdogs_process_id() {
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &format!(".:{} {{\n bind 127.0.0.1\n whoami\n}}\n", free_port()));
    let pidfile = folder.path().join("pid");
    let mut command = Command::new(binary());
    command.arg("-conf").arg(corefile).arg("-pidfile").arg(&pidfile);
    let server = Server::spawn(command, folder);
    server.wait_output("try: dig", SOON);
    assert_eq!(std::fs::read_to_string(pidfile).ok(), Some(format!("{}\n", server.pid())));
}

#[test]
fn a_control_descriptor_that_is_none_is_refused() {
    for value in ["3", "1", "x", "999"] {
        let output = Command::new(binary()).env("NODELOCALDNS_CONTROL_FD", value).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{value}: {said}");
        assert!(said.contains("NODELOCALDNS_CONTROL_FD"), "{value}: {said}");
    }
}

/// An agent in a network namespace of its own, whose link is a bridge.
struct NamespacedAgent {
    namespace: Namespace,
    watchdog: Server,
}

impl NamespacedAgent {
    fn start(interception: &str) -> Self {
        let namespace = Namespace::new(&[]);
        let folder = scratch();
        let template = write_corefile(folder.path(), ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n}\n");
        let mut command = namespace.command(binary());
        command.args(["-localip", "10.96.0.10", "--interception", interception, "-basecorefile"]).arg(&template);
        command.arg("-conf").arg(folder.path().join("rendered"));
        let add = namespace.command("ip").args(["link", "add", "nodelocaldns", "type", "bridge"]).status();
        assert!(add.is_ok_and(|status| status.success()));
        let watchdog = Server::spawn(command, folder);
        watchdog.wait_output("try: dig", SOON);
        Self { namespace, watchdog }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let scraped =
            self.namespace.command("curl").args(["-s", "http://127.0.0.1:9353/metrics"]).output().expect("curl runs");
        let text = String::from_utf8_lossy(&scraped.stdout).into_owned();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

const INTERCEPTION: &str = "nodelocaldns_watchdog_interception";

#[test]
fn the_interception_metric_stays_zero_where_none_is_asked_for() {
    let agent = NamespacedAgent::start("none");
    let count = "nodelocaldns_watchdog_probe_duration_seconds_count";
    assert!(wait_until(SOON, || agent.metric(count).is_some_and(|count| count > 20.0)), "{}", agent.watchdog.tail(20));
    assert_eq!(agent.metric(INTERCEPTION), Some(0.0));
}

#[test]
fn a_link_that_is_gone_ends_the_interception_and_the_metric_and_the_log_say_so_once() {
    let agent = NamespacedAgent::start("nftables");
    assert!(wait_until(SOON, || agent.metric(INTERCEPTION) == Some(1.0)), "{}", agent.watchdog.tail(20));
    let delete = agent.namespace.command("ip").args(["link", "delete", "nodelocaldns"]).status();
    assert!(delete.is_ok_and(|status| status.success()));
    // Or the kernel has the dummy driver, and the link is back before anybody looks.
    let is_withdrawn =
        || agent.metric(INTERCEPTION) == Some(0.0) || agent.watchdog.output().contains("nodelocaldns: made");
    assert!(wait_until(SOON, is_withdrawn), "{}", agent.watchdog.tail(20));
    let failures = "nodelocaldns_watchdog_probe_failures_total{transport=\"udp\"}";
    wait_until(Duration::from_secs(2), || agent.metric(failures).is_some_and(|count| count > 10.0));
    // One for each transport, and another one if the kernel's reason changes.
    let complaints = agent.watchdog.output().matches("cannot ask").count();
    assert!(complaints <= 4, "{complaints} complaints:\n{}", agent.watchdog.tail(20));
}
