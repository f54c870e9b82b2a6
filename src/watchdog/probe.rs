//! The probes: real DNS queries to every listen address, through the node's own network stack.
//!
//! They are no business of other machines, nor of KubeDNS. An address that is not this machine's is not asked: a
//! question comes *from* the address that it goes to, which only works where that is local. And a packet has one hop to
//! live: local delivery does not look at that, while a router and IPVS drop it, should something on the way have given
//! it another destination. A connection that kube-proxy redirects to a pod of this very node still gets there; so the
//! machine asks ever more seldom where somebody else answers.

use super::foreign_responder;
use super::state::{ProbeResult, ProbeTarget};
use crate::chain::Transport;
use crate::plan::probe::{ProbePath, question, read_answer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{sleep, timeout};

/// Between two sendings of a question that is not answered. They leave from the same port: where each worker has its
/// own socket, the kernel chooses by the port, so that one hanging worker among many is not excused by the others.
const RESEND: Duration = Duration::from_millis(100);

/// How long one port or connection is tried.
const PATIENCE: Duration = Duration::from_millis(900);

/// Before another try after somebody else's answer: from another port, perhaps our server's.
const FOREIGN_PAUSE: Duration = Duration::from_millis(10);

/// Tries until somebody else's answer is believed to be what there is. What is intercepted is withdrawn then, a fifth
/// of a second after the first one.
const FOREIGN_TRIES: u32 = 16;

/// How far a packet may go: to this machine.
const HOPS: u32 = 1;

/// Octets of an answer; a longer one is none of ours.
const MAX_ANSWER: usize = 512;

/// Whose answer came in place of our server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Responder {
    /// Another server of this program.
    OtherGeneration,
    /// Somebody who does not know the question, or our server gone wrong.
    Stranger,
}

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prober {
    /// What our server answers with.
    pub generation: u64,
    /// The way through the server that is asked about.
    pub path: ProbePath,
    /// Packets carry this mark (SO_MARK), which the rules let through untracked at all times. Needs NET_ADMIN.
    pub mark: Option<u32>,
    /// One packet or connection, and no more, whatever comes of it.
    pub is_single_packet: bool,
    /// Our rules could not be set.
    pub lacks_rules: bool,
}

/// What a question came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProbeOutcome {
    pub result: ProbeResult,
    /// Why there is no proof, if there is something to be done about it.
    pub complaint: Option<String>,
}

impl From<ProbeResult> for ProbeOutcome {
    fn from(result: ProbeResult) -> Self {
        Self { result, complaint: None }
    }
}

/// Complaints that have been told, so that each is told once though it is found many times a second.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashMap<ProbeTarget, String>);

impl Complaints {
    /// The complaint, if it is not the one before. A target that has answered may complain anew.
    pub(super) fn take(&mut self, target: ProbeTarget, outcome: ProbeOutcome) -> Option<String> {
        match outcome {
            ProbeOutcome { result: ProbeResult::Answered, .. } => {
                self.0.remove(&target);
                None
            }
            ProbeOutcome { complaint, .. } => {
                let complaint = complaint?;
                let before = self.0.insert(target, complaint.clone());
                (before.as_ref() != Some(&complaint)).then_some(complaint)
            }
        }
    }
    /// Forgets targets that are asked no longer.
    pub(super) fn retain(&mut self, targets: &[ProbeTarget]) {
        self.0.retain(|target, _| targets.contains(target));
    }
}

/// One attempt's end.
enum AttemptOutcome {
    Answered,
    Foreign(Responder),
    Silent,
    /// The connection was closed without an answer.
    Refused,
}

impl Prober {
    /// Asks until something is heard, at most for as long as somebody else answers.
    pub(super) async fn ask(self, target: ProbeTarget) -> ProbeOutcome {
        let mut foreign = 0;
        let mut has_heard_other_generation = false;
        loop {
            let started = Instant::now();
            let attempt = match target.transport {
                Transport::Udp => self.ask_udp(target.address).await,
                Transport::Tcp => self.ask_tcp(target.address).await,
            };
            match attempt {
                Ok(AttemptOutcome::Answered) => return ProbeResult::Answered.into(),
                Ok(AttemptOutcome::Foreign(responder)) if foreign < FOREIGN_TRIES && !self.is_single_packet => {
                    foreign += 1;
                    has_heard_other_generation |= responder == Responder::OtherGeneration;
                    sleep(FOREIGN_PAUSE).await;
                }
                Ok(AttemptOutcome::Foreign(responder)) => {
                    has_heard_other_generation |= responder == Responder::OtherGeneration;
                    let result = match has_heard_other_generation {
                        true => ProbeResult::OtherGeneration,
                        false => ProbeResult::Foreign,
                    };
                    let complaint = format!(
                        "{} over {} is answered by somebody else than our server: {}",
                        target.address,
                        target.transport.label(),
                        foreign_responder::cause(target.address, self.lacks_rules)
                    );
                    return ProbeOutcome { result, complaint: Some(complaint) };
                }
                Ok(AttemptOutcome::Refused) => return ProbeResult::Unproven.into(),
                Ok(AttemptOutcome::Silent) if self.is_single_packet => return ProbeResult::Silent.into(),
                Ok(AttemptOutcome::Silent) => sleep(RESEND.saturating_sub(started.elapsed())).await,
                Err(error) => {
                    sleep(RESEND).await;
                    let why = match error.kind() {
                        io::ErrorKind::AddrNotAvailable => {
                            "it is no address of this machine, and nobody else is asked".to_owned()
                        }
                        _ => error.to_string(),
                    };
                    let complaint = format!("cannot ask {} over {}: {why}", target.address, target.transport.label());
                    return ProbeOutcome { result: ProbeResult::Unproven, complaint: Some(complaint) };
                }
            }
        }
    }

