//! One case, run.

use crate::case::{Case, Question, Rules, Step};
use crate::compare::{Answer, differences};
use crate::support::client::{PATIENCE, exchange_tcp, exchange_udp, http, metric};
use crate::support::ports::free_port;
use crate::support::server::{Server, reference_command, scratch, wait_until, write_corefile};
use crate::support::text::{parse_class, parse_hex, parse_name, parse_type};
use crate::support::upstream::{Rule, Upstream};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::EdnsOption;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Ports every case may name, beside those of its upstreams. Nobody listens on the dead ones.
const PORT_NAMES: &[&str] = &["port", "port2", "metrics", "health", "ready", "dead1", "dead2"];

/// What is printed once all listeners and endpoints are there: by us, and by the reference.
const SERVES: [&str; 2] = [" serves\n", "CoreDNS-"];

/// How long that may take, on an emulated processor too.
const SERVING_PATIENCE: Duration = Duration::from_secs(30);

/// How long a server may take to refuse its Corefile.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

/// Differences told for one step; a step that repeats its query would say the same many times.
const DIFFERENCES_PER_STEP: usize = 4;

/// A line may be printed after the answer that it tells of; one that must not come is waited for this long.
const LINES_OF_AN_ANSWER: Duration = Duration::from_millis(100);

/// How long the lines of a `log` step may take.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

type Lists = BTreeMap<String, Vec<Rule>>;

/// Runs a case; the error is one line for each difference and the end of the server's log.
pub fn run(case: &Case, lists: &Lists) -> Result<(), String> {
    // A port can be taken by another program between its being found free and its being served.
    let mut stage = Stage::set(case, lists);
    let refused = case.refuses.then(|| stage.judge_refusal(case));
    let out = match refused {
        Some(out) => out,
        None => match stage.await_ready().or_else(|_| {
            stage = Stage::set(case, lists);
            stage.await_ready()
        }) {
            Ok(()) => stage.play(case),
            Err(why) => vec![why],
        },
    };
    if out.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}: {}\n--- the Corefile\n{}\n--- the server's last lines\n{}",
        case.name,
        out.join("\n  "),
        stage.corefile,
        stage.server.tail(8)
    ))
}

/// Whether what an upstream was asked, `udp 17.42.example. HINFO`, is a question of `loop`, of two random numbers.
/// Nobody knows when it comes.
fn is_loop_probe(asked: &str) -> bool {
    let mut words = asked.split_whitespace().skip(1);
    let (Some(name), Some("HINFO")) = (words.next(), words.next()) else { return false };
    name.split('.').take(2).filter(|label| label.parse::<u64>().is_ok()).count() == 2
}

/// A server under test and everything around it.
struct Stage {
    server: Server,
    upstreams: BTreeMap<String, Upstream>,
    ports: BTreeMap<String, u16>,
    corefile: String,
}

