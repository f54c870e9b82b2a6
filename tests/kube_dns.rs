//! The node agent's Corefile: rendered from its template and the kube-dns ConfigMap, and again whenever they change.

mod support;

use hickory_proto::op::ResponseCode;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;
use support::client::{ask, loopback, metric};
use support::ports::{free_port, taken_port};
use support::processes::kill_server;
use support::server::{Server, binary, scratch, wait_until};
use support::steady::SteadyClient;
use support::tools::{everything, write};
use support::upstream::{Upstream, address_rule};
use tempfile::TempDir;

/// How long a change may take to be served, on a machine that is busy with other tests. Well below the poll (10 s),
/// which would hide a change that was not noticed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long something that must not happen is waited for.
const SILENCE: Duration = Duration::from_millis(1500);
/// What everything is asked for.
const WHO: &str = "who.acme.local.";

/// A ConfigMap as the kubelet mounts it: files are links through `..data`, which a rename replaces.
struct ConfigMap {
    folder: TempDir,
    versions: u32,
}

impl ConfigMap {
    fn new(keys: &[(&str, &str)]) -> Self {
        let mut map = Self { folder: scratch(), versions: 0 };
        map.swap(keys);
        map
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn swap(&mut self, keys: &[(&str, &str)]) {
        self.versions += 1;
        let version = format!("..version_{}", self.versions);
        std::fs::create_dir(self.path(&version)).expect("the scratch folder can be written");
        for (key, text) in keys {
            write(&self.path(&version), key, text);
        }
        symlink(&version, self.path("..data_tmp")).expect("the scratch folder can be written");
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).expect("the scratch folder can be written");
        for (key, _) in keys.iter().filter(|(key, _)| self.path(key).symlink_metadata().is_err()) {
            symlink(Path::new("..data").join(key), self.path(key)).expect("the scratch folder can be written");
        }
        if self.versions > 1 {
            std::fs::remove_dir_all(self.path(&format!("..version_{}", self.versions - 1)))
                .expect("the old version is there");
        }
    }
}

/// An upstream that says `address` for every name the tests ask for.
fn upstream_saying(address: &str) -> Upstream {
    let names = [WHO, "steady.example.", "other.example."];
    Upstream::start(names.iter().map(|name| address_rule(name, 0, address)).collect(), None)
}

/// Two upstreams, a template, a ConfigMap, and a program to serve them.
struct Stage {
    /// Says 192.0.2.1; the template's.
    first: Upstream,
    /// Says 192.0.2.2; the ConfigMap's.
    second: Upstream,
    template: ConfigMap,
    kube_dns: ConfigMap,
    conf: TempDir,
    dns: u16,
    metrics: u16,
}