    async fn ask_udp(self, address: SocketAddr) -> io::Result<AttemptOutcome> {
        let socket = self.socket(address, Type::DGRAM, Protocol::UDP)?;
        socket.connect(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let id = fastrand::u16(..);
        let question = question(id, self.path);
        let give_up = Instant::now() + PATIENCE;
        let mut buffer = [0; MAX_ANSWER];
        let mut is_sent = false;
        while Instant::now() < give_up {
            match if is_sent && self.is_single_packet { Ok(0) } else { socket.send(&question).await } {
                Ok(_) => {}
                // ICMP's word on the one before: nobody listens there now.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM | libc::EPERM)) => {}
                Err(error) => return Err(error),
            }
            is_sent = true;
            let resend = tokio::time::Instant::now() + RESEND;
            while let Ok(received) = tokio::time::timeout_at(resend, socket.recv(&mut buffer)).await {
                match received {
                    Ok(length) => {
                        let answer = buffer.get(..length).unwrap_or_default();
                        if answer.get(..2) == Some(&id.to_be_bytes()) {
                            return Ok(self.judge(id, answer));
                        }
                    }
                    Err(_) => tokio::time::sleep_until(resend).await,
                }
            }
        }
        Ok(AttemptOutcome::Silent)
    }

    async fn ask_tcp(self, address: SocketAddr) -> io::Result<AttemptOutcome> {
        let socket = TcpSocket::from_std_stream(self.socket(address, Type::STREAM, Protocol::TCP)?.into());
        // Closed with a reset: no connection of ours lingers in TIME_WAIT.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        let id = fastrand::u16(..);
        let exchange = async {
            let mut stream = socket.connect(address).await?;
            let question = question(id, self.path);
            let length = u16::try_from(question.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
            let length = usize::from(stream.read_u16().await?);
            let mut answer = vec![0; length.min(MAX_ANSWER)];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        match timeout(PATIENCE, exchange).await {
            Err(_) => Ok(AttemptOutcome::Silent),
            Ok(Ok(answer)) => Ok(self.judge(id, &answer)),
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Ok(AttemptOutcome::Refused)
                }
                io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Ok(AttemptOutcome::Silent),
                _ => Err(error),
            },
        }
    }

    fn judge(self, id: u16, answer: &[u8]) -> AttemptOutcome {
        match read_answer(id, self.path, answer) {
            Some(generation) if generation == self.generation => AttemptOutcome::Answered,
            Some(_) => AttemptOutcome::Foreign(Responder::OtherGeneration),
            None => AttemptOutcome::Foreign(Responder::Stranger),
        }
    }

    fn socket(self, address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        match address {
            SocketAddr::V4(_) => socket.set_ttl_v4(HOPS)?,
            SocketAddr::V6(_) => socket.set_unicast_hops_v6(HOPS)?,
        }
        let mut own = address;
        own.set_port(0);
        socket.bind(&own.into())?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::{Complaints, ProbeOutcome, ProbePath, ProbeResult, ProbeTarget, Prober};
    use crate::chain::Transport;
    use crate::message::{Query, Rcode, Response};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    const PROBER: Prober =
        Prober { generation: 7, path: ProbePath::Fast, mark: None, is_single_packet: false, lacks_rules: false };

    /// The answer of a server of this generation, made by the plan itself.
    fn answer(generation: u64, question: &[u8]) -> Vec<u8> {
        let query = Query::read(question).unwrap();
        let mut out = Vec::new();
        let response = crate::plan::probe::answer(&query, question, generation).unwrap();
        let reply = crate::message::ReplyShape { ttl: crate::message::TtlRule::Keep, limit: 512, udp_size: 1232 };
        response.write(&query, question, reply, &mut out);
        out
    }

    #[tokio::test]
    async fn our_servers_answer_over_udp_proves_it_even_after_others() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = ProbeTarget { address: server.local_addr().unwrap(), transport: Transport::Udp };
        let asking = tokio::spawn(PROBER.ask(target));
        let mut buffer = [0; 512];
        let mut ports = Vec::new();
        for generation in [6, 8, 7] {
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            ports.push(client.port());
            server.send_to(&answer(generation, &buffer[..length]), client).await.unwrap();
        }
        assert_eq!(asking.await.unwrap().result, ProbeResult::Answered);
        ports.dedup();
        assert_eq!(ports.len(), 3, "another port, so that another socket of the address may get it");
    }

    #[tokio::test]
    async fn a_question_without_answer_is_sent_again_from_the_same_port() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = ProbeTarget { address: server.local_addr().unwrap(), transport: Transport::Udp };
        let asking = tokio::spawn(PROBER.ask(target));
        let mut buffer = [0; 512];
        let first = server.recv_from(&mut buffer).await.unwrap().1;
        let (length, second) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(first, second);
        server.send_to(&answer(7, &buffer[..length]), second).await.unwrap();
        assert_eq!(asking.await.unwrap().result, ProbeResult::Answered);
    }

