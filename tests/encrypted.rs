//! Zones over TLS and HTTPS, and metrics over TLS, with the clients that people have: kdig, dig and curl.

mod support;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::{ask, loopback, metric};
use support::ports::free_port;
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::steady::SteadyClient;
use support::tools::{everything, run, tool, write};
use support::upstream::Upstream;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
/// A thread of clients within TLS hangs after 15 s in which the watchdog ran.
const HANG_PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "dns.example";

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // By another name than the server's: OpenSSL would take that for one that has signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key is made");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate is made"))
    }

    /// Writes `NAME.crt` and `NAME.key`, which only their owner may read, as a Secret of Kubernetes that is mounted.
    fn write(&self, folder: &Path, name: &str) -> [PathBuf; 2] {
        let key = KeyPair::generate().expect("a key is made");
        let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).and_then(|params| params.signed_by(&key, &self.0));
        let texts = [("crt", certificate.expect("a certificate is made").pem()), ("key", key.serialize_pem())];
        texts.map(|(kind, text)| {
            let path = write(folder, &format!("{name}.{kind}"), &text);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
            path
        })
    }

    fn write_own(&self, folder: &Path, name: &str) -> PathBuf {
        write(folder, name, &self.0.pem())
    }
}

/// A server of one upstream over UDP and TCP, TLS, and HTTPS.
struct Service {
    server: Server,
    plain: u16,
    tls: u16,
    https: u16,
    metrics: u16,
    authority: Authority,
    ca: PathBuf,
    _upstream: Upstream,
}

impl Service {
    /// `of_tls` are the words after `tls`, `more` further lines of the block.
    fn start(of_tls: &str, more: &str) -> Self {
        let folder = scratch();
        let authority = Authority::new();
        authority.write(folder.path(), "tls");
        let ca = authority.write_own(folder.path(), "ca.crt");
        Self::start_in(folder, authority, ca, &format!("tls tls.crt tls.key {of_tls}\n {more}"))
    }

    fn start_in(folder: TempDir, authority: Authority, ca: PathBuf, lines: &str) -> Self {
        let upstream = Upstream::of_list("basic");
        let [plain, tls, https, metrics] = [(); 4].map(|()| free_port());
        let corefile = format!(
            ".:{plain} tls://.:{tls} https://.:{https} {{\n root {}\n bind 127.0.0.1\n errors\n cache 300\n reload 2s\n prometheus 127.0.0.1:{metrics}\n \
             forward . 127.0.0.1:{}\n {lines}\n}}\n",
            folder.path().display(),
            upstream.port
        );
        let path = write_corefile(folder.path(), &corefile);
        let mut server = Server::spawn(reference_command(&path, free_port()), folder);
        server.wait_ready(plain).unwrap_or_else(|e| panic!("{e}"));
        Self { server, plain, tls, https, metrics, authority, ca, _upstream: upstream }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.folder.path().join(name)
    }

    /// A client that believes nobody but whom `ca` vouches for.
    fn client(&self, program: &str, port: u16, ca: &Path, words: &str) -> Command {
        let mut command = tool(program);
        command.args(["@127.0.0.1", "-p", &port.to_string(), "a.example.", "A", "+timeout=5"]);
        command.args([format!("+tls-ca={}", ca.display()), format!("+tls-hostname={NAME}")]);
        command.args(words.split_whitespace());
        command
    }

    /// Whether the client gets the answer.
    fn is_answered(&self, program: &str, port: u16, ca: &Path, words: &str) -> bool {
        let output = self.client(program, port, ca, words).output().expect("it can be run");
        let text = everything(&output);
        output.status.success() && text.contains("192.0.2.1") && text.contains("status: NOERROR")
    }

    fn assert_answered(&self, program: &str, port: u16, words: &str) {
        let text = run(&mut self.client(program, port, &self.ca, words));
        assert!(text.contains("192.0.2.1") && text.contains("NOERROR"), "{program} {words}:\n{text}");
    }

    fn curl(&self, words: &[&str]) -> String {
        let resolve = format!("{NAME}:{}:127.0.0.1", self.https);
        let mut command = tool("curl");
        command.args(["-sS", "-i", "--max-time", "20", "--resolve", &resolve, "--cacert"]).arg(&self.ca).args(words);
        let output = command.output().expect("curl can be run");
        assert!(output.status.success(), "{words:?}: {}\n{}", everything(&output), self.server.tail(20));
        String::from_utf8_lossy(&output.stdout).to_lowercase()
    }
}

