//! A scripted DNS server on UDP and TCP of one port.

use super::client::loopback;
use super::ports::free_port;
use super::text::{format_options, format_type, parse_rcode, parse_record};
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

/// What to answer to whom. `*` as name or type matches all; the first rule that matches counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// `udp` or `tcp`; absent: both.
    pub via: Option<String>,
    pub reply: Reply,
}

/// An answer, its records in presentation form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    pub rcode: Option<String>,
    pub answer: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
    /// Of `AA`, `AD`, `CD`, `TC`.
    pub flags: Vec<String>,
    /// Seconds to wait before answering.
    pub delay: f64,
    /// Say nothing at all.
    pub drop: bool,
    /// False: no OPT record even when the query has one.
    pub edns: Option<bool>,
}

/// The answer to an address query.
pub fn address_rule(name: &str, ttl: u32, address: &str) -> Rule {
    let answer = vec![format!("{name} {ttl} IN A {address}")];
    Rule { name: name.to_owned(), rtype: "A".to_owned(), via: None, reply: Reply { answer, ..Reply::default() } }
}

/// Lists of rules by name, of the conformance cases' rules.json.
pub fn listed_rules() -> BTreeMap<String, Vec<Rule>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases/rules.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

struct Script {
    rules: Vec<Rule>,
    default: Option<Reply>,
    down: bool,
    /// Queries by `udp a.example. A` and their EDNS options.
    seen: BTreeMap<(String, Vec<String>), u32>,
}

/// The running server; it ends when this is dropped.
pub struct Upstream {
    pub port: u16,
    script: Arc<Mutex<Script>>,
    resets: watch::Sender<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Serves `rules`. What none matches gets `default`, else an NXDOMAIN with an SOA record; `. NS`, which health
    /// checks ask, an empty NOERROR.
    pub fn start(rules: Vec<Rule>, default: Option<Reply>) -> Self {
        loop {
            // Another program may take the port between its being found free and here.
            if let Ok(upstream) = Self::start_at(free_port(), &rules, default.as_ref()) {
                return upstream;
            }
        }
    }

    /// [`Upstream::start`] on a port that it may have served before. Fails if the port is taken.
    pub fn start_at(port: u16, rules: &[Rule], default: Option<&Reply>) -> io::Result<Self> {
        Self::serving(loopback(port), rules, default)
    }

    /// [`Upstream::start_at`] on any address, in the network namespace of the calling thread.
    pub fn serving(address: SocketAddr, rules: &[Rule], default: Option<&Reply>) -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
        let (rules, default) = (rules.to_vec(), default.cloned());
        let script = Arc::new(Mutex::new(Script { rules, default, down: false, seen: BTreeMap::new() }));
        let (stop, stopped) = oneshot::channel();
        let resets = watch::Sender::new(());
        let thread = std::thread::spawn({
            let (script, resets) = (script.clone(), resets.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        outcome = serve(script, udp, tcp, resets) => panic!("the scripted upstream ended: {outcome:?}"),
                        _ = stopped => {}
                    }
                });
            }
        });
        Ok(Self { port: address.port(), script, resets, stop: Some(stop), thread: Some(thread) })
    }

    /// Serves a list of rules.json.
    pub fn of_list(name: &str) -> Self {
        let rules = listed_rules().remove(name).unwrap_or_else(|| panic!("rules.json has no list {name:?}"));
        Self::start(rules, None)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics with this lock held")
    }
    /// Stops or resumes answering; queries are counted meanwhile.
    pub fn set_down(&self, down: bool) {
        self.script().down = down;
    }
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.script().rules = rules;
    }
    /// Resets every TCP connection there is (RST), whatever waits on it.
    pub fn reset_connections(&self) {
        self.resets.send_replace(());
    }
    /// Queries since the last call, by `udp a.example. A`. Health checks (`. NS`) are not counted.
    pub fn take_seen(&self) -> BTreeMap<String, u32> {
        sum(std::mem::take(&mut self.script().seen).into_iter().map(|((question, _), count)| (question, count)))
    }
    /// [`Upstream::take_seen`], by `udp a.example. A 65518=61626364`: with the queries' EDNS options.
    pub fn take_seen_with_options(&self) -> BTreeMap<String, u32> {
        let seen = std::mem::take(&mut self.script().seen).into_iter();
        sum(seen.map(|((question, options), count)| ([vec![question], options].concat().join(" "), count)))
    }
}

fn sum(counts: impl Iterator<Item = (String, u32)>) -> BTreeMap<String, u32> {
    counts.fold(BTreeMap::new(), |mut sums, (key, count)| {
        *sums.entry(key).or_default() += count;
        sums
    })
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the scripted upstream panicked");
        }
    }
}

async fn serve(
    script: Arc<Mutex<Script>>,
    udp: UdpSocket,
    tcp: TcpListener,
    resets: watch::Sender<()>,
) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let udp = Arc::new(tokio::net::UdpSocket::from_std(udp)?);
    let tcp = tokio::net::TcpListener::from_std(tcp)?;
    tokio::try_join!(serve_udp(&script, &udp), serve_tcp(&script, &tcp, &resets))?;
    Ok(())
}