    #[tokio::test]
    async fn an_answer_that_is_always_somebody_elses_is_no_proof() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = ProbeTarget { address: server.local_addr().unwrap(), transport: Transport::Udp };
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, client) = server.recv_from(&mut buffer).await.unwrap();
                let query = Query::read(&buffer[..length]).unwrap();
                let refused = Response::empty(&query, &buffer[..length], Rcode::REFUSED);
                let mut out = Vec::new();
                let reply =
                    crate::message::ReplyShape { ttl: crate::message::TtlRule::Keep, limit: 512, udp_size: 1232 };
                refused.write(&query, &buffer[..length], reply, &mut out);
                server.send_to(&out, client).await.unwrap();
            }
        });
        let outcome = PROBER.ask(target).await;
        assert_eq!(outcome.result, ProbeResult::Foreign);
        assert!(outcome.complaint.is_some_and(|complaint| complaint.contains("somebody else")));
        answering.abort();
    }

    #[tokio::test]
    async fn a_sparing_question_is_one_packet_whatever_comes_of_it() {
        let sparing = Prober { is_single_packet: true, ..PROBER };
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = ProbeTarget { address: server.local_addr().unwrap(), transport: Transport::Udp };
        assert_eq!(sparing.ask(target).await.result, ProbeResult::Silent);
        let mut buffer = [0; 512];
        server.try_recv_from(&mut buffer).unwrap();
        assert!(server.try_recv_from(&mut buffer).is_err(), "nothing is sent again");
        let asking = tokio::spawn(sparing.ask(target));
        let (length, client) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(&answer(6, &buffer[..length]), client).await.unwrap();
        assert_eq!(asking.await.unwrap().result, ProbeResult::OtherGeneration);
        assert!(server.try_recv_from(&mut buffer).is_err(), "nor to the next one");
    }

    #[tokio::test]
    async fn an_address_that_is_not_this_machines_is_not_asked() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let target = ProbeTarget { address: "192.0.2.1:53".parse().unwrap(), transport };
            let outcome = PROBER.ask(target).await;
            assert_eq!(outcome.result, ProbeResult::Unproven);
            assert!(outcome.complaint.is_some_and(|complaint| complaint.contains("no address of this machine")));
        }
    }

    #[tokio::test]
    async fn over_tcp_an_answer_proves_and_a_closed_connection_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = ProbeTarget { address: listener.local_addr().unwrap(), transport: Transport::Tcp };
        let asking = tokio::spawn(PROBER.ask(target));
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.unwrap();
        let answer = answer(7, &question);
        stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).await.unwrap();
        assert_eq!(asking.await.unwrap().result, ProbeResult::Answered);

        let asking = tokio::spawn(PROBER.ask(target));
        drop(listener.accept().await.unwrap());
        assert_eq!(asking.await.unwrap().result, ProbeResult::Unproven);
    }

    #[tokio::test]
    async fn silence_is_waited_out_by_whoever_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = ProbeTarget { address: server.local_addr().unwrap(), transport: Transport::Udp };
        assert!(tokio::time::timeout(Duration::from_millis(1200), PROBER.ask(target)).await.is_err());
    }

    #[test]
    fn a_complaint_is_told_once_until_it_is_another_one_or_the_target_has_answered() {
        let target = ProbeTarget { address: "192.0.2.1:53".parse().unwrap(), transport: Transport::Udp };
        let found = |text: &str| ProbeOutcome { result: ProbeResult::Unproven, complaint: Some(text.to_owned()) };
        let mut complaints = Complaints::default();
        let mut is_logged = |outcome| complaints.take(target, outcome).is_some();
        assert!(is_logged(found("unreachable")));
        assert!(!is_logged(found("unreachable")));
        assert!(!is_logged(ProbeResult::Unproven.into()), "closed without a word");
        assert!(!is_logged(found("unreachable")));
        assert!(is_logged(found("denied")));
        assert!(!is_logged(ProbeResult::Answered.into()));
        assert!(is_logged(found("denied")));
        complaints.retain(&[]);
        assert!(complaints.take(target, found("denied")).is_some());
    }
}