#[test]
fn kdig_and_dig_get_answers_over_tls_and_https() {
    let service = Service::start("", "");
    for program in ["kdig", "dig"] {
        service.assert_answered(program, service.tls, "+tls");
        service.assert_answered(program, service.https, "+https");
        service.assert_answered(program, service.https, "+https-get");
    }
    // Many on one session.
    let mut command = tool("kdig");
    command.args(["@127.0.0.1", "-p", &service.tls.to_string(), "+tls", "+keepopen", "+timeout=5"]);
    let text = run(command.args(["a.example.", "a.example.", "AAAA", "nx.example."]));
    assert_eq!(text.matches("status: ").count(), 3, "{text}");
    assert!(ask(loopback(service.plain), "a.example.", "A").is_some());
    let series = |port: u16, scheme: &str| {
        let counted =
            format!("coredns_dns_requests_total{{family=\"1\",proto=\"tcp\",server=\"{scheme}://127.0.0.1:{port}\"");
        metric(service.metrics, &counted).unwrap_or_default()
    };
    assert!(wait_until(SOON, || series(service.tls, "tls") >= 5.0), "{}", series(service.tls, "tls"));
    assert!(series(service.https, "https") >= 4.0);
}

#[test]
fn curl_gets_what_rfc_8484_says_over_both_versions_of_http() {
    let service = Service::start("", "https {\n  max_connections 50\n }");
    // a.example. A, in base64url.
    let query = "AAABAAABAAAAAAAAAWEHZXhhbXBsZQAAAQAB";
    let url = |rest: &str| format!("https://{NAME}:{}{rest}", service.https);
    for version in ["--http2", "--http1.1"] {
        let text = service.curl(&[version, &url(&format!("/dns-query?dns={query}"))]);
        assert!(text.contains(" 200") && text.contains("content-type: application/dns-message"), "{text}");
        assert!(text.contains("cache-control: max-age="), "{text}");
        assert_eq!(text.starts_with("http/2"), version == "--http2", "{text}");
        assert!(service.curl(&[version, &url("/")]).contains(" 404"));
        assert!(service.curl(&[version, &url("/dns-query")]).contains(" 400"));
    }
    let count = |status: &str| {
        let series = format!(
            "coredns_dns_https_responses_total{{server=\"https://127.0.0.1:{}\",status=\"{status}\"}}",
            service.https
        );
        metric(service.metrics, &series)
    };
    let counts = || ["200", "404", "400"].map(&count);
    assert!(wait_until(SOON, || counts() == [Some(2.0); 3]), "{:?}", counts());
}

#[test]
fn clients_show_a_certificate_where_it_is_required() {
    let service = Service::start("ca.crt {\n  client_auth require_and_verify\n }", "");
    let folder = service.server.folder.path();
    service.authority.write(folder, "client");
    Authority::new().write(folder, "stranger");
    let shown = |name: &str| {
        format!(
            "+tls-certfile={} +tls-keyfile={}",
            service.path(&format!("{name}.crt")).display(),
            service.path(&format!("{name}.key")).display()
        )
    };
    service.assert_answered("kdig", service.tls, &format!("+tls {}", shown("client")));
    service.assert_answered("kdig", service.https, &format!("+https {}", shown("client")));
    assert!(!service.is_answered("kdig", service.tls, &service.ca, "+tls +retry=0"));
    assert!(!service.is_answered("kdig", service.tls, &service.ca, &format!("+tls +retry=0 {}", shown("stranger"))));
    assert!(ask(loopback(service.plain), "a.example.", "A").is_some(), "no other zone asks for one");
}

#[test]
fn a_reload_shows_the_new_certificate_and_a_bad_one_leaves_the_old_one() {
    let service = Service::start("", "");
    service.assert_answered("kdig", service.tls, "+tls");
    let other = Authority::new();
    let other_ca = other.write_own(service.server.folder.path(), "other-ca.crt");
    other.write(service.server.folder.path(), "tls");
    service.server.signal(libc::SIGUSR1);
    let shows_other = || service.is_answered("kdig", service.tls, &other_ca, "+tls +retry=0");
    assert!(wait_until(SOON, shows_other), "{}", service.server.tail(20));
    assert!(!service.is_answered("kdig", service.tls, &service.ca, "+tls +retry=0"), "the old one is gone");
    write(service.server.folder.path(), "tls.crt", "no certificate\n");
    service.server.signal(libc::SIGUSR1);
    service.server.wait_output("the changed Corefile is refused, the one before serves on", SOON);
    service.server.wait_output("has no certificate that can be used", SOON);
    assert!(shows_other() && service.is_answered("kdig", service.https, &other_ca, "+https"));
}

#[test]
fn a_renewed_certificate_is_shown_though_nobody_says_so() {
    let service = Service::start("", "");
    service.assert_answered("kdig", service.tls, "+tls");
    let other = Authority::new();
    let other_ca = other.write_own(service.server.folder.path(), "other-ca.crt");
    other.write(service.server.folder.path(), "tls");
    let shows_other = |port, words: &str| service.is_answered("kdig", port, &other_ca, &format!("{words} +retry=0"));
    assert!(wait_until(SOON, || shows_other(service.tls, "+tls")), "{}", service.server.tail(20));
    assert!(shows_other(service.https, "+https"));
    assert!(!service.is_answered("kdig", service.tls, &service.ca, "+tls +retry=0"), "the old one is gone");
}

