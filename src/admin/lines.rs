//! Lines over a connection, bounded in octets and time.

use super::protocol::LONGEST_REQUEST;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A line, without its end; `None`: it is longer than a request may be.
pub(super) async fn read_line(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        if let Some(end) = line.iter().position(|octet| *octet == b'\n') {
            line.truncate(end);
            return Ok(Some(line));
        }
        if line.len() >= LONGEST_REQUEST {
            return Ok(None);
        }
        let mut chunk = [0; LONGEST_REQUEST];
        let room = chunk.get_mut(..LONGEST_REQUEST - line.len()).unwrap_or_default();
        let octets = stream.read(room).await?;
        if octets == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(room.get(..octets).unwrap_or_default());
    }
}

/// Writes all of it, part by part, each within `patience`.
pub(super) async fn write(stream: &mut UnixStream, mut octets: &[u8], patience: Duration) -> io::Result<()> {
    while !octets.is_empty() {
        let written = timeout(patience, stream.write(octets)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        octets = octets.get(written..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_is_let_go() {
        let (mut here, _there) = UnixStream::pair().unwrap();
        let error = write(&mut here, &vec![0; 10 << 20], Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