impl Stage {
    fn new() -> Self {
        Self {
            first: upstream_saying("192.0.2.1"),
            second: upstream_saying("192.0.2.2"),
            template: ConfigMap::new(&[]),
            kube_dns: ConfigMap::new(&[]),
            conf: scratch(),
            dns: free_port(),
            metrics: free_port(),
        }
    }
    fn conf(&self) -> PathBuf {
        self.conf.path().join("Corefile")
    }
    fn written(&self) -> String {
        std::fs::read_to_string(self.conf()).unwrap_or_default()
    }
    /// A block for all names, with more directives.
    fn template_text(&self, directives: &str) -> String {
        format!(
            ".:{} {{\n    bind __PILLAR__LOCAL__DNS__\n    forward . 127.0.0.1:{}\n    {directives}\n}}\n",
            self.dns, self.first.port
        )
    }
    fn set_template(&mut self, text: &str) {
        self.template.swap(&[("Corefile.base", text)]);
    }
    fn stub_domain(&self) -> String {
        format!("{{\"acme.local\": [\"127.0.0.1:{}\"]}}", self.second.port)
    }
    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.args(["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false"]);
        command.arg("-dns.port").arg(self.dns.to_string());
        command.arg("-metrics-listen-address").arg(format!("127.0.0.1:{}", self.metrics));
        command.arg("-basecorefile").arg(self.template.path("Corefile.base"));
        command.arg("-kubednscm").arg(self.kube_dns.folder.path());
        command.arg("-conf").arg(self.conf());
        command
    }
    fn start(&self) -> Server {
        self.spawn(self.command())
    }
    fn spawn(&self, command: Command) -> Server {
        let mut server = Server::spawn(command, scratch());
        server.wait_ready(self.dns).unwrap_or_else(|e| panic!("{e}"));
        // Listening it is before; what it renders is written before it answers.
        let answers = || ask(loopback(self.dns), "ready.example.", "A").is_some();
        assert!(wait_until(PATIENCE, answers), "no answer within {PATIENCE:?}:\n{}", server.tail(20));
        server
    }
    /// Waits until the metric says whether what is configured is refused.
    fn is_refused(&self, expected: bool) -> bool {
        let value = Some(f64::from(u8::from(expected)));
        wait_until(PATIENCE, || metric(self.metrics, "nodelocaldns_configuration_refused") == value)
    }
    /// Who answers.
    fn who(&self) -> Option<String> {
        ask(loopback(self.dns), WHO, "A")?.answers.first().map(|record| record.data.to_string())
    }
    fn wait_who(&self, address: &str, server: &Server) {
        let served = wait_until(PATIENCE, || self.who().as_deref() == Some(address));
        assert!(
            served,
            "{address} did not answer within {PATIENCE:?}:\n{}\n--- written\n{}",
            server.tail(30),
            self.written()
        );
    }
    fn errors(&self, error_type: &str) -> Option<f64> {
        metric(self.metrics, &format!("coredns_nodecache_setup_errors_total{{errortype=\"{error_type}\"}}"))
    }
    fn wait_errors(&self, count: f64, server: &Server) {
        let counted = wait_until(PATIENCE, || self.errors("configmap") == Some(count));
        assert!(counted, "{:?} errors are counted, not {count}:\n{}", self.errors("configmap"), server.tail(30));
    }
}

#[test]
fn a_stub_domain_is_served_at_once_and_no_query_is_lost() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    let server = stage.start();
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"));
    assert_eq!(stage.written(), stage.template_text("").replace("__PILLAR__LOCAL__DNS__", "127.0.0.1"));
    for error_type in ["configmap", "interface_add", "interface_check", "iptables", "iptables_lock"] {
        assert_eq!(stage.errors(error_type), Some(0.0), "{error_type}");
    }
    let client = SteadyClient::start(stage.dns);
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    stage.wait_who("192.0.2.2", &server);
    let block = format!(
        "\nacme.local:{} {{\n    errors\n    cache 30\n    bind 127.0.0.1\n    forward . 127.0.0.1:{}\n}}\n",
        stage.dns, stage.second.port
    );
    // It is written once it serves.
    assert!(wait_until(PATIENCE, || stage.written().ends_with(&block)), "{}", stage.written());
    stage.kube_dns.swap(&[("stubDomains", "{}")]);
    stage.wait_who("192.0.2.1", &server);
    client.await_queries();
    client.finish();
    assert_eq!(stage.errors("configmap"), Some(0.0));
}

