//! `nodelocaldns queries` and the whole program: what a running server is asked, shown as it is answered.

mod support;

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use serde_json::Value;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::client::{PATIENCE, ask, exchange_tcp, exchange_udp, loopback, query};
use support::ports::free_port;
use support::processes::{kill_server, signal};
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::steady::SteadyClient;
use support::tools::{run, tool, write};
use support::upstream::{Reply, Rule, Upstream, address_rule};

const SOON: Duration = Duration::from_secs(60);

/// Of nobody on any machine.
const STRANGER: u32 = 61054;

/// Taps at a time.
const MOST_TAPS: usize = 4;

struct Scene {
    server: Server,
    upstream: Upstream,
    dns: u16,
    tls: u16,
    https: u16,
    label: String,
}

impl Scene {
    fn start() -> Self {
        let rule = |name: &str, reply: Reply| Rule { name: name.to_owned(), rtype: "*".to_owned(), via: None, reply };
        let slow = Reply { delay: 0.3, rcode: Some("NXDOMAIN".to_owned()), ..Reply::default() };
        let bad = Reply { rcode: Some("SERVFAIL".to_owned()), ..Reply::default() };
        let rules =
            vec![address_rule("a.example.", 300, "192.0.2.1"), rule("slow.example.", slow), rule("bad.example.", bad)];
        let upstream = Upstream::start(rules, Some(Reply { rcode: Some("NXDOMAIN".to_owned()), ..Reply::default() }));
        let [dns, tls, https] = [(); 3].map(|()| free_port());
        let folder = scratch();
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
        write(folder.path(), "tls.crt", &certificate.cert.pem());
        write(folder.path(), "tls.key", &certificate.signing_key.serialize_pem());
        let path = write_corefile(folder.path(), &Self::corefile(&upstream, dns, &Self::encrypted([tls, https])));
        let label = format!("queries-{dns}");
        let mut command = reference_command(&path, free_port());
        command.args(["--workers", "2", "--admin-socket", &label]);
        let mut server = Server::spawn(command, folder);
        server.wait_ready(dns).unwrap_or_else(|error| panic!("{error}"));
        Self { server, upstream, dns, tls, https, label }
    }

    fn encrypted([tls, https]: [u16; 2]) -> String {
        format!("tls://example.:{tls} https://example.:{https} ")
    }

    /// Served at further addresses, too.
    fn corefile(upstream: &Upstream, dns: u16, more: &str) -> String {
        format!(
            "example.:{dns} {more}{{\n bind 127.0.0.1\n tls tls.crt tls.key\n cache 300\n forward . 127.0.0.1:{}\n}}\n\
             local.:{dns} {{\n bind 127.0.0.1\n whoami\n}}\n\
             silent.:{dns} {{\n bind 127.0.0.1\n acl {{\n  drop\n }}\n whoami\n}}\n",
            upstream.port
        )
    }

    fn ask(&self, name: &str) {
        assert!(ask(loopback(self.dns), name, "A").is_some(), "{name}\n{}", self.server.tail(20));
    }

    /// How many are shown queries, or have been, as the log says.
    fn begun(&self) -> usize {
        self.server.output().matches(" is shown queries").count()
    }

    /// Begins to be shown queries.
    fn watch(&self, arguments: &[&str]) -> Watch {
        let begun = self.begun();
        let mut command = Command::new(binary());
        command.arg("queries").args(["--admin-socket", &self.label]).args(arguments);
        let watch = Watch::start(command);
        let has_begun = wait_until(SOON, || self.begun() > begun);
        assert!(has_begun, "{}\n{}", watch.errors.text(), self.server.tail(20));
        watch
    }

    /// The same in JSON.
    fn watch_json(&self, arguments: &[&str]) -> Watch {
        self.watch(&[&["--output", "json"], arguments].concat())
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect_addr(&self.socket()).expect("somebody listens");
        stream.set_read_timeout(Some(SOON)).expect("an option");
        stream
    }

    fn socket(&self) -> UnixAddress {
        let list = std::fs::read_to_string("/proc/net/unix").expect("the kernel tells");
        let start = format!("@nodelocaldns/{}/", self.label);
        let name = list.split_whitespace().find(|word| word.starts_with(&start)).expect("it listens");
        UnixAddress::from_abstract_name(&name[1..]).expect("a name")
    }
}

