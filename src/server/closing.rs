//! A TCP listener's end without a client that finds its connection reset. A listener that is closed resets those that
//! the kernel has completed and nobody has accepted, and one may come between the last accept and the close. So the
//! kernel is first told to give the listener no more requests for connections, and then it has time to complete those
//! that are being made.

use crate::datagrams::{bind_to_no_interface, has_filter};
use socket2::{SockFilter, SockRef};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// For handshakes that have begun when requests are refused: on a node they take tens of microseconds, more where
/// processors are busy.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(20);

/// From its beginning on, for the first query of a connection that was made just before the end: its client is about to
/// send it. No longer, since queries over UDP wait for the end where another process takes the sockets over.
pub(super) const FIRST_QUERY: Duration = Duration::from_millis(20);

/// Where the flags are in a TCP header, and which one asks for a connection (RFC 9293 section 3.1).
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;

/// Has the kernel give `listener` no more requests for connections; connections that are being made or wait can still
/// be accepted. Requests come to another listener for the address, be it one for all addresses, or are refused. Where
/// the kernel has spread them over several processes' listeners (SO_REUSEPORT) some still come: these are dropped, and
/// sent again a second later (RFC 6298 section 2.1), as all are where the kernel is older than 5.7.
pub(super) fn refuse_connections(listener: BorrowedFd<'_>) -> io::Result<()> {
    const LOAD_OCTET: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const UNLESS_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    if let Err(cause) = bind_to_no_interface(listener) {
        tracing::debug!("requests for connections to a listener that ends are dropped: {cause}");
    }
    // At a TCP socket a filter (SO_ATTACH_FILTER, socket(7)) sees packets from their TCP header on. Connections inherit
    // it, and have no such packets any more.
    let filter = [
        SockFilter::new(LOAD_OCTET as u16, 0, 0, TCP_FLAGS),
        SockFilter::new(UNLESS_SET as u16, 0, 1, SYN),
        SockFilter::new(RETURN as u16, 0, 0, 0),
        SockFilter::new(RETURN as u16, 0, 0, u32::MAX),
    ];
    SockRef::from(&listener).attach_filter(&filter)
}

/// Whether [`refuse_connections`] was called, here or in another process that holds the listener too.
pub(super) fn refuses_connections(listener: BorrowedFd<'_>) -> bool {
    has_filter(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    fn connecting(to: SocketAddr) -> io::Result<()> {
        Socket::new(Domain::for_address(to), Type::STREAM, None)?
            .connect_timeout(&to.into(), Duration::from_millis(200))
    }

    fn listen(to: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&to.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    }

    #[test]
    fn a_request_is_refused_or_comes_to_another_listener_and_connections_that_wait_are_accepted() {
        for (one, all) in [("127.0.0.1:0", "0.0.0.0"), ("[::1]:0", "::")] {
            let listener = listen(one.parse().unwrap());
            let to = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(to).unwrap();
            assert!(!refuses_connections(listener.as_fd()));
            refuse_connections(listener.as_fd()).unwrap();
            assert!(refuses_connections(listener.try_clone().unwrap().as_fd()));
            assert_eq!(connecting(to).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{one}");
            let other = listen(SocketAddr::new(all.parse().unwrap(), to.port()));
            connecting(to).unwrap();
            other.accept().unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            io::Write::write_all(&mut client, b"asks").unwrap();
            let mut octets = [0; 4];
            io::Read::read_exact(&mut accepted, &mut octets).unwrap();
            assert_eq!(&octets, b"asks");
        }
    }

    #[test]
    fn a_request_that_comes_all_the_same_is_dropped_until_the_listener_is_gone() {
        let to = listen("127.0.0.1:0".parse().unwrap()).local_addr().unwrap();
        let (ending, other) = (listen(to), listen(to));
        refuse_connections(ending.as_fd()).unwrap();
        let attempts: Vec<_> = (0..32).map(|_| connecting(to)).collect();
        let failed = attempts.iter().filter_map(|attempt| attempt.as_ref().err()).map(io::Error::kind);
        assert!(failed.clone().all(|kind| kind == io::ErrorKind::TimedOut), "{attempts:?}");
        assert!(failed.count() < attempts.len(), "{attempts:?}");
        drop(ending);
        (0..32).for_each(|_| connecting(to).unwrap());
        drop(other);
    }
}
