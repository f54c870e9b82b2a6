//! Another program of the node, which knows nothing of DNS: it opens sockets to wherever, and needs a port of the
//! kernel's for each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where it connects to.
const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77)), 7000);
const INTERVAL: Duration = Duration::from_millis(10);

pub struct Neighbour {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<(u64, u64)>; 2],
}

impl Neighbour {
    /// Opens two sockets a hundred times a second, until stopped.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(SERVICE).expect("the address is free");
        listener.set_nonblocking(true).expect("a socket can be told not to wait");
        let (of_service, of_client) = (stop.clone(), stop.clone());
        let accept = move || {
            while !of_service.load(Ordering::Relaxed) {
                // Whoever ends first waits for the port: that is the service.
                while listener.accept().is_ok() {}
                std::thread::sleep(Duration::from_millis(1));
            }
            (0, 0)
        };
        let connect = move || {
            let (mut tried, mut failed) = (0, 0);
            while !of_client.load(Ordering::Relaxed) {
                for outcome in [connect_tcp(), connect_udp()] {
                    tried += 1;
                    failed += u64::from(outcome.is_err());
                }
                std::thread::sleep(INTERVAL);
            }
            (tried, failed)
        };
        Self { stop, threads: [std::thread::spawn(accept), std::thread::spawn(connect)] }
    }

    /// How many sockets it wanted, and how many it did not get.
    pub fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let [_, told] = self.threads.map(|thread| thread.join().expect("it does not panic"));
        told
    }
}

fn connect_tcp() -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SERVICE, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    // Until the service has closed it.
    _ = io::Read::read(&mut stream, &mut [0]);
    Ok(())
}

fn connect_udp() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SERVICE)
}
