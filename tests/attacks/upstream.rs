//! The upstream of the program under attack, on UDP and TCP of one address: fast enough for floods, and as hostile as
//! its script.

use crate::wire::{A, AAAA, Answer, NXDOMAIN, QUESTION_NAME, Question, Section, TXT, address_of, framed};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Over what a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Udp,
    Tcp,
}

/// What is said to a query.
pub enum Reply {
    Silence,
    Message(Vec<u8>),
    /// One after the other.
    Messages(Vec<Vec<u8>>),
    Late(Duration, Vec<u8>),
    /// From another socket of the same address (UDP), and then this one.
    FromElsewhere(Vec<u8>, Vec<u8>),
}

/// Decides what is said to a query, given as it came.
pub type Script = Arc<dyn Fn(&[u8], &Question, Via) -> Reply + Send + Sync>;

/// By zone (the name without its first label).
type Seen = HashMap<String, OfZone>;

#[derive(Clone, Copy, Debug, Default)]
struct OfZone {
    /// Queries over UDP and TCP.
    queries: [u64; 2],
    /// The port from which the last query over UDP came.
    port: Option<u16>,
}

/// Ends when dropped.
pub struct Upstream {
    /// The socket that answers: what is sent by it has the upstream's address and port.
    pub socket: Arc<UdpSocket>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Upstream {
    pub fn start(address: SocketAddr, script: Script) -> Self {
        let socket = Arc::new(udp_socket(address));
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address} over TCP: {e}"));
        listener.set_nonblocking(true).expect("a socket can be told not to wait");
        let (seen, stop) = (Arc::new(Mutex::new(Seen::new())), Arc::new(AtomicBool::new(false)));
        let (late, delayed) = mpsc::channel();
        let speaker = Speaker { script, seen: seen.clone(), stop: stop.clone(), late };
        let (of_udp, of_tcp, out) = (speaker.clone(), speaker, socket.clone());
        let threads = vec![
            std::thread::spawn(move || of_udp.serve_udp(&out)),
            std::thread::spawn(move || of_tcp.serve_tcp(&listener)),
            std::thread::spawn(move || send_late(&delayed)),
        ];
        Self { socket, seen, stop, threads }
    }

    fn of_zone(&self, zone: &str) -> OfZone {
        self.seen.lock().expect("no test panics with this lock held").get(zone).copied().unwrap_or_default()
    }
    /// Queries over UDP and TCP for names of a zone until now.
    pub fn asked(&self, zone: &str) -> u64 {
        self.of_zone(zone).queries.iter().sum()
    }
    /// [`Upstream::asked`] over TCP only.
    pub fn asked_over_tcp(&self, zone: &str) -> u64 {
        self.of_zone(zone).queries[Via::Tcp as usize]
    }
    /// The port from which the last query over UDP for a name of a zone came.
    pub fn last_port(&self, zone: &str) -> Option<u16> {
        self.of_zone(zone).port
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the upstream's stand-in panicked");
        }
    }
}

/// Bound, with room for as much as the kernel lets it have.
fn udp_socket(address: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).expect("a socket");
    _ = socket.set_recv_buffer_size(4 << 20);
    _ = socket.set_send_buffer_size(1 << 20);
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout above zero");
    socket.bind(&address.into()).unwrap_or_else(|e| panic!("{address} over UDP: {e}"));
    socket.into()
}

/// Where an answer goes.
enum To {
    Client(Arc<UdpSocket>, SocketAddr),
    Connection(Arc<Mutex<TcpStream>>),
}

impl To {
    /// Whoever asked may be gone.
    fn send(&self, message: &[u8]) {
        match self {
            Self::Client(socket, client) => _ = socket.send_to(message, client),
            Self::Connection(stream) => {
                _ = stream.lock().expect("no test panics with this lock held").write_all(&framed(message));
            }
        }
    }
}

type Late = (Instant, To, Vec<u8>);

#[derive(Clone)]
struct Speaker {
    script: Script,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    late: mpsc::Sender<Late>,
}

impl Speaker {
    fn serve_udp(&self, socket: &Arc<UdpSocket>) {
        let mut buffer = vec![0; 65_535];
        while !self.stop.load(Ordering::Relaxed) {
            // A client that is gone makes the kernel report ECONNREFUSED here (ICMP).
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            self.answer(&buffer[..length], Via::Udp, Some(client.port()), || To::Client(socket.clone(), client));
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            stream.set_nonblocking(false).expect("a socket can be told to wait");
            let speaker = self.clone();
            std::thread::spawn(move || speaker.serve_connection(stream));
        }
    }