#[test]
fn a_server_of_tls_alone_that_hangs_is_replaced() {
    let (folder, authority) = (scratch(), Authority::new());
    authority.write(folder.path(), "tls");
    let ca = authority.write_own(folder.path(), "ca.crt");
    let (tls, metrics) = (free_port(), free_port());
    let root = folder.path().display();
    let text = format!("tls://.:{tls} {{\n root {root}\n bind 127.0.0.1\n tls tls.crt tls.key\n whoami\n}}\n");
    let path = write_corefile(folder.path(), &text);
    let server = Server::spawn(reference_command(&path, metrics), folder);
    let is_answered = || {
        let mut command = tool("kdig");
        command.args(["@127.0.0.1", "-p", &tls.to_string(), "a.example.", "A", "+tls", "+timeout=5", "+retry=0"]);
        command.args([format!("+tls-ca={}", ca.display()), format!("+tls-hostname={NAME}")]);
        let output = command.output().expect("it can be run");
        output.status.success() && everything(&output).contains("status: NOERROR")
    };
    assert!(wait_until(SOON, is_answered), "{}", server.tail(20));
    let hung = support::processes::server(server.pid()).expect("the watchdog has a server");
    support::processes::signal(hung, libc::SIGSTOP);
    let hangs = || metric(metrics, "nodelocaldns_watchdog_server_restarts_total{cause=\"hang\"}") >= Some(1.0);
    assert!(wait_until(HANG_PATIENCE, hangs), "{}", server.tail(20));
    assert!(wait_until(SOON, is_answered), "{}", server.tail(20));
}

#[test]
fn sockets_outlive_a_server_and_a_reload_changes_what_an_address_speaks() {
    let service = Service::start("", "");
    let server = || support::processes::server(service.server.pid());
    let before = server().expect("the watchdog has a child");
    support::processes::signal(before, libc::SIGKILL);
    let is_answered = |port, words| service.is_answered("kdig", port, &service.ca, words);
    let is_served_again = || server().is_some_and(|now| now != before) && is_answered(service.tls, "+tls +retry=0");
    assert!(wait_until(SOON, is_served_again), "{}", service.server.tail(20));
    let base = service.path("Corefile.base");
    let text = std::fs::read_to_string(&base).expect("it is there");
    let [tls, https] = [service.tls, service.https];
    let changed = text
        .replace(&format!("tls://.:{tls}"), &format!("https://.:{tls}"))
        .replace(&format!("https://.:{https}"), &format!(".:{https}"));
    std::fs::write(&base, changed).expect("it can be written");
    service.server.signal(libc::SIGUSR1);
    assert!(wait_until(SOON, || is_answered(tls, "+https +retry=0")), "{}", service.server.tail(20));
    assert!(wait_until(SOON, || ask(loopback(https), "a.example.", "A").is_some()), "{}", service.server.tail(20));
    assert!(!is_answered(https, "+https +retry=0"), "it is plain DNS");
}

#[test]
fn an_end_waits_for_no_client_that_says_nothing() {
    let mut service = Service::start("", "");
    let _silent: Vec<_> = (0..5).map(|_| TcpStream::connect(loopback(service.tls)).expect("it listens")).collect();
    service.assert_answered("kdig", service.tls, "+tls");
    service.server.signal(libc::SIGTERM);
    let status = service.server.wait_exit(SOON).unwrap_or_else(|| panic!("it goes on:\n{}", service.server.tail(20)));
    assert!(status.success(), "{}", service.server.tail(20));
}

#[test]
fn without_a_certificate_the_schemes_are_served_without_tls() {
    let (folder, authority) = (scratch(), Authority::new());
    let ca = authority.write_own(folder.path(), "ca.crt");
    let service = Service::start_in(folder, authority, ca, "");
    service.server.wait_output("warning: there is no `tls` in this block: as in CoreDNS", SOON);
    let text = run(tool("dig").args(["@127.0.0.1", "-p", &service.tls.to_string(), "+tcp", "a.example.", "A"]));
    assert!(text.contains("192.0.2.1"), "{text}");
    let query = "AAABAAABAAAAAAAAAWEHZXhhbXBsZQAAAQAB";
    let text = service.curl(&[&format!("http://127.0.0.1:{}/dns-query?dns={query}", service.https)]);
    assert!(text.starts_with("http/1.1 200") && text.contains("application/dns-message"), "{text}");
}

