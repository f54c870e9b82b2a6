//! What a team watches the caches with (`monitoring/`): each query of the dashboard finds something in a real
//! Prometheus that scrapes a running program, and each alert fires in its fault and is silent otherwise. Alerts for
//! whose fault it takes a node are in `tests/interception/alerts.rs`.

mod alerts;
mod ecosystem;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use support::client::{ask, loopback};
use support::ports::free_port;
use support::server::{Server, reference_command, scratch, write_corefile};
use support::upstream::{Reply, Rule, Upstream, address_rule};
use tempfile::TempDir;

/// What is cached, and asked for again and again.
const CACHED: &str = "cached.example.";

/// A running agent on loopback, with an upstream.
struct Scene {
    upstream: Upstream,
    port: u16,
    metrics: u16,
    /// Where the Corefile's template is.
    folder: TempDir,
    server: Server,
    asked: u32,
}

impl Scene {
    fn new() -> Self {
        let silent = Reply { drop: true, ..Reply::default() };
        let any = |name: &str, reply| Rule { name: name.to_owned(), rtype: "*".to_owned(), via: None, reply };
        let rules = vec![address_rule(CACHED, 3600, "192.0.2.1"), any("silent.example.", silent)];
        let upstream = Upstream::start(rules, None);
        let (port, metrics, folder) = (free_port(), free_port(), scratch());
        let corefile = corefile(port, upstream.port, "");
        let command = reference_command(&write_corefile(folder.path(), &corefile), metrics);
        let mut server = Server::spawn(command, scratch());
        server.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
        Self { upstream, port, metrics, folder, server, asked: 0 }
    }

    fn template(&self) -> PathBuf {
        self.folder.path().join("Corefile.base")
    }

    /// A hit, and a miss of a name that nobody has.
    fn ask(&mut self) {
        self.asked += 1;
        let unknown = format!("unknown-{}.example.", self.asked);
        for name in [CACHED, &unknown] {
            for rtype in ["A", "AAAA"] {
                assert!(ask(loopback(self.port), name, rtype).is_some(), "{}", self.server.tail(20));
            }
        }
    }
}

/// With more directives in its block.
fn corefile(port: u16, upstream: u16, directives: &str) -> String {
    format!(
        ".:{port} {{\n bind __PILLAR__LOCAL__DNS__\n errors\n cache {{\n  serve_stale\n  prefetch 1\n }}\n forward . 127.0.0.1:{upstream} {{\n  \
         health_check 100ms\n  max_fails 1\n }}\n prometheus 127.0.0.1:{}\n {directives}\n}}\n",
        free_port()
    )
}
