//! Stream sockets with a path (unix(7)).

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// What is done with such a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketRole {
    Connect,
    Listen,
}

/// A socket that is connected to the one at `path`, or that listens there; it does not block. One that somebody has
/// left behind who listens no longer is replaced.
///
/// # Errors
/// Those of connect(2) and bind(2).
pub(crate) fn unix_socket(path: &Path, role: SocketRole) -> io::Result<OwnedFd> {
    match role {
        SocketRole::Connect => connect_to(path),
        SocketRole::Listen => {
            let is_left = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path);
            let listener = match UnixListener::bind(path) {
                Err(error) if is_left(&error) => {
                    fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                bound => bound?,
            };
            listener.set_nonblocking(true)?;
            Ok(listener.into())
        }
    }
}

/// Waits neither for who listens there nor for room in their queue.
fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::AGAIN) => Err(io::Error::other("whoever listens there takes no more connections")),
        connected => Ok(connected.map(|()| socket)?),
    }
}

/// True for a socket at which nobody listens.
fn is_left_behind(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && connect_to(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::{SocketRole, unix_socket};
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn one_end_listens_and_the_other_connects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(unix_socket(&path, SocketRole::Connect).unwrap_err().kind(), ErrorKind::NotFound);
        let listener = UnixListener::from(unix_socket(&path, SocketRole::Listen).unwrap());
        let mut client = UnixStream::from(unix_socket(&path, SocketRole::Connect).unwrap());
        client.write_all(b"a").unwrap();
        let mut octet = [0];
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.read_exact(&mut octet).unwrap();
        assert_eq!(octet, *b"a");
    }

    #[test]
    fn who_accepts_nobody_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = unix_socket(&path, SocketRole::Listen).unwrap();
        let mut held = Vec::new();
        let refused = loop {
            match unix_socket(&path, SocketRole::Connect) {
                Ok(socket) => held.push(socket),
                Err(error) => break error,
            }
        };
        assert!(refused.to_string().contains("takes no more connections"), "{refused} after {}", held.len());
    }

    #[test]
    fn what_is_left_behind_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("socket"), folder.path().join("file"));
        let first = unix_socket(&path, SocketRole::Listen).unwrap();
        let second = unix_socket(&path, SocketRole::Listen);
        assert_eq!(second.unwrap_err().kind(), ErrorKind::AddrInUse, "somebody listens");
        drop(first);
        unix_socket(&path, SocketRole::Listen).unwrap();
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(unix_socket(&file, SocketRole::Listen).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