#[test]
fn a_changed_template_is_served_at_once_and_what_is_written_is_always_whole() {
    let mut stage = Stage::new();
    let text = |stage: &Stage, upstream: u16, number: u32| {
        let padding = format!("# template {number} of a length that takes more than one write\n").repeat(2000);
        format!(
            ".:{} {{\n    bind __PILLAR__LOCAL__DNS__\n    forward . 127.0.0.1:{upstream}\n}}\n{padding}# end\n",
            stage.dns
        )
    };
    stage.set_template(&text(&stage, stage.first.port, 0));
    let server = stage.start();
    let conf = stage.conf();
    std::thread::scope(|scope| {
        // Ends the reader when it is dropped, also by a wait that fails.
        let (swapping, swapped) = mpsc::channel::<()>();
        let conf = &conf;
        let reader = scope.spawn(move || {
            let mut count = 0_u32;
            while swapped.try_recv() == Err(TryRecvError::Empty) {
                let read = std::fs::read_to_string(conf).expect("it is always there");
                assert!(read.starts_with(".:") && read.ends_with("# end\n"), "a part of it: {} octets", read.len());
                count += 1;
            }
            count
        });
        for number in 1..=6 {
            let (upstream, address) =
                if number % 2 == 1 { (stage.second.port, "192.0.2.2") } else { (stage.first.port, "192.0.2.1") };
            stage.set_template(&text(&stage, upstream, number));
            stage.wait_who(address, &server);
        }
        drop(swapping);
        assert!(reader.join().expect("the reader saw whole files") > 10);
    });
    // The last one is written after it serves.
    let left = || -> Vec<_> {
        std::fs::read_dir(stage.conf.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert!(wait_until(PATIENCE, || left() == ["Corefile"]), "{:?} is left", left());
}

#[test]
fn a_bad_configmap_is_refused_counted_and_told_and_the_last_good_one_serves() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    let server = stage.start();
    assert_eq!(stage.who().as_deref(), Some("192.0.2.2"));
    let good = stage.written();
    stage.kube_dns.swap(&[("stubDomains", "{\"acme.local\": [\"ns.example\"]}")]);
    stage.wait_errors(1.0, &server);
    let path = stage.kube_dns.path("stubDomains");
    let said = server.output();
    assert!(said.contains(&format!("{}: `ns.example` of the stub domain `acme.local`", path.display())), "{said}");
    stage.kube_dns.swap(&[("stubDomains", "{")]);
    stage.wait_errors(2.0, &server);
    assert_eq!(stage.who().as_deref(), Some("192.0.2.2"), "the last good one serves on");
    assert_eq!(stage.written(), good);
    assert!(stage.is_refused(true), "{}", server.tail(20));

    // The next server knows the last good one too.
    kill_server(server.pid());
    stage.wait_who("192.0.2.2", &server);

    // Neither is a changed template held up.
    stage.set_template(&stage.template_text("# changed"));
    assert!(wait_until(PATIENCE, || stage.written().contains("# changed")), "{}", server.tail(20));
    assert!(stage.written().contains("acme.local"));
    assert_eq!(stage.who().as_deref(), Some("192.0.2.2"));
    stage.kube_dns.swap(&[("stubDomains", "{}")]);
    stage.wait_who("192.0.2.1", &server);
    // Twice by the first server, and once by the next.
    assert_eq!(stage.errors("configmap"), Some(3.0));
    assert!(stage.is_refused(false), "{}", server.tail(20));
}

/// What the mended ConfigMap gives is what the template gave without it, and what stood there was served meanwhile.
#[test]
fn a_configmap_that_was_bad_at_the_start_and_says_nothing_now_is_served() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    let server = stage.start();
    assert!(wait_until(PATIENCE, || stage.written().contains("acme.local")), "{}", server.tail(30));
    drop(server);
    stage.kube_dns.swap(&[("stubDomains", "{")]);
    let server = stage.start();
    stage.wait_who("192.0.2.2", &server);
    assert!(stage.is_refused(true), "{}", server.tail(20));
    stage.kube_dns.swap(&[("stubDomains", "{}")]);
    stage.wait_who("192.0.2.1", &server);
    assert!(stage.is_refused(false), "{}", server.tail(20));
}

#[test]
fn a_corefile_that_comes_out_bad_is_refused_and_stands_beside_the_good_one() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    let server = stage.start();
    let good = stage.written();
    stage.set_template(&stage.template_text("cahce 30"));
    stage.wait_errors(1.0, &server);
    // Counted first, and told by another thread.
    server.wait_output("`cache`", PATIENCE);
    let said = server.output();
    let refused = stage.conf.path().join("Corefile.refused");
    assert!(said.contains(&format!("{}:4:5", refused.display())) && said.contains("`cache`"), "{said}");
    assert!(said.contains(&stage.template.path("Corefile.base").display().to_string()), "{said}");
    assert!(std::fs::read_to_string(&refused).is_ok_and(|text| text.lines().nth(3) == Some("    cahce 30")));
    assert_eq!(stage.written(), good);
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"));
    assert!(stage.is_refused(true), "{}", server.tail(20));
    // Whoever asks for a reload is told again, and served what stands there; what the template says is refused still.
    server.signal(libc::SIGUSR1);
    stage.wait_errors(2.0, &server);
    server.wait_output("the changed Corefile serves", PATIENCE);
    assert!(stage.is_refused(true), "{}", server.tail(20));
    // A process that begins serves what its predecessor has written, and shows it.
    drop(server);
    let server = stage.start();
    assert!(stage.is_refused(true), "{}", server.tail(20));
    stage.wait_errors(1.0, &server);

    // A pillar without a value is told with its place in the template.
    stage.set_template(&stage.template_text("forward b.example __PILLAR__CLUSTER__DNS__"));
    stage.wait_errors(2.0, &server);
    server.wait_output("Corefile.base:4:23", PATIENCE);
    let said = server.output();
    assert!(said.contains("Corefile.base:4:23") && said.contains("-upstreamsvc"), "{said}");

    stage.set_template(&stage.template_text("cache 30"));
    assert!(wait_until(PATIENCE, || stage.written().contains("cache 30")), "{}", server.tail(20));
    assert!(wait_until(PATIENCE, || !refused.exists()), "it goes after the good one is written");
    assert!(stage.is_refused(false), "{}", server.tail(20));
}

