//! TLS sessions from many addresses, each of which is made anew when the server has closed it.

use crate::certificate::session;
use crate::crowd::Told;
use crate::polite::tcp_from;
use rustls::{ClientConfig, ClientConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two rounds over all sessions.
const ROUND: Duration = Duration::from_millis(100);
/// For a connection to come about, and for each step of its handshake.
const PATIENCE: Duration = Duration::from_millis(500);

/// What each session does.
pub struct Habits {
    /// What is spoken in it (ALPN).
    pub protocol: Option<&'static [u8]>,
    /// Sent at the start, by the number of the session.
    pub greeting: fn(usize) -> Vec<u8>,
    /// Sent in each round thereafter, by the number of the round, and what is received is read.
    pub then: fn(u32) -> Vec<u8>,
    /// Nothing is read, and the window is as small as it can be.
    pub is_deaf: bool,
    /// The keys are changed so often in each round.
    pub key_updates: usize,
}

impl Default for Habits {
    fn default() -> Self {
        Self { protocol: None, greeting: |_| Vec::new(), then: |_| Vec::new(), is_deaf: false, key_updates: 0 }
    }
}

struct Session {
    tls: ClientConnection,
    stream: TcpStream,
    rounds: u32,
}

/// Keeps `count` sessions open for so long, by four threads.
pub fn sessions(
    config: &Arc<ClientConfig>,
    addresses: &[IpAddr],
    server: SocketAddr,
    count: u32,
    during: Duration,
    habits: &Habits,
) -> Told {
    const THREADS: usize = 4;
    let told = std::thread::scope(|scope| {
        let part = |thread| {
            let numbers = (thread..crate::scene::affordable(count)).step_by(THREADS);
            scope.spawn(move || part(config, addresses, server, numbers, during, habits))
        };
        let parts: Vec<_> = (0..THREADS).map(part).collect();
        parts.into_iter().map(|part| part.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    told.into_iter().fold(Told::default(), Told::with)
}

fn part(
    config: &Arc<ClientConfig>,
    addresses: &[IpAddr],
    server: SocketAddr,
    numbers: impl Iterator<Item = usize>,
    during: Duration,
    habits: &Habits,
) -> Told {
    crate::scene::be_a_pod();
    let mut places: Vec<(usize, Option<Session>)> = numbers.map(|number| (number, None)).collect();
    let (started, mut told) = (Instant::now(), Told::default());
    while started.elapsed() < during {
        let round = Instant::now();
        for (number, place) in &mut places {
            if started.elapsed() >= during {
                break;
            }
            match place {
                Some(session) => {
                    if !session.go_on(habits) {
                        (told.closed, *place) = (told.closed + 1, None);
                    }
                }
                None => match Session::open(config, addresses[*number % addresses.len()], server, *number, habits) {
                    Ok(session) => (told.opened, *place) = (told.opened + 1, Some(session)),
                    Err(_) => told.refused += 1,
                },
            }
        }
        std::thread::sleep(ROUND.saturating_sub(round.elapsed()));
    }
    told.held = places.iter().filter(|(_, place)| place.is_some()).count();
    told
}

impl Session {
    fn open(
        config: &Arc<ClientConfig>,
        source: IpAddr,
        server: SocketAddr,
        number: usize,
        habits: &Habits,
    ) -> std::io::Result<Self> {
        let mut stream = tcp_from(source, server, PATIENCE)?;
        if habits.is_deaf {
            socket2::SockRef::from(&stream).set_recv_buffer_size(4096)?;
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tls = session(config);
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        stream.set_nonblocking(true)?;
        let mut session = Self { tls, stream, rounds: 0 };
        session.write(&(habits.greeting)(number));
        Ok(session)
    }

    /// What does not fit is not sent. False when the server has closed.
    fn write(&mut self, octets: &[u8]) -> bool {
        _ = self.tls.writer().write(octets);
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// False when the server has closed.
    fn go_on(&mut self, habits: &Habits) -> bool {
        self.rounds += 1;
        for _ in 0..habits.key_updates {
            if self.tls.refresh_traffic_keys().is_err() || !self.write(&[]) {
                return false;
            }
        }
        if !self.write(&(habits.then)(self.rounds)) {
            return false;
        }
        if habits.is_deaf {
            return !matches!(self.stream.peek(&mut [0]), Ok(0));
        }
        let mut buffer = [0; 65_536];
        loop {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if self.tls.process_new_packets().is_err() {
                return false;
            }
            while self.tls.reader().read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    }
}
