//! A stream from a server that may send without end. What is read of it in one turn is bounded, so that others on the
//! same thread have theirs, and so is what is read altogether.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Octets after which a reader's turn is over: those of a TLS record. The last read of a turn may exceed it.
const TURN: usize = 16 << 10;

/// Octets that may still be read of a stream.
#[derive(Clone)]
pub(crate) struct ReadAllowance(Arc<AtomicUsize>);

impl ReadAllowance {
    /// Allows `octets`.
    pub(crate) fn new(octets: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(octets)))
    }

    /// Allows `octets` more, up to `most` in all.
    pub(crate) fn add(&self, octets: usize, most: usize) {
        // Only its connection's task changes it.
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_add(octets).min(most), Ordering::Relaxed);
    }

    fn spend(&self, octets: usize) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(octets), Ordering::Relaxed);
    }

    /// Nothing more may be read.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Reads as much of `stream` as `allowance` has. Then it fails with [`io::ErrorKind::InvalidData`].
pub(crate) struct BoundedReads<S> {
    stream: S,
    allowance: ReadAllowance,
    turn_left: usize,
}

impl<S> BoundedReads<S> {
    pub(crate) fn new(stream: S, allowance: ReadAllowance) -> Self {
        Self { stream, allowance, turn_left: TURN }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.is_spent() {
            let why = "the server sends far more than answers have";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        if self.turn_left == 0 {
            self.turn_left = TURN;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let filled = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if outcome.is_pending() {
            self.turn_left = TURN;
        }
        ready!(outcome)?;
        let count = buffer.filled().len() - filled;
        self.turn_left = self.turn_left.saturating_sub(count);
        self.allowance.spend(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedReads<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, octets)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::io::AsyncReadExt;

    /// Always has more.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let count = buffer.remaining();
            buffer.initialize_unfilled();
            buffer.advance(count);
            Poll::Ready(Ok(()))
        }
    }

    /// Octets read in one poll, and whether it is the last.
    fn one_poll(stream: &mut BoundedReads<Endless>) -> (usize, Option<io::ErrorKind>) {
        let mut count = 0;
        let reading = async {
            let mut buffer = [0; 1000];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(read) => count += read,
                    Err(error) => return error.kind(),
                }
            }
        };
        let error = reading.now_or_never();
        (count, error)
    }

    #[test]
    fn a_stream_without_end_is_read_in_turns_and_as_far_as_is_allowed() {
        let allowance = ReadAllowance::new(30_000);
        let mut stream = BoundedReads::new(Endless, allowance.clone());
        assert_eq!(one_poll(&mut stream), (17_000, None));
        assert_eq!(one_poll(&mut stream), (13_000, Some(io::ErrorKind::InvalidData)));
        allowance.add(5_000, 4_000);
        assert_eq!(one_poll(&mut stream), (4_000, Some(io::ErrorKind::InvalidData)));
        allowance.add(5_000, 50_000);
        assert_eq!(one_poll(&mut stream), (0, None), "the turn of 13,000 and 4,000 octets is over");
        assert_eq!(one_poll(&mut stream), (5_000, Some(io::ErrorKind::InvalidData)));
    }
}