#[test]
fn a_corefile_that_is_refused_for_want_of_a_file_is_judged_again_once_that_comes_or_on_sigusr1() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    let server = stage.start();
    // What is wanted stands where nothing else is watched.
    let wanted = scratch();
    let import = wanted.path().join("part");
    let authority = wanted.path().join("ca.crt");
    let changed = format!(
        "{}acme.local:{} {{\n    bind 127.0.0.1\n    import {}\n}}\n\
         tls.example:{} {{\n    bind 127.0.0.1\n    forward . tls://127.0.0.1 {{\n        tls {}\n    }}\n}}\n",
        stage.template_text(""),
        stage.dns,
        import.display(),
        stage.dns,
        authority.display()
    );
    stage.set_template(&changed);
    stage.wait_errors(1.0, &server);
    server.signal(libc::SIGUSR1);
    stage.wait_errors(2.0, &server);
    write(wanted.path(), "part", &format!("forward . 127.0.0.1:{}\n", stage.second.port));
    stage.wait_errors(3.0, &server);
    server.wait_output("ca.crt cannot be read", PATIENCE);
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"), "what served before serves on");
    let certified = rcgen::generate_simple_self_signed(["dns.example".to_owned()]).expect("a certificate is made");
    write(wanted.path(), "ca.crt", &certified.cert.pem());
    stage.wait_who("192.0.2.2", &server);
    assert_eq!(stage.errors("configmap"), Some(3.0));
}

/// A template that cannot be served yet takes nothing away: what its predecessor has written serves, also once more.
#[test]
fn a_template_whose_port_is_taken_at_the_start_is_served_once_the_port_is_free_and_its_predecessor_until_then() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text("reload 2s"));
    drop(stage.start());
    let good = stage.written();
    let (taken, port) = taken_port();
    let other = format!("other.example:{port} {{\n    bind 127.0.0.1\n    whoami\n}}\n");
    let changed = stage.template_text("reload 2s");
    let changed = changed.replace(&stage.first.port.to_string(), &stage.second.port.to_string());
    stage.set_template(&format!("{changed}{other}"));
    for _ in 0..2 {
        let server = stage.start();
        assert_eq!(stage.who().as_deref(), Some("192.0.2.1"), "{}", server.tail(20));
        assert!(stage.is_refused(true), "{}", server.tail(20));
        assert_eq!(stage.written(), good);
        assert!(server.output().contains(&format!("127.0.0.1:{port}")), "{}", server.output());
    }
    let server = stage.start();
    // Looks at what stands there take nothing away.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"), "{}", server.tail(20));
    drop(taken);
    stage.wait_who("192.0.2.2", &server);
    assert!(stage.is_refused(false), "{}", server.tail(20));
    assert!(wait_until(PATIENCE, || stage.written().contains("other.example")), "{}", server.tail(20));
}

#[test]
fn without_a_template_a_server_that_dies_is_followed_by_one_that_serves_the_corefile_as_it_stands_then() {
    let stage = Stage::new();
    let text = stage.template_text("").replace("__PILLAR__LOCAL__DNS__", "127.0.0.1");
    write(stage.conf.path(), "Corefile", &text);
    let server = stage.start();
    let kill = |address: &str| {
        kill_server(server.pid());
        stage.wait_who(address, &server);
    };
    kill("192.0.2.1");
    let changed = text.replace(&stage.first.port.to_string(), &stage.second.port.to_string());
    write(stage.conf.path(), "Corefile", &changed);
    kill("192.0.2.2");
    write(stage.conf.path(), "Corefile", "nonsense {");
    kill("192.0.2.2");
}

