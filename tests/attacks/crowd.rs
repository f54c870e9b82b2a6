//! TCP connections by the thousand, from many addresses, each of which is opened anew when the server has closed it.

use crate::polite::tcp_from;
use crate::scene::affordable;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Between two rounds over all connections.
const ROUND: Duration = Duration::from_millis(100);
/// For a connection to come about; an attacker has others.
const PATIENCE: Duration = Duration::from_millis(300);

/// What each connection does.
pub struct Manners {
    /// Sent at the start.
    pub greeting: fn(usize) -> Vec<u8>,
    /// Sent in each round thereafter, and what is received is read.
    pub then: fn(usize) -> Vec<u8>,
    /// Nothing is read, and the window is as small as it can be.
    pub is_deaf: bool,
    /// Closed with RST after each round.
    pub is_fickle: bool,
    /// Half of it is closed after the greeting: nothing more will be asked.
    pub ends: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { greeting: |_| Vec::new(), then: |_| Vec::new(), is_deaf: false, is_fickle: false, ends: false }
    }
}

/// What became of a crowd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub opened: usize,
    /// Refused, or not taken in time.
    pub refused: usize,
    /// By the server.
    pub closed: usize,
    /// Open at the end.
    pub held: usize,
}

impl Told {
    /// Both together.
    pub fn with(self, other: Self) -> Self {
        Self {
            opened: self.opened + other.opened,
            refused: self.refused + other.refused,
            closed: self.closed + other.closed,
            held: self.held + other.held,
        }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} opened, {} refused, {} closed, {} held", self.opened, self.refused, self.closed, self.held)
    }
}

/// Keeps `count` connections open for so long, by four threads.
pub fn crowd(addresses: &[IpAddr], server: SocketAddr, count: u32, during: Duration, manners: &Manners) -> Told {
    const THREADS: usize = 4;
    let count = affordable(count);
    let told = std::thread::scope(|scope| {
        let part =
            |thread| scope.spawn(move || part(addresses, server, (thread..count).step_by(THREADS), during, manners));
        let parts: Vec<_> = (0..THREADS).map(part).collect();
        parts.into_iter().map(|part| part.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    told.into_iter().fold(Told::default(), Told::with)
}

fn part(
    addresses: &[IpAddr],
    server: SocketAddr,
    numbers: impl Iterator<Item = usize>,
    during: Duration,
    manners: &Manners,
) -> Told {
    crate::scene::be_a_pod();
    let mut places: Vec<(usize, Option<TcpStream>)> = numbers.map(|number| (number, None)).collect();
    let (started, mut told) = (Instant::now(), Told::default());
    while started.elapsed() < during {
        let round = Instant::now();
        for (number, place) in &mut places {
            if started.elapsed() >= during {
                break;
            }
            if let Some(stream) = place {
                if !go_on(stream, *number, manners) {
                    told.closed += 1;
                    *place = None;
                }
                if manners.is_fickle {
                    *place = None;
                }
                continue;
            }
            match open(addresses[*number % addresses.len()], server, *number, manners) {
                Ok(stream) => (told.opened, *place) = (told.opened + 1, Some(stream)),
                Err(_) => told.refused += 1,
            }
        }
        std::thread::sleep(ROUND.saturating_sub(round.elapsed()));
    }
    told.held = places.iter().filter(|(_, place)| place.is_some()).count();
    told
}

fn open(source: IpAddr, server: SocketAddr, number: usize, manners: &Manners) -> std::io::Result<TcpStream> {
    let mut stream = tcp_from(source, server, PATIENCE)?;
    let socket = socket2::SockRef::from(&stream);
    if manners.is_deaf {
        socket.set_recv_buffer_size(4096)?;
    }
    if manners.is_fickle {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    stream.set_nonblocking(true)?;
    // What does not fit is not sent: a greeting may be longer than the server reads.
    _ = stream.write(&(manners.greeting)(number));
    if manners.ends {
        stream.shutdown(std::net::Shutdown::Write)?;
    }
    Ok(stream)
}

/// False when the server has closed it.
fn go_on(stream: &mut TcpStream, number: usize, manners: &Manners) -> bool {
    let is_open = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
    let more = (manners.then)(number);
    if !more.is_empty() && !stream.write(&more).map_or_else(is_open, |_| true) {
        return false;
    }
    if manners.is_deaf {
        return !matches!(stream.peek(&mut [0]), Ok(0));
    }
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return is_open(error),
        }
    }
}