impl Stage {
    fn set(case: &Case, lists: &Lists) -> Self {
        let upstreams: BTreeMap<String, Upstream> = case
            .upstreams
            .iter()
            .map(|(name, script)| {
                let rules = match &script.rules {
                    Rules::Listed(rules) => rules.clone(),
                    Rules::Named(list) => {
                        lists.get(list).unwrap_or_else(|| panic!("rules.json has no list {list:?}")).clone()
                    }
                };
                (name.clone(), Upstream::start(rules, script.default.clone()))
            })
            .collect();
        let mut ports: BTreeMap<String, u16> =
            upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.port)).collect();
        ports.extend(PORT_NAMES.iter().map(|name| ((*name).to_owned(), free_port())));
        let folder = scratch();
        for (name, text) in &case.files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a path below the folder"))
                .expect("the scratch folder can be written");
            std::fs::write(path, fill(text, &ports, folder.path())).expect("the scratch folder can be written");
        }
        let corefile = fill(&case.corefile, &ports, folder.path());
        let path = write_corefile(folder.path(), &corefile);
        let server = Server::spawn(reference_command(&path, free_port()), folder);
        Self { server, upstreams, ports, corefile }
    }

    /// Waits until the server says that it serves: its port takes connections earlier, since the watchdog opens it, and
    /// those of HTTP do not.
    fn await_ready(&mut self) -> Result<(), String> {
        self.server.wait_ready(self.ports["port"])?;
        let says_so = || SERVES.iter().any(|text| self.server.output().contains(text));
        if wait_until(SERVING_PATIENCE, says_so) {
            Ok(())
        } else {
            Err(format!("did not say that it serves within {SERVING_PATIENCE:?}"))
        }
    }

    fn judge_refusal(&mut self, case: &Case) -> Vec<String> {
        let status = self.server.wait_exit(REFUSAL_PATIENCE);
        let said = self.server.output().to_lowercase();
        let mut out = Vec::new();
        if status.is_none_or(|status| status.success()) {
            out.push(format!("should refuse this Corefile, but its exit status is {status:?}"));
        }
        out.extend(
            case.says
                .iter()
                .filter(|text| !said.contains(&text.to_lowercase()))
                .map(|text| format!("the message lacks {text:?}")),
        );
        out
    }

    fn play(&self, case: &Case) -> Vec<String> {
        std::thread::sleep(Duration::from_secs_f64(case.settle));
        for upstream in self.upstreams.values() {
            upstream.take_seen();
        }
        let mut out = Vec::new();
        for (number, step) in case.steps.iter().enumerate() {
            out.extend(
                self.step(step).into_iter().take(DIFFERENCES_PER_STEP).map(|line| format!("step {number}: {line}")),
            );
        }
        out
    }

    fn step(&self, step: &Step) -> Vec<String> {
        match step {
            Step::Query(step) => {
                let answers = self.ask(&step.query);
                let told = answers.iter().flat_map(|answer| match answer {
                    Ok(answer) => differences(&step.expect, answer.as_ref()),
                    Err(why) => vec![why.clone()],
                });
                told.map(|line| format!("{}: {line}", step.query.label())).collect()
            }
            Step::Saw(step) => {
                let upstream = self.upstream(&step.upstream_saw);
                let mut got = if step.options { upstream.take_seen_with_options() } else { upstream.take_seen() };
                got.retain(|asked, _| !is_loop_probe(asked));
                unless_equal(&step.upstream_saw, &step.expect, &got)
            }
            Step::Upstream(step) => {
                let upstream = self.upstream(&step.upstream);
                if let Some(down) = step.down {
                    upstream.set_down(down);
                }
                if let Some(rules) = &step.rules {
                    upstream.set_rules(rules.clone());
                }
                Vec::new()
            }
            Step::Sleep(step) => {
                std::thread::sleep(Duration::from_secs_f64(step.sleep));
                Vec::new()
            }
            Step::Metric(step) => {
                let got = metric(self.ports["metrics"], &self.fill(&step.metric));
                unless_equal(&step.metric, &step.expect, &got)
            }
            Step::Http(step) => {
                let got = http(&self.fill(&step.http)).map(|(status, _)| status);
                unless_equal(&step.http, &step.expect.status, &got)
            }
            Step::Write(step) => {
                let path = self.server.folder.path().join(&step.write);
                match &step.text {
                    Some(text) => std::fs::write(path, self.fill(text)).expect("the scratch folder can be written"),
                    None => std::fs::remove_file(path).expect("the file to remove is there"),
                }
                Vec::new()
            }
            Step::Log(step) => {
                let text = self.fill(&step.log);
                let lines = || self.server.output().lines().filter(|line| line.contains(&text)).count();
                std::thread::sleep(LINES_OF_AN_ANSWER);
                wait_until(LOG_PATIENCE, || lines() == step.expect);
                unless_equal(&format!("lines with {text:?}"), &step.expect, &lines())
            }
        }
    }

    fn upstream(&self, name: &str) -> &Upstream {
        self.upstreams.get(name).unwrap_or_else(|| panic!("the case has no upstream {name:?}"))
    }

    fn fill(&self, text: &str) -> String {
        fill(text, &self.ports, self.server.folder.path())
    }

    /// All answers of a step; an error is an answer that is no DNS message.
    fn ask(&self, question: &Question) -> Vec<Result<Option<Answer>, String>> {
        let server = SocketAddr::new(question.address(), self.ports[question.port.as_deref().unwrap_or("port")]);
        let times = question.repeat.unwrap_or(1);
        if !question.parallel {
            return (0..times).map(|_| ask(question, server)).collect();
        }
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..times).map(|_| scope.spawn(|| ask(question, server))).collect();
            clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
        })
    }
}

