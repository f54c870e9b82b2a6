//! The stories of docs/troubleshooting.md in which this node's cache alone plays. That of a firewall is in
//! tests/interception.

mod support;

use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use support::client::{ask, loopback, query};
use support::ports::free_port;
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::story::story;
use support::tools::everything;
use support::upstream::{Reply, Rule, Upstream, address_rule};

const SOON: Duration = Duration::from_secs(30);

/// A cache in front of two upstreams, of which one is slow, with a stub domain.
struct Scene {
    server: Server,
    _upstreams: [Upstream; 2],
    dns: u16,
    metrics: u16,
    label: String,
    corefile: String,
}

impl Scene {
    fn start() -> Self {
        let slow = Reply { delay: 0.6, answer: vec!["db.slow.test. 0 IN A 192.0.2.2".to_owned()], ..Reply::default() };
        let slow = Rule { name: "db.slow.test.".to_owned(), rtype: "*".to_owned(), via: None, reply: slow };
        let nothing = Reply { rcode: Some("NXDOMAIN".to_owned()), ..Reply::default() };
        let nothing = Rule { name: "*".to_owned(), rtype: "*".to_owned(), via: None, reply: nothing };
        let usual = vec![address_rule("api.shop.example.", 300, "192.0.2.1"), nothing];
        let upstreams = [Upstream::start(usual, None), Upstream::start(vec![slow], None)];
        let (dns, metrics, scraped) = (free_port(), free_port(), free_port());
        let corefile = format!(
            ".:{dns} {{
                bind 127.0.0.1
                cache 30
                prometheus 127.0.0.1:{scraped}
                forward . 127.0.0.1:{}
            }}
            consul.lcal:{dns} slow.test:{dns} {{
                bind 127.0.0.1
                forward . 127.0.0.1:{}
            }}
            ",
            upstreams[0].port, upstreams[1].port
        );
        let folder = scratch();
        let path = write_corefile(folder.path(), &corefile);
        let label = format!("stories-{dns}");
        let mut command = reference_command(&path, metrics);
        command.args(["--admin-socket", &label]);
        let mut server = Server::spawn(command, folder);
        server.wait_ready(dns).unwrap_or_else(|error| panic!("{error}"));
        assert!(wait_until(SOON, || TcpStream::connect(loopback(metrics)).is_ok()), "{}", server.tail(20));
        let corefile = path.to_string_lossy().into_owned();
        Self { server, _upstreams: upstreams, dns, metrics, label, corefile }
    }

    fn ask(&self, name: &str) {
        assert!(ask(loopback(self.dns), name, "A").is_some(), "{name}\n{}", self.server.tail(20));
    }

    /// Runs the page's commands against this server: each prints what the page says.
    #[track_caller]
    fn tells(&self, heading: &str) {
        for told in story(heading) {
            let mut command = Command::new(binary());
            command.args(&told.arguments);
            match told.arguments[0].as_str() {
                "top" => command.args(["--from", &format!("http://127.0.0.1:{}", self.metrics)]),
                _ => command.args(["--admin-socket", &self.label]),
            };
            let output = command.output().expect("the program runs");
            assert!(output.status.success(), "{:?}: {}", told.arguments, everything(&output));
            told.assert_printed(&String::from_utf8_lossy(&output.stdout).replace(&self.corefile, "/etc/Corefile"));
        }
    }
}

#[test]
fn a_pod_that_floods_random_names_is_named() {
    let scene = Scene::start();
    let flood = UdpSocket::bind("127.0.0.9:0").expect("the loopback has this address");
    flood.set_read_timeout(Some(SOON)).expect("a time above zero");
    for number in 0..300 {
        let wire = query(&format!("x{number}.example."), "A").to_vec().expect("it is a query");
        flood.send_to(&wire, loopback(scene.dns)).expect("it can be sent");
        flood.recv(&mut [0; 512]).unwrap_or_else(|error| panic!("{error}\n{}", scene.server.tail(20)));
    }
    scene.ask("api.shop.example.");
    scene.tells("One pod floods DNS");
}

#[test]
fn an_upstream_that_is_slow_is_named() {
    let scene = Scene::start();
    scene.ask("api.shop.example.");
    scene.ask("db.slow.test.");
    scene.tells("Lookups are slow");
}

#[test]
fn a_stub_domain_that_is_misspelt_is_named() {
    let scene = Scene::start();
    scene.ask("db.consul.local.");
    scene.tells("A name of a stub domain does not exist");
}
