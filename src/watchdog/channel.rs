//! The control socket: packets with file descriptors beside them (SCM_RIGHTS, unix(7)). Never blocks but where it says
//! so.

use super::control::{MAX_MESSAGE, Message, MessageError, decode, encode};
use crate::platform::register_readable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Descriptors beside one packet; the kernel takes at most 253 (SCM_MAX_FD).
pub(crate) const MAX_DESCRIPTORS: usize = 128;

/// Why nothing could be said or heard.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the control socket fails: {0}; the other process may be gone")]
    Socket(#[from] io::Error),
    #[error(
        "a packet of the control socket is longer than any message, or lost its descriptors: raise the limit of open files"
    )]
    Truncated,
    #[error(
        "what came beside a message of the control socket is not what belongs there; both processes must be of the same build"
    )]
    UnexpectedDescriptors,
    #[error("no answer from the other process within {0:?}; is it stopped?")]
    TimedOut(Duration),
    #[error("the other process has closed the control socket")]
    Closed,
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Socket(error.into())
    }
}

/// A file in memory (memfd), to be passed beside a packet and read from its beginning. Whoever gets it may seal it.
///
/// # Errors
/// Open files or memory are at their limit; what `fill` fails with.
pub(crate) fn memory_file(
    name: &str,
    fill: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = io::BufWriter::new(File::from(memfd_create(name, flags)?));
    fill(&mut file)?;
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file.into())
}