/// One exchange; `None`: no answer in time, or the connection was closed.
fn ask(question: &Question, server: SocketAddr) -> Result<Option<Answer>, String> {
    let wire = question.encode();
    let patience = question.timeout.map_or(PATIENCE, Duration::from_secs_f64);
    let octets = match question.via.as_deref() {
        None | Some("udp") => exchange_udp(server, &wire, patience),
        Some("tcp") => exchange_tcp(server, &wire, patience),
        Some(other) => panic!("unknown transport {other:?}"),
    };
    let Ok(octets) = octets else { return Ok(None) };
    match Message::from_vec(&octets) {
        Ok(message) => Ok(Some(Answer { message, octets: octets.len() })),
        Err(e) => Err(format!("the answer is no DNS message ({e}): {octets:02x?}")),
    }
}

impl Question {
    fn label(&self) -> String {
        match &self.raw {
            Some(raw) => format!("{raw:?}"),
            None => format!("{} {}", self.name, self.rtype.as_deref().unwrap_or("A")),
        }
    }

    fn encode(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return parse_hex(raw);
        }
        let opcode = match self.opcode.as_deref() {
            None | Some("QUERY") => OpCode::Query,
            Some("STATUS") => OpCode::Status,
            Some("NOTIFY") => OpCode::Notify,
            Some("UPDATE") => OpCode::Update,
            Some(other) => panic!("unknown opcode {other:?}"),
        };
        let mut message = Message::new(fastrand::u16(..), MessageType::Query, opcode);
        let recursion_desired = || vec!["RD".to_owned()];
        for flag in self.flags.clone().unwrap_or_else(recursion_desired) {
            match flag.as_str() {
                "RD" => message.metadata.recursion_desired = true,
                "AD" => message.metadata.authentic_data = true,
                "CD" => message.metadata.checking_disabled = true,
                other => panic!("unknown flag {other:?} in a query"),
            }
        }
        let mut question = Query::query(parse_name(&self.name), parse_type(self.rtype.as_deref().unwrap_or("A")));
        question.set_query_class(parse_class(self.class.as_deref().unwrap_or("IN")));
        message.add_query(question);
        if self.edns.is_some() || self.dnssec_ok || !self.options.is_empty() {
            let mut edns = Edns::new();
            edns.set_max_payload(self.edns.unwrap_or(1232))
                .set_version(self.edns_version)
                .set_dnssec_ok(self.dnssec_ok);
            for (code, data) in &self.options {
                edns.options_mut().insert(EdnsOption::Unknown(code.parse().expect("an option code"), parse_hex(data)));
            }
            message.set_edns(edns);
        }
        message.to_vec().expect("a query of ours encodes")
    }
}

fn unless_equal<T: PartialEq + std::fmt::Debug>(what: &str, want: &T, got: &T) -> Vec<String> {
    if want == got { Vec::new() } else { vec![format!("{what}: want {want:?}, got {got:?}")] }
}

/// Replaces `{port}` and its like, and `{dir}`, the scratch folder.
fn fill(text: &str, ports: &BTreeMap<String, u16>, folder: &Path) -> String {
    let with_ports = ports
        .iter()
        .fold(text.to_owned(), |text, (name, port)| text.replace(&format!("{{{name}}}"), &port.to_string()));
    with_ports.replace("{dir}", &folder.to_string_lossy())
}
