//! Ports for servers under test.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Below the range the kernel takes outgoing ports from (net.ipv4.ip_local_port_range), so that no client's socket sits
/// on one.
const RANGE: std::ops::Range<u16> = 11_000..32_000;

/// Abstract sockets whose names say which ports this process has handed out; the kernel frees them with the process,
/// and no two test processes hold the same.
static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 free on both UDP and TCP, handed out once among all test processes of this machine.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(RANGE);
        let name = SocketAddr::from_abstract_name(format!("nodelocaldns-test-port-{port}")).expect("a short name");
        let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if udp.is_ok() && tcp.is_ok() {
            TAKEN.lock().expect("no test panics with this lock held").push(claim);
            return port;
        }
    }
}

/// A port of 127.0.0.1 that nobody else can have over TCP while the listener lives.
pub fn taken_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}
