//! The Unix socket at which a successor connects to its predecessor.

use super::super::channel::Channel;
use super::HandoverError;
use crate::deadline;
use crate::platform::{network_namespace_cookie, register_readable};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect as connect_to, listen,
    socket_with,
};
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// For the owner alone.
const MODE: u32 = 0o600;

/// Successors that wait to be heard.
const BACKLOG: i32 = 8;

/// After an accept that failed for want of files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket of packets that listens at a path.
pub(super) struct HandoverListener {
    socket: AsyncFd<OwnedFd>,
    file: SocketFile,
}

/// A socket that listens at a path and that nobody hears yet.
pub(super) struct BoundSocket {
    socket: OwnedFd,
    file: SocketFile,
}

/// The file of a socket. It is removed when this is dropped, if it still is this socket's: a successor has put its own
/// in the place.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl BoundSocket {
    /// Listens at `path`, in the place of whatever is there, all at once. May wait for the folder's file system.
    ///
    /// # Errors
    /// The folder is not there or cannot be written, or the path is longer than a socket's may be.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        let socket = packet_socket()?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:08x}", fastrand::u32(..)));
        let beside = PathBuf::from(name);
        bind(&socket, &SocketAddrUnix::new(&beside)?)?;
        let open = || -> io::Result<(u64, u64)> {
            // Nobody can connect before it listens.
            fs::set_permissions(&beside, Permissions::from_mode(MODE))?;
            listen(&socket, BACKLOG)?;
            let identity = identity(&beside)?;
            fs::rename(&beside, path)?;
            Ok(identity)
        };
        let identity = open().inspect_err(|_| _ = fs::remove_file(&beside))?;
        Ok(Self { socket, file: SocketFile { path: path.to_owned(), identity } })
    }
}

impl HandoverListener {
    /// Hears whoever comes to `bound`. To be called in a runtime.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn open(bound: BoundSocket) -> io::Result<Self> {
        let socket = register_readable(bound.socket)?;
        Ok(Self { socket, file: bound.file })
    }

    /// Hears nobody any longer, and removes the file on a thread of its own.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn close(self) -> io::Result<oneshot::Receiver<()>> {
        let Self { socket, file } = self;
        drop(socket);
        deadline::begin(move || drop(file))
    }

    /// The next one that connects; `None` for one that is not let in. May be dropped and called again at any time.
    pub(super) async fn accept(&self) -> Option<Channel> {
        loop {
            let Ok(mut ready) = self.socket.readable().await else { std::future::pending().await };
            match accept_with(self.socket.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => return admitted(connection),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(error) => {
                    tracing::warn!("watchdog: a successor cannot be heard: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!("watchdog: {} stays, a socket that nobody hears: {error}", self.path.display());
        }
    }
}

/// Root and this process's user may take over.
fn admitted(connection: OwnedFd) -> Option<Channel> {
    match foreign_user(&connection) {
        Ok(None) => Channel::from_fd(connection).ok(),
        Ok(Some(user)) => {
            tracing::warn!("watchdog: user {user} may not take over, and is not listened to");
            None
        }
        Err(error) => {
            tracing::warn!("watchdog: who wants to take over cannot be told, and is not listened to: {error}");
            None
        }
    }
}

/// Connects to whoever listens at `path`; `None` if nobody does. May wait for the folder's file system.
pub(super) fn connect(path: &Path) -> Result<Option<Channel>, HandoverError> {
    let socket = packet_socket().map_err(HandoverError::Connect)?;
    let address = SocketAddrUnix::new(path).map_err(|error| HandoverError::Connect(error.into()))?;
    match rustix::io::retry_on_intr(|| connect_to(&socket, &address)) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::CONNREFUSED) => {
            tracing::info!("watchdog: nobody listens at {} any longer: there is nothing to take over", path.display());
            return Ok(None);
        }
        Err(error) => return Err(HandoverError::Connect(error.into())),
    }
    if let Some(user) = foreign_user(&socket).map_err(HandoverError::Connect)? {
        return Err(HandoverError::ForeignUser(user));
    }
    Channel::from_fd(socket).map(Some).map_err(HandoverError::Connect)
}

/// Whether these sockets, and one opened here and now, belong to the same network namespace, as far as the kernel tells
/// (Linux 5.14).
pub(super) fn belong_to_this_network_namespace(sockets: &[OwnedFd]) -> bool {
    let own = std::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let Ok(here) = own.and_then(|own| network_namespace_cookie(own.as_fd())) else {
        return true;
    };
    sockets.iter().all(|socket| network_namespace_cookie(socket.as_fd()).is_ok_and(|there| there == here))
}

fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The user at the other end, unless it is root or our own.
fn foreign_user(socket: &OwnedFd) -> io::Result<Option<u32>> {
    // rustix reads a process ID of 0 (of a peer in another PID namespace) into a type that has no such value.
    let credentials = getsockopt(socket, PeerCredentials)?;
    let is_known = credentials.uid() == 0 || credentials.uid() == rustix::process::geteuid().as_raw();
    Ok((!is_known).then_some(credentials.uid()))
}