/// What comes from a pipe.
#[derive(Clone, Default)]
struct Piped(Arc<Mutex<Vec<u8>>>);

impl Piped {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let piped = Self::default();
        let octets = piped.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                octets.0.lock().expect("nobody panics").extend_from_slice(&buffer[..length]);
            }
        });
        piped
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics")).into_owned()
    }
}

/// The command, as it runs.
struct Watch {
    process: Child,
    out: Piped,
    errors: Piped,
}

impl Watch {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let out = Piped::of(process.stdout.take().expect("a pipe"));
        let errors = Piped::of(process.stderr.take().expect("a pipe"));
        Self { process, out, errors }
    }

    fn queries(&self) -> Vec<Value> {
        let text = self.out.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Waits until so many are shown, and no more.
    fn await_queries(&self, count: usize) -> Vec<Value> {
        wait_until(SOON, || self.queries().len() >= count);
        let queries = self.queries();
        assert_eq!(queries.len(), count, "{queries:#?}");
        queries
    }

    fn exit_status(&mut self) -> ExitStatus {
        assert!(wait_until(SOON, || self.process.try_wait().expect("it can be asked").is_some()), "it does not end");
        self.process.wait().expect("it has ended")
    }

    /// Ends it as Ctrl-C does; how many it says that it has shown.
    fn finish(mut self) -> (Vec<Value>, String) {
        signal(self.process.id().cast_signed(), libc::SIGINT);
        let status = self.exit_status();
        assert!(wait_until(SOON, || self.errors.text().contains("queries were shown")), "{}", self.errors.text());
        assert!(status.success(), "{}", self.errors.text());
        (self.queries(), self.errors.text())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn kdig(words: &str, port: u16) {
    let mut command = tool("kdig");
    let text = run(command.args(["@127.0.0.1", "-p", &port.to_string(), "a.example.", "A"]).args(words.split(' ')));
    assert!(text.contains("192.0.2.1"), "{text}");
}

/// The values of some fields.
fn fields<const N: usize>(query: &Value, names: [&str; N]) -> [String; N] {
    names.map(|name| query[name].as_str().map_or_else(|| query[name].to_string(), str::to_owned))
}

#[test]
fn whatever_is_asked_is_shown_however_it_came_and_however_it_was_answered() {
    let scene = Scene::start();
    let watch = scene.watch_json(&[]);
    let wire = query("a.example.", "A").to_vec().expect("it encodes");
    let server = loopback(scene.dns);
    // The first asks upstream. Of the same octets from one socket, which is one worker's, the packet cache soon has an
    // answer.
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(server).expect("an address");
    client.set_read_timeout(Some(PATIENCE)).expect("an option");
    for _ in 0..50 {
        client.send(&wire).expect("it is sent");
        client.recv(&mut [0; 512]).expect("an answer");
    }
    let queries = watch.await_queries(50);
    let port = client.local_addr().expect("it has one").port();
    for (number, query) in queries.iter().enumerate() {
        let expected = if number == 0 { ["miss", "forward"] } else { ["hit", "cache"] };
        assert_eq!(fields(query, ["how", "answered_by"]), expected, "{query}");
        assert_eq!(fields(query, ["client", "protocol", "rcode"]), ["127.0.0.1", "udp", "NOERROR"]);
        assert_eq!((&query["port"], &query["server"]), (&port.into(), &server.to_string().into()), "{query}");
    }
    assert_eq!(queries[0]["upstream"], loopback(scene.upstream.port).to_string());

    exchange_tcp(server, &wire, PATIENCE).expect("an answer");
    kdig("+tls", scene.tls);
    kdig("+https", scene.https);
    scene.ask("x.local.");
    scene.ask("elsewhere.");
    scene.ask("bad.example.");
    let silent = query("x.silent.", "A").to_vec().expect("it encodes");
    assert!(exchange_udp(server, &silent, Duration::from_millis(100)).is_err());
    client.send(b"short").expect("it is sent");
    let mut notify = wire;
    notify[2] |= 4 << 3;
    assert!(exchange_udp(server, &notify, PATIENCE).is_ok());
    let queries = watch.await_queries(59);
    let rest = queries[50..].iter().map(|query| fields(query, ["protocol", "name", "rcode", "how", "answered_by"]));
    let mut rest: Vec<_> = rest.collect();
    let mut expected = [
        ["tcp", "a.example.", "NOERROR", "hit", "cache"],
        ["tls", "a.example.", "NOERROR", "hit", "cache"],
        ["https", "a.example.", "NOERROR", "hit", "cache"],
        ["udp", "x.local.", "NOERROR", "local", "whoami"],
        ["udp", "elsewhere.", "REFUSED", "rejected", ""],
        ["udp", "bad.example.", "SERVFAIL", "miss", "forward"],
        ["udp", "x.silent.", "null", "dropped", "acl"],
        ["udp", "null", "null", "dropped", ""],
        ["udp", "null", "NOTIMP", "rejected", ""],
    ];
    // Two workers and the thread of clients within TLS: not all in the order in which they came.
    rest.sort_unstable();
    expected.sort_unstable();
    assert_eq!(rest, expected);
    let (queries, errors) = watch.finish();
    assert_eq!((queries.len(), &*errors), (59, "59 queries were shown, 0 lost\n"), "the watchdog's are none");
    let output = scene.server.output();
    assert!(output.contains("is shown no more queries: 59 were shown, 0 lost"), "{output}");
}

#[test]
fn a_filter_is_the_servers_and_a_limit_ends_it() {
    let scene = Scene::start();
    let all = scene.watch_json(&[]);
    let slow = scene.watch_json(&["--slower-than", "200ms", "--rcode", "nxdomain,servfail"]);
    let mut some = scene.watch(&["--name", "*.Example", "--client", "127.0.0.0/30", "--type", "AAAA", "--limit", "2"]);
    let from = |address: &str, name: &str, rtype: &str| {
        let socket = UdpSocket::bind((address, 0)).expect("all of 127.0.0.0/8 is here");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.send_to(&query(name, rtype).to_vec().expect("it encodes"), loopback(scene.dns)).expect("it is sent");
        socket.recv(&mut [0; 512]).expect("an answer");
    };
    for (address, name, rtype) in [
        ("127.0.0.2", "a.example.", "AAAA"),
        ("127.0.0.4", "a.example.", "AAAA"),
        ("127.0.0.3", "a.example.", "A"),
        ("127.0.0.3", "a.local.", "AAAA"),
        ("127.0.0.1", "slow.example.", "TXT"),
        ("127.0.0.3", "b.example.", "AAAA"),
        ("127.0.0.3", "c.example.", "AAAA"),
    ] {
        from(address, name, rtype);
    }
    assert!(some.exit_status().success());
    assert!(wait_until(SOON, || some.errors.text().contains("were shown")));
    assert_eq!(some.errors.text(), "2 queries were shown, 0 lost\n");
    let text = some.out.text();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let shown: Vec<[&str; 3]> = lines.iter().map(|words| [words[2], words[3], words[4]]).collect();
    assert_eq!(shown, [["udp", "a.example.", "AAAA"], ["udp", "b.example.", "AAAA"]], "{text}");
    assert!(lines[0][1].starts_with("127.0.0.2:") && lines[0][7].ends_with("ms"), "{text}");
    all.await_queries(7);
    let slow = slow.await_queries(1);
    assert_eq!(fields(&slow[0], ["name", "type", "rcode"]), ["slow.example.", "TXT", "NXDOMAIN"]);
    assert!(slow[0]["took_us"].as_u64() > Some(200_000), "{slow:?}");
    assert_eq!(all.finish().0.len(), 7);
}

#[test]
fn who_does_not_read_loses_queries_that_are_counted_and_the_server_answers_all() {
    const QUERIES: u64 = 20_000;
    /// At a time.
    const BATCH: u64 = 20;
    let scene = Scene::start();
    scene.ask("a.example.");
    let client = SteadyClient::start(scene.dns);
    let mut stream = scene.connect();
    let filter = r#"{"queries":{"filter":{"clients":["127.0.0.9"]},"limit":null,"has_messages":false}}"#;
    writeln!(stream, "{filter}").expect("it reads");
    let mut lines = BufReader::new(stream.try_clone().expect("a descriptor more"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert_eq!(line, "{\"begun\":{}}\n");
    let socket = UdpSocket::bind("127.0.0.9:0").expect("all of 127.0.0.0/8 is here");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    let wire = query("a.example.", "A").to_vec().expect("it encodes");
    for _ in 0..QUERIES / BATCH {
        (0..BATCH).for_each(|_| _ = socket.send_to(&wire, loopback(scene.dns)).expect("it is sent"));
        (0..BATCH).for_each(|_| _ = socket.recv(&mut [0; 512]).expect("an answer"));
    }
    client.await_queries();
    client.finish();
    stream.shutdown(Shutdown::Write).expect("it is open");
    let lines: Vec<String> = lines.lines().map(|line| line.expect("it is read")).collect();
    let (last, before) = lines.split_last().expect("there are some");
    let shown = before.iter().filter(|line| line.starts_with("{\"query\":")).count() as u64;
    let lost = |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["lost"].as_u64().unwrap_or(0);
    let lost: u64 = before.iter().map(lost).sum();
    assert!(lost > 0 && shown > 0, "{shown} and {lost}");
    assert_eq!((shown + lost, &**last), (QUERIES, &*format!("{{\"done\":{{\"shown\":{shown},\"lost\":{lost}}}}}")));
}

#[test]
fn a_few_are_shown_queries_at_a_time_and_who_is_killed_leaves_his_place_and_no_tap() {
    let scene = Scene::start();
    let mut watches: Vec<Watch> = (0..MOST_TAPS).map(|_| scene.watch_json(&[])).collect();
    scene.ask("a.example.");
    watches.iter().for_each(|watch| _ = watch.await_queries(1));
    let mut refused = Watch::start({
        let mut command = Command::new(binary());
        command.args(["queries", "--admin-socket", &scene.label]);
        command
    });
    assert_eq!(refused.exit_status().code(), Some(1));
    assert!(wait_until(SOON, || refused.errors.text().contains("others are shown queries already")));
    for watch in &mut watches {
        watch.process.kill().expect("it runs");
        watch.exit_status();
    }
    let ended = || scene.server.output().matches("is shown no more queries").count() == MOST_TAPS;
    assert!(wait_until(SOON, ended), "{}", scene.server.tail(20));
    let watch = scene.watch_json(&[]);
    scene.ask("a.example.");
    watch.await_queries(1);
}

#[test]
fn a_capture_is_read_by_tcpdump() {
    let scene = Scene::start();
    let path = scene.server.folder.path().join("capture");
    // One that was there before, longer, and open to all.
    std::fs::write(&path, [b'x'; 65536]).expect("it can be written");
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
    let watch = scene.watch(&["--pcap", path.to_str().expect("it is text"), "--limit", "3"]);
    let piped = scene.watch(&["--pcap", "-", "--name", "*.local"]);
    scene.ask("a.example.");
    scene.ask("x.local.");
    let silent = query("x.silent.", "A").to_vec().expect("it encodes");
    assert!(exchange_udp(loopback(scene.dns), &silent, Duration::from_millis(100)).is_err());
    let mut watch = watch;
    assert!(watch.exit_status().success(), "{}", watch.errors.text());
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let read = |words: &[&str]| run(tool("tcpdump").args(["-n", "-vv", "-t", "-r"]).arg(&path).args(words));
    let text = read(&[]);
    let server = format!("127.0.0.1.{}", scene.dns);
    assert_eq!(text.matches("[udp sum ok]").count(), 5, "{text}");
    assert_eq!(text.matches(&format!("> {server}: ")).count(), 3, "{text}");
    assert_eq!(text.matches(&format!("{server} > 127.0.0.1.")).count(), 2, "nothing was said once: {text}");
    // As DNS, whatever the port.
    let text = read(&["-T", "domain"]);
    for part in ["A? a.example.", "A 192.0.2.1", "A? x.local.", "A? x.silent."] {
        assert!(text.contains(part), "{part}: {text}");
    }
    signal(piped.process.id().cast_signed(), libc::SIGINT);
    let mut piped = piped;
    assert!(piped.exit_status().success(), "{}", piped.errors.text());
    assert!(wait_until(SOON, || piped.errors.text().contains("1 queries were shown")), "{}", piped.errors.text());
    std::fs::write(&path, &*piped.out.0.lock().expect("nobody panics")).expect("it can be written");
    let text = read(&["-T", "domain"]);
    assert!(text.contains("A? x.local.") && !text.contains("example"), "{text}");
}

#[test]
fn it_goes_on_over_a_reload_and_what_the_reload_brings_is_shown_too() {
    let scene = Scene::start();
    // Without the thread of clients within TLS at first.
    std::fs::write(scene.server.corefile(), Scene::corefile(&scene.upstream, scene.dns, "")).expect("it is ours");
    let reload = |times: usize| {
        scene.server.signal(libc::SIGUSR1);
        let reloaded = || scene.server.output().matches("the changed Corefile serves").count() == times;
        assert!(wait_until(SOON, reloaded), "{}", scene.server.tail(20));
    };
    reload(1);
    let watch = scene.watch_json(&[]);
    scene.ask("a.example.");
    watch.await_queries(1);
    let port = free_port();
    let more = format!("tls://example.:{port} ");
    std::fs::write(scene.server.corefile(), Scene::corefile(&scene.upstream, scene.dns, &more)).expect("it is ours");
    reload(2);
    scene.ask("a.example.");
    kdig("+tls", port);
    kdig("+tls", port);
    let (queries, _) = {
        watch.await_queries(4);
        watch.finish()
    };
    let protocols: Vec<_> = queries.iter().map(|query| fields(query, ["protocol"]).concat()).collect();
    assert_eq!(protocols, ["udp", "udp", "tls", "tls"]);
}

#[test]
fn it_ends_with_the_server_and_says_so_and_with_who_reads_its_pipe() {
    let scene = Scene::start();
    let mut watch = scene.watch(&[]);
    scene.ask("a.example.");
    assert!(wait_until(SOON, || watch.out.text().contains("a.example.")));
    kill_server(scene.server.pid());
    assert_eq!(watch.exit_status().code(), Some(1));
    assert!(wait_until(SOON, || watch.errors.text().contains("the server has ended")), "{}", watch.errors.text());

    let begun = scene.begun();
    let mut command = Command::new(binary());
    command.args(["queries", "--admin-socket", &scene.label]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = None;
    // The next server may not be there yet.
    let is_shown = wait_until(SOON, || {
        let running = process.get_or_insert_with(|| command.spawn().expect("the program runs"));
        if running.try_wait().expect("it can be asked").is_some() {
            process = None;
        }
        scene.begun() > begun
    });
    assert!(is_shown, "{}", scene.server.tail(20));
    let mut process = process.expect("it runs");
    drop(process.stdout.take());
    // Without a query that it could fail to write.
    let ends = wait_until(SOON, || process.try_wait().expect("it can be asked").is_some());
    let mut errors = String::new();
    assert!(ends && process.wait().expect("it has ended").success());
    process.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("it is text");
    assert_eq!(errors, "", "nobody has to be told");
}

#[test]
fn a_stranger_is_shown_nothing() {
    assert!(rustix::process::geteuid().is_root(), "run as root: only root can become another user");
    let scene = Scene::start();
    let address = scene.socket();
    let stranger = std::thread::spawn(move || {
        let user = Uid::from_raw(STRANGER);
        set_thread_res_uid(user, user, user).expect("root may");
        let mut stream = UnixStream::connect_addr(&address).expect("it listens");
        _ = writeln!(stream, r#"{{"queries":{{"filter":{{}},"limit":null,"has_messages":true}}}}"#);
        let mut text = String::new();
        // Reset where the other side has not read all.
        _ = stream.read_to_string(&mut text);
        text
    });
    assert_eq!(stranger.join().expect("it does not panic"), "");
    assert_eq!(scene.begun(), 0);
    scene.server.wait_output(&format!("user {STRANGER} has connected to the admin socket"), SOON);
}

/// Names and addresses that a hostile client chooses.
#[test]
fn nothing_that_a_client_asks_for_is_obeyed_by_a_terminal() {
    let scene = Scene::start();
    let watch = scene.watch(&[]);
    // 255 octets with each that a label may have.
    let mut name = Vec::new();
    for label in [&(0..=62).collect::<Vec<u8>>()[..], &(127..=189).collect::<Vec<u8>>(), &[0x1b; 63], &[b'\n'; 61]] {
        name.push(label.len() as u8);
        name.extend_from_slice(label);
    }
    name.push(0);
    let wire = [&b"\0\x07\x01\0\0\x01\0\0\0\0\0\0"[..], &name, &[0xfe, 0xff, 0, 1]].concat();
    assert!(exchange_udp(loopback(scene.dns), &wire, PATIENCE).is_ok());
    assert!(wait_until(SOON, || watch.out.text().ends_with('\n')));
    let text = watch.out.text();
    let line = text.trim_end_matches('\n');
    assert!(line.chars().all(|character| matches!(character, ' '..='~')), "{text:?}");
    assert!(line.contains("TYPE65279 REFUSED rejected") && line.contains("\\027\\027"), "{text:?}");
}