/// Where nothing can be written, what served last is what the watchdog remembers.
#[test]
fn a_corefile_that_serves_from_memory_serves_on_when_the_server_dies_while_the_template_is_bad() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text("reload 2s"));
    let mut command = stage.command();
    command.arg("-conf").arg(stage.conf.path().join("no-such-folder/Corefile"));
    let server = stage.spawn(command);
    let kill = |stage: &Stage, address: &str| {
        kill_server(server.pid());
        stage.wait_who(address, &server);
        assert!(stage.is_refused(true), "{}", server.tail(20));
    };
    let other = stage.template_text("").replace(&stage.first.port.to_string(), &stage.second.port.to_string());
    stage.set_template("nonsense {");
    kill(&stage, "192.0.2.1");
    server.signal(libc::SIGUSR1);
    kill(&stage, "192.0.2.1");
    stage.set_template(&other);
    stage.wait_who("192.0.2.2", &server);
    assert!(stage.is_refused(false), "{}", server.tail(20));
    server.signal(libc::SIGUSR1);
    stage.kube_dns.swap(&[("stubDomains", "{")]);
    kill(&stage, "192.0.2.2");
    stage.kube_dns.swap(&[("stubDomains", "{}")]);
    assert!(stage.is_refused(false), "{}", server.tail(20));
    // One that cannot be served yet waits for its port, whatever becomes of the server.
    let (taken, port) = taken_port();
    let more = format!("other.example:{port} {{\n    bind 127.0.0.1\n    whoami\n}}\n");
    stage.set_template(&format!("{}{more}", stage.template_text("")));
    assert!(stage.is_refused(true), "{}", server.tail(20));
    kill(&stage, "192.0.2.2");
    drop(taken);
    stage.wait_who("192.0.2.1", &server);
    assert!(stage.is_refused(false), "{}", server.tail(20));
}

#[test]
fn upstream_nameservers_of_the_configmap_are_asked_over_udp() {
    let mut stage = Stage::new();
    let template = format!(
        ".:{} {{\n\tbind __PILLAR__LOCAL__DNS__\n\tforward . __PILLAR__UPSTREAM__SERVERS__ {{\n\t\tforce_tcp\n\t}}\n}}\n",
        stage.dns
    );
    stage.set_template(&template);
    let server = stage.start();
    assert!(stage.written().contains("forward . /etc/resolv.conf {"), "{}", stage.written());
    stage.kube_dns.swap(&[("upstreamNameservers", &format!("[\"127.0.0.1:{}\"]", stage.second.port))]);
    stage.wait_who("192.0.2.2", &server);
    let seen = stage.second.take_seen();
    assert!(seen.keys().all(|query| query.starts_with("udp ")) && !seen.is_empty(), "{seen:?}");
}

#[test]
fn pillars_come_from_flags_and_the_environment() {
    let mut stage = Stage::new();
    stage.set_template(&format!(
        ".:{} {{\n    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n    forward . __PILLAR__CLUSTER__DNS__:{}\n    prometheus __PROMETHEUS__ENDPOINT__\n}}\n",
        stage.dns, stage.first.port
    ));
    let prometheus = free_port();
    let mut command = stage.command();
    command.arg("-upstreamsvc=kube-dns-upstream").env("KUBE_DNS_UPSTREAM_SERVICE_HOST", "127.0.0.1");
    command.arg(format!("-prometheus-listen-address=127.0.0.1:{prometheus}"));
    let _server = stage.spawn(command);
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"));
    assert!(metric(prometheus, "coredns_build_info").is_some());
}

#[test]
fn a_hand_edited_corefile_is_read_where_it_says_reload_or_on_sigusr1() {
    for reload in ["", "reload 1h 0s"] {
        let mut stage = Stage::new();
        stage.set_template(&stage.template_text(reload));
        let server = stage.start();
        let edited = stage
            .written()
            .replace(&format!("127.0.0.1:{}", stage.first.port), &format!("127.0.0.1:{}", stage.second.port));
        write(stage.conf.path(), "Corefile", &edited);
        if reload.is_empty() {
            assert!(
                !wait_until(SILENCE, || stage.who().as_deref() != Some("192.0.2.1")),
                "nobody asked for the change"
            );
            server.signal(libc::SIGUSR1);
        }
        stage.wait_who("192.0.2.2", &server);
        assert_eq!(stage.written(), edited);
        stage.set_template(&stage.template_text(&format!("{reload} # changed")));
        stage.wait_who("192.0.2.1", &server);
    }
}