#[test]
fn metrics_are_served_over_tls_compressed_for_who_takes_that() {
    let (folder, authority) = (scratch(), Authority::new());
    authority.write(folder.path(), "web");
    let ca = authority.write_own(folder.path(), "ca.crt");
    let web = "tls_server_config:\n  cert_file: web.crt\n  key_file: web.key\n  client_auth_type: NoClientCert\n";
    let web = write(folder.path(), "web.yaml", web);
    let (port, metrics) = (free_port(), free_port());
    let text = format!(
        ".:{port} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics} {{\n  tls {}\n }}\n whoami\n}}\n",
        web.display()
    );
    let path = write_corefile(folder.path(), &text);
    let mut server = Server::spawn(reference_command(&path, free_port()), folder);
    server.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
    server.wait_output(&format!("https://127.0.0.1:{metrics}/metrics"), SOON);
    let mut command = tool("curl");
    command
        .args(["-sS", "-i", "--compressed", "--cacert"])
        .arg(&ca)
        .arg(format!("https://127.0.0.1:{metrics}/metrics"));
    let answer = run(&mut command);
    assert!(
        answer.to_lowercase().contains("content-encoding: gzip") && answer.contains("coredns_build_info"),
        "{answer}"
    );
    let plain = tool("curl").args(["-sS", &format!("http://127.0.0.1:{metrics}/metrics")]).output().expect("it runs");
    assert!(!plain.status.success(), "{}", everything(&plain));
}

#[test]
fn check_tells_where_certificates_are_wrong_and_warns_where_they_are_not_here() {
    let (folder, authority) = (scratch(), Authority::new());
    authority.write(folder.path(), "tls");
    authority.write(folder.path(), "other");
    let check = |words: &[&str], lines: &str| {
        let text = format!("tls://. {{\n bind 127.0.0.1\n root {}\n {lines}\n whoami\n}}\n", folder.path().display());
        let path = write(folder.path(), "Corefile", &text);
        let output = Command::new(binary()).arg("check").args(words).arg(path).output().expect("it runs");
        (output.status.success(), everything(&output))
    };
    let (is_good, said) = check(&[], "tls tls.crt tls.key");
    assert!(is_good && said.contains("good"), "{said}");
    let (is_good, said) = check(&[], "tls tls.crt other.key");
    assert!(!is_good && said.contains("Corefile:4:6: error: the certificate of "), "{said}");
    let (is_good, said) = check(&[], "tls /absent/tls.crt tls.key");
    assert!(is_good && said.contains("Corefile:4:6: warning: the file /absent/tls.crt cannot be read"), "{said}");
    assert!(!said.contains("there is no `tls`"), "{said}");
    assert!(!check(&["--strict"], "tls /absent/tls.crt tls.key").0);
    // Where it is to serve, it has to be there.
    let mut server = Server::spawn(reference_command(&folder.path().join("Corefile"), free_port()), scratch());
    let status = server.wait_exit(SOON).unwrap_or_else(|| panic!("it goes on:\n{}", server.tail(20)));
    assert!(!status.success());
    server.wait_output("error: the file /absent/tls.crt cannot be read", SOON);
}

/// Handshakes one after the other from another address, some of which end half-way.
fn flood(server: SocketAddr, authority: &[u8], stop: &AtomicBool) -> usize {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).expect("a certificate")).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let name = ServerName::try_from(NAME).expect("a name");
    let (mut begun, mut held) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("an address of loopback");
        if socket.connect(&server.into()).is_err() {
            continue;
        }
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut client = ClientConnection::new(config.clone(), name.clone()).expect("a client");
        begun += 1;
        match begun % 4 {
            0 => _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01"),
            1 => _ = client.write_tls(&mut stream),
            _ => _ = client.complete_io(&mut stream),
        }
        held.push(stream);
        if held.len() > 200 {
            held.clear();
        }
    }
    begun
}

#[test]
fn a_flood_of_handshakes_costs_no_other_client_an_answer() {
    let service = Service::start("", "");
    let (stop, pem) = (&AtomicBool::new(false), &std::fs::read(&service.ca).expect("it is there"));
    std::thread::scope(|scope| {
        let floods: [_; 2] =
            [service.tls, service.https].map(|port| scope.spawn(move || flood(loopback(port), pem, stop)));
        let steady = SteadyClient::start(service.plain);
        for _ in 0..3 {
            steady.await_queries();
            service.assert_answered("kdig", service.tls, "+tls");
            service.assert_answered("kdig", service.https, "+https");
        }
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            let begun = flood.join().expect("it does not panic");
            assert!(begun > 50, "{begun} handshakes are no flood");
        }
        steady.finish();
    });
    let failed = || metric(service.metrics, "nodelocaldns_tcp_connections_cut_total{reason=\"handshake\"}");
    assert!(wait_until(SOON, || failed().is_some_and(|count| count > 0.0)), "{:?}", failed());
}