async fn serve_udp(script: &Arc<Mutex<Script>>, socket: &Arc<tokio::net::UdpSocket>) -> io::Result<()> {
    let mut buffer = vec![0; 65_535];
    loop {
        // A client that has gone makes the kernel report ECONNREFUSED here (ICMP); the next datagram is none the worse
        // for it.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let (wire, script, socket) = (buffer[..length].to_vec(), script.clone(), socket.clone());
        tokio::spawn(async move {
            if let Some(answer) = reply(&script, &wire, "udp").await {
                let _client_may_be_gone = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(
    script: &Arc<Mutex<Script>>,
    listener: &tokio::net::TcpListener,
    resets: &watch::Sender<()>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve_connection(script.clone(), stream, resets.subscribe()));
    }
}

/// Answers in whatever order answers become ready, until the client has closed and all are written, or a reset is
/// wanted.
async fn serve_connection(script: Arc<Mutex<Script>>, mut stream: TcpStream, mut resets: watch::Receiver<()>) {
    let (mut reader, mut writer) = stream.split();
    let (answers, mut ready) = mpsc::unbounded_channel();
    let read = async move {
        while let Ok(length) = reader.read_u16().await {
            let mut wire = vec![0; usize::from(length)];
            if reader.read_exact(&mut wire).await.is_err() {
                return;
            }
            let (script, answers) = (script.clone(), answers.clone());
            tokio::spawn(async move {
                if let Some(answer) = reply(&script, &wire, "tcp").await {
                    let _connection_may_be_gone = answers.send(answer);
                }
            });
        }
    };
    let write = async {
        while let Some(answer) = ready.recv().await {
            let length = u16::try_from(answer.len()).expect("an answer within the limit");
            let _client_may_be_gone = writer.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(read, write) } => {}
        _ = resets.changed() => stream.set_zero_linger().expect("a TCP socket can be told to reset"),
    }
}

/// The octets to send, after the rule's delay; `None` to stay silent.
async fn reply(script: &Mutex<Script>, wire: &[u8], via: &str) -> Option<Vec<u8>> {
    let query = Message::from_vec(wire).ok()?;
    let question = query.queries.first()?;
    let (name, rtype) = (question.name().to_lowercase().to_ascii(), format_type(question.query_type()));
    let health_check = name == "." && question.query_type() == RecordType::NS;
    let scripted = {
        let mut script = script.lock().expect("no test panics with this lock held");
        if !health_check {
            let options = query.edns.as_ref().map(format_options).unwrap_or_default();
            *script.seen.entry((format!("{via} {name} {rtype}"), options)).or_default() += 1;
        }
        if script.down {
            return None;
        }
        let fits = |rule: &&Rule| {
            (rule.name == "*" || rule.name == name)
                && (rule.rtype == "*" || rule.rtype == rtype)
                && rule.via.as_deref().is_none_or(|wanted| wanted == via)
        };
        script.rules.iter().find(fits).map(|rule| rule.reply.clone()).or_else(|| script.default.clone())
    };
    let scripted = scripted.unwrap_or_else(|| if health_check { Reply::default() } else { no_such_name() });
    tokio::time::sleep(Duration::from_secs_f64(scripted.delay)).await;
    (!scripted.drop).then(|| encode(&query, &scripted, via))
}

fn no_such_name() -> Reply {
    let authority = vec![". 30 IN SOA ns.test. host.test. 1 7200 900 1209600 30".to_owned()];
    Reply { rcode: Some("NXDOMAIN".to_owned()), authority, ..Reply::default() }
}

/// The answer on the wire; one that is too long goes out with TC and no records.
fn encode(query: &Message, scripted: &Reply, via: &str) -> Vec<u8> {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() && scripted.edns != Some(false) {
        let mut edns = Edns::new();
        edns.set_max_payload(8192);
        answer.set_edns(edns);
    }
    let whole = {
        let mut whole = answer.clone();
        let rcode = parse_rcode(scripted.rcode.as_deref().unwrap_or("NOERROR"));
        whole.metadata.response_code = ResponseCode::from((rcode >> 4) as u8, (rcode & 0xf) as u8);
        for flag in &scripted.flags {
            match flag.as_str() {
                "AA" => whole.metadata.authoritative = true,
                "AD" => whole.metadata.authentic_data = true,
                "CD" => whole.metadata.checking_disabled = true,
                "TC" => whole.metadata.truncation = true,
                other => panic!("unknown flag {other:?} in a reply"),
            }
        }
        let records = |section: &[String]| section.iter().map(|text| parse_record(text).0).collect::<Vec<_>>();
        whole.insert_answers(records(&scripted.answer));
        whole.insert_authorities(records(&scripted.authority));
        whole.insert_additionals(records(&scripted.additional));
        whole.to_vec().expect("a scripted answer encodes")
    };
    let limit = if via == "tcp" {
        65_535
    } else {
        usize::from(query.edns.as_ref().map_or(512, |edns| edns.max_payload().max(512)))
    };
    if whole.len() <= limit {
        return whole;
    }
    answer.metadata.truncation = true;
    answer.to_vec().expect("an empty answer encodes")
}