#[test]
fn where_nothing_can_be_written_it_serves_from_memory() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    let mut command = stage.command();
    command.args(["-conf", "/no/such/folder/Corefile"]);
    let server = stage.spawn(command);
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"));
    assert_eq!(stage.errors("configmap"), Some(1.0));
    assert!(server.output().contains("/no/such/folder/Corefile"), "{}", server.output());
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    stage.wait_who("192.0.2.2", &server);
}

#[test]
fn a_template_that_is_also_the_corefile_is_served_and_never_overwritten() {
    let stage = Stage::new();
    let template = stage.template_text("");
    let path = write(stage.conf.path(), "Corefile", &template);
    let mut command = stage.command();
    command.arg("-basecorefile").arg(&path);
    let server = stage.spawn(command);
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"));
    assert_eq!(stage.written(), template);
    assert!(server.output().contains("give -conf another path"), "{}", server.output());
}

#[test]
fn without_a_template_the_corefile_is_served_as_it_stands_until_one_comes() {
    let mut stage = Stage::new();
    let text = stage.template_text("").replace("__PILLAR__LOCAL__DNS__", "127.0.0.1");
    write(stage.conf.path(), "Corefile", &text);
    let server = stage.start();
    assert_eq!(stage.who().as_deref(), Some("192.0.2.1"));
    assert_eq!(stage.errors("configmap"), Some(1.0));
    assert!(server.output().contains("-basecorefile"), "{}", server.output());
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    stage.set_template(&stage.template_text(""));
    stage.wait_who("192.0.2.2", &server);
}

#[test]
fn started_with_a_bad_configmap_it_serves_what_served_last_or_the_template_alone() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    stage.kube_dns.swap(&[("stubDomains", "{")]);
    let server = stage.start();
    stage.wait_who("192.0.2.1", &server);
    stage.wait_errors(1.0, &server);
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    stage.wait_who("192.0.2.2", &server);
    // What serves is written after that, and killed between the two it would have served nothing that its successor
    // knows of.
    assert!(wait_until(PATIENCE, || stage.written().contains("acme.local")), "{}", server.tail(30));
    drop(server);

    stage.kube_dns.swap(&[("stubDomains", "{")]);
    let server = stage.start();
    // What served last.
    stage.wait_who("192.0.2.2", &server);
    drop(server);

    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    stage.set_template(&stage.template_text("cahce"));
    let server = stage.start();
    stage.wait_who("192.0.2.2", &server);
    assert!(server.output().contains("`cahce`"), "{}", server.output());
}

#[test]
fn a_bad_template_without_a_corefile_to_fall_back_on_ends_it_with_every_reason() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text("forward b.example __PILLAR__CLUSTER__DNS__"));
    let output = stage.command().output().expect("the program runs");
    let said = everything(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["Corefile.base:4:23", "__PILLAR__CLUSTER__DNS__", "KUBE_DNS_SERVICE_HOST", "-upstreamsvc"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

#[test]
fn other_names_are_not_the_stub_domains() {
    let mut stage = Stage::new();
    stage.set_template(&stage.template_text(""));
    stage.kube_dns.swap(&[("stubDomains", &stage.stub_domain())]);
    let _server = stage.start();
    let answer = ask(loopback(stage.dns), "other.example.", "A").expect("an answer");
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers.first().map(|record| record.data.to_string()).as_deref(), Some("192.0.2.1"));
}

#[test]
fn the_version_is_printed_in_the_references_shape() {
    let output = Command::new(binary()).arg("-version").output().expect("the program runs");
    let said = everything(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(lines.first().copied(), Some(concat!("nodelocaldns-", env!("CARGO_PKG_VERSION"))));
    assert!(lines.get(1).is_some_and(|line| line.starts_with("linux/")), "{said}");
}