/// One end of it.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(here), Self(there)))
    }

    /// Takes over an end that another process has made.
    ///
    /// # Errors
    /// What was passed is no such socket.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = socket2::SockRef::from(&fd);
        let kind = socket.r#type()?;
        if kind != socket2::Type::SEQPACKET {
            return Err(io::Error::other("not a socket that keeps the bounds of packets"));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        Ok(Self(fd))
    }

    /// The descriptor, to be passed to another process.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message, with descriptors beside it.
    ///
    /// # Errors
    /// Also when the other side has not read for so long that there is no room.
    pub(crate) fn send<M: Message>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let packet = encode(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let is_room = descriptors.len() <= MAX_DESCRIPTORS;
        let is_pushed =
            descriptors.is_empty() || is_room && ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        if !is_pushed {
            return Err(io::Error::other("more descriptors than go beside a packet").into());
        }
        // Whoever passed this end may have made it one that blocks since.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&packet)], &mut ancillary, flags))?;
        Ok(())
    }

    /// Sends a message that may as well be left out: only while more than three quarters of the room are free
    /// (`unix_writable` in net/unix/af_unix.c), so that it keeps none that matters from a process that does not read.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub(crate) fn offer<M: Message>(&self, message: &M) -> Result<(), ChannelError> {
        let mut room = [PollFd::new(&self.0, PollFlags::OUT)];
        poll(&mut room, Some(&Timespec::default()))?;
        if room[0].revents().contains(PollFlags::OUT) { self.send(message, &[]) } else { Ok(()) }
    }

    /// Sends as many descriptors as there are, in packets of as many as go beside one. `message` makes the message of
    /// each; it is told whether others follow.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub(crate) fn send_in_packets<M: Message>(
        &self,
        descriptors: &[BorrowedFd<'_>],
        message: impl Fn(bool) -> M,
    ) -> Result<(), ChannelError> {
        let (last, packets) = match descriptors.chunks(MAX_DESCRIPTORS).collect::<Vec<_>>().split_last() {
            Some((last, packets)) => (*last, packets.to_vec()),
            None => (&[][..], Vec::new()),
        };
        for packet in packets {
            self.send(&message(true), packet)?;
        }
        self.send(&message(false), last)
    }

    /// The next message and what came beside it; `None` if there is none now.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] once the other side is gone.
    pub(crate) fn receive<M: Message>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let mut packet = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut packet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        for passed in &descriptors {
            // Whichever of them is closed here, its close must not wait. What is no socket has no such option; a server
            // may not set it.
            _ = socket2::SockRef::from(passed).set_linger(None);
        }
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(ChannelError::Truncated);
        }
        Ok(Some((decode(packet.get(..received.bytes).unwrap_or_default())?, descriptors)))
    }

    /// Waits for a message, blocking the thread.
    ///
    /// # Errors
    /// As [`Channel::receive`], and [`ChannelError::TimedOut`].
    pub(crate) fn wait<M: Message>(&self, patience: Duration) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(received) = self.receive()? {
                return Ok(received);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ChannelError::TimedOut(patience));
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells in the present runtime when there is something to receive.
    ///
    /// # Errors
    /// Those of dup(2) and epoll_ctl(2).
    pub(crate) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        register_readable(self.0.try_clone()?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, ChannelError, MAX_DESCRIPTORS};
    use crate::watchdog::control::{Instruction, ServerReport};
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::sync::mpsc;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn messages_and_descriptors_arrive_in_order_and_packet_by_packet() {
        let (here, there) = Channel::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let many: Vec<BorrowedFd<'_>> = vec![socket.as_fd(); MAX_DESCRIPTORS];
        here.send(&Instruction::Sockets { more: true }, &many).unwrap();
        here.send(&Instruction::Sockets { more: false }, &many[..1]).unwrap();
        let (first, passed) = there.wait::<Instruction>(SOON).unwrap();
        assert_eq!((first, passed.len()), (Instruction::Sockets { more: true }, MAX_DESCRIPTORS));
        let (second, mut passed) = there.wait::<Instruction>(SOON).unwrap();
        assert_eq!((second, passed.len()), (Instruction::Sockets { more: false }, 1));
        let same = UdpSocket::from(passed.remove(0));
        assert_eq!(same.local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(there.receive::<Instruction>().unwrap().is_none());
        assert!(here.send(&Instruction::Reload, &vec![socket.as_fd(); MAX_DESCRIPTORS + 1]).is_err());
    }

    #[test]
    fn what_was_said_before_the_end_is_heard_and_then_the_end() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&ServerReport::Failed { message: "bad".to_owned() }, &[]).unwrap();
        drop(here);
        assert!(matches!(there.wait::<ServerReport>(SOON), Ok((ServerReport::Failed { .. }, _))));
        assert!(matches!(there.wait::<ServerReport>(SOON), Err(ChannelError::Closed)));
        assert!(matches!(there.send(&Instruction::Reload, &[]), Err(ChannelError::Socket(_))));
    }

    #[test]
    fn a_message_of_the_other_side_or_none_in_time_is_an_error() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&Instruction::Reload, &[]).unwrap();
        assert!(matches!(there.receive::<ServerReport>(), Err(ChannelError::Message(_))));
        assert!(matches!(there.wait::<ServerReport>(Duration::from_millis(1)), Err(ChannelError::TimedOut(_))));
    }

    #[test]
    fn beats_that_nobody_reads_leave_room_for_a_report() {
        let (here, there) = Channel::pair().unwrap();
        for _ in 0..10_000 {
            here.offer(&ServerReport::StreamsAlive).unwrap();
        }
        let report = ServerReport::Failed { message: "text".repeat(1000) };
        here.send(&report, &[]).unwrap();
        let mut beats = 0;
        loop {
            match there.receive().unwrap() {
                Some((ServerReport::StreamsAlive, _)) => beats += 1,
                last => break assert_eq!(last.map(|(last, _)| last), Some(report)),
            }
        }
        assert!(beats > 0);
    }

    #[test]
    fn only_a_socket_of_packets_is_taken_over() {
        let stream = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(Channel::from_fd(stream.into()).is_err());
        assert!(Channel::from_fd(std::fs::File::open("/dev/null").unwrap().into()).is_err());
        let (here, _there) = Channel::pair().unwrap();
        assert!(Channel::from_fd(here.into_fd()).is_ok());
    }

    #[test]
    fn a_descriptor_whose_close_waits_does_not_stop_the_watchdog() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        socket2::SockRef::from(&stream).set_linger(Some(Duration::from_secs(3600))).unwrap();
        let (here, there) = Channel::pair().unwrap();
        here.send(&ServerReport::SetupError { errortype: "text".to_owned() }, &[stream.as_fd()]).unwrap();
        // For a close of this copy, the last but one, nobody waits.
        drop(stream);
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            drop(there.wait::<ServerReport>(SOON).unwrap());
            done.send(())
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("it is closed");
    }
}
