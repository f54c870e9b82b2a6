//! A connection of octets in memory, served as one whose session has been made.

use super::Limits;
use super::client_stream::ClientStream;
use super::connections::{Caller, ConnectionAdmission, Connections};
use super::https::{self, HttpsConnection};
use super::metrics::ServerMetrics;
use super::tcp::{self, Entered};
use super::worker::{Binding, Shared, WorkerState};
use crate::chain::{Peer, Transport};
use crate::fairness::Fairness;
use crate::metrics::Registry;
use crate::plan::Listener;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// What is spoken in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionProtocol {
    /// DNS messages behind their lengths (RFC 7858).
    Dns,
    /// RFC 8484 over HTTP/1.1.
    Http1,
    /// RFC 8484 over HTTP/2.
    Http2,
}

/// Serves one client of `listener`, until the connection ends. For tests with octets of their own.
#[doc(hidden)]
pub async fn serve_decrypted(listener: &Arc<Listener>, protocol: SessionProtocol, stream: DuplexStream) {
    let (limits, now) = (Limits::default(), Instant::now());
    let shared = Arc::new(Shared::new(ServerMetrics::new(&Registry::new(1)), Arc::default()));
    let connections = Arc::new(Connections::new(limits.tcp_connections, limits.buffer_octets, now));
    let state = Arc::new(WorkerState::new(limits, shared, connections));
    let (alive, _done) = mpsc::channel(1);
    let binding = Arc::new(Binding::new(listener.clone(), alive));
    let peer = Peer {
        client: ([192, 0, 2, 1], 40_000).into(),
        local: ([127, 0, 0, 1], 443).into(),
        transport: Transport::Tcp,
    };
    let caller = Caller { client: Fairness::default().client(peer.client.ip()), is_own: false };
    let ConnectionAdmission::Granted(permit) = state.connections.admit(caller, true, now) else { return };
    let memory = state.connections.buffers.memory(caller.client, true);
    let entered = Entered { peer, caller, is_fair: true, permit, memory };
    match protocol {
        SessionProtocol::Dns => {
            let (connection, permit, memory) = tcp::connection(entered, &binding, &state);
            tcp::serve(stream, connection, permit, memory).await;
        }
        SessionProtocol::Http1 | SessionProtocol::Http2 => {
            let is_http2 = protocol == SessionProtocol::Http2;
            let connection = HttpsConnection { entered, of_listener: None, is_http2, binding, state };
            https::serve(stream, connection).await;
        }
    }
}

impl ClientStream for DuplexStream {
    fn write_at_once(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn read_received(&mut self, _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) {}

    fn forget_unread(&self) {}
}