    fn serve_connection(&self, mut stream: TcpStream) {
        _ = stream.set_nodelay(true);
        _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
        let writer = Arc::new(Mutex::new(stream.try_clone().expect("a second handle")));
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() && !self.stop.load(Ordering::Relaxed) {
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut query).is_err() {
                return;
            }
            self.answer(&query, Via::Tcp, None, || To::Connection(writer.clone()));
        }
    }

    fn answer(&self, query: &[u8], via: Via, port: Option<u16>, to: impl Fn() -> To) {
        let Some(question) = Question::of(query) else { return };
        {
            let mut seen = self.seen.lock().expect("no test panics with this lock held");
            let zone = question.zone();
            if !seen.contains_key(zone) {
                seen.insert(zone.to_owned(), OfZone::default());
            }
            let of_zone = seen.get_mut(zone).expect("it was inserted");
            of_zone.queries[via as usize] += 1;
            of_zone.port = port.or(of_zone.port);
        }
        match (self.script)(query, &question, via) {
            Reply::Silence => {}
            Reply::Message(message) => to().send(&message),
            Reply::Messages(messages) => messages.iter().for_each(|message| to().send(message)),
            Reply::Late(delay, message) => _ = self.late.send((Instant::now() + delay, to(), message)),
            Reply::FromElsewhere(first, then) => {
                let to = to();
                if let To::Client(socket, client) = &to {
                    let ip = socket.local_addr().expect("it is bound").ip();
                    _ = UdpSocket::bind((ip, 0)).and_then(|other| other.send_to(&first, client));
                    std::thread::sleep(Duration::from_millis(30));
                }
                to.send(&then);
            }
        }
    }
}

/// Sends each answer at its time, until nobody can give any more.
fn send_late(delayed: &mpsc::Receiver<Late>) {
    let mut waiting: BTreeMap<(Instant, u64), (To, Vec<u8>)> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = waiting.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
        match delayed.recv_timeout(next.unwrap_or(Duration::from_millis(50))) {
            Ok((at, to, message)) => {
                number += 1;
                waiting.insert((at, number), (to, message));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        while let Some(due) = waiting.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let (to, message) = due.remove();
            to.send(&message);
        }
    }
}

/// How long the upstream takes for names of `slow.example`.
pub const SLOWLY: Duration = Duration::from_millis(1500);

/// What an upstream says that means no harm: the zone decides.
pub fn honest() -> Script {
    Arc::new(|query, question, via| {
        let answer = Answer::to(query, question);
        match question.zone() {
            "silent.example" => Reply::Silence,
            "nx.example" => Reply::Message(answer.rcode(NXDOMAIN).with_soa(300).wire),
            "broken.example" => {
                // SERVFAIL, REFUSED, FORMERR, NOTIMP, NOTAUTH.
                let [.., octet] = address_of(&question.name);
                Reply::Message(answer.rcode([2, 5, 1, 4, 9][usize::from(octet) % 5]).wire)
            }
            "big.example" | "many.example" | "servers.example" if via == Via::Udp => {
                Reply::Message(answer.truncated().wire)
            }
            "big.example" => Reply::Message(filled(answer, TXT, &[&[255][..], &[b'x'; 255]].concat())),
            "many.example" => Reply::Message(filled(answer, A, &[10, 9, 8, 7])),
            "servers.example" => {
                Reply::Message(filled(answer, crate::wire::NS, &crate::wire::name("ns.servers.example")))
            }
            "slow.example" => Reply::Late(SLOWLY, addressed(answer, question)),
            "" | "example" => Reply::Message(answer.rcode(NXDOMAIN).with_soa(30).wire),
            _ => Reply::Message(addressed(answer, question)),
        }
    })
}

/// With the address that the name has, or with nothing for other types than addresses.
pub fn addressed(answer: Answer, question: &Question) -> Vec<u8> {
    let address = address_of(&question.name);
    match question.rtype {
        A => answer.with(Section::Answer, QUESTION_NAME, A, &address).wire,
        AAAA => answer.with(Section::Answer, QUESTION_NAME, AAAA, &[&[0xfd; 12][..], &address].concat()).wire,
        _ => answer.with_soa(300).wire,
    }
}

/// With records of the question's name to nearly 64 KiB.
fn filled(mut answer: Answer, rtype: u16, data: &[u8]) -> Vec<u8> {
    while answer.len() + 12 + data.len() <= 65_300 {
        answer.push(Section::Answer, QUESTION_NAME, rtype, data);
    }
    answer.wire
}
