//! The task of a TCP connection to an upstream: it connects, makes the TLS session if there is to be one, and serves
//! the connection until it ends.

use super::deadline_timer::DeadlineTimer;
use super::error::{SystemError, UpstreamError};
use super::https_streams;
use super::remote::{Remote, UpstreamProtocol};
use super::socket_budget::SocketPermit;
use super::tcp_connection::TcpConnection;
use super::tcp_messages;
use super::upstream_socket::FailOnDrop;
use super::upstream_stream::TlsSession;
use crate::net::tls::{TlsClient, TlsError};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

/// Opens a connection and starts its task.
pub(super) fn open(remote: &Arc<Remote>, permit: SocketPermit, now: Instant) -> Arc<TcpConnection> {
    let connection = Arc::new(TcpConnection::new(remote, permit, now));
    tokio::spawn(run(connection.clone()));
    connection
}

/// The task of a connection: connects, writes and reads until the connection fails, is idle for long or is retired and
/// done.
async fn run(connection: Arc<TcpConnection>) {
    let mut fail_on_drop =
        FailOnDrop { in_flight: &connection.in_flight, error: UpstreamError::Closed(connection.endpoints()) };
    let mut timer = DeadlineTimer::new();
    fail_on_drop.error = tokio::select! {
        biased;
        // Before what the upstream sends, so that it cannot put deadlines off.
        never = timer.run(&connection.in_flight) => match never {},
        error = connect_and_serve(&connection) => error,
    };
    // Before `fail_on_drop` fails the queries in flight, so that none is sent on this connection after that.
    connection.state.lock().is_retired = true;
}

/// Returns why the connection ended.
async fn connect_and_serve(connection: &TcpConnection) -> UpstreamError {
    let stream = match connect(connection).await {
        Ok(stream) => stream,
        Err(error) => return UpstreamError::Dial(connection.endpoints(), error),
    };
    connection.state.lock().local = stream.local_addr().ok();
    // Boxed: the future of a plain connection need not have room for the others.
    let end = match &connection.remote.protocol {
        UpstreamProtocol::Dns => tcp_messages::serve(connection, stream).await,
        UpstreamProtocol::Tls(tls) => match Box::pin(make_session(connection, tls, stream)).await {
            Ok(session) => Box::pin(tcp_messages::serve(connection, TlsSession::from(session))).await,
            Err(error) => return error,
        },
        UpstreamProtocol::Https(tls, resource) => match Box::pin(make_session(connection, tls, stream)).await {
            Ok(session) => Box::pin(https_streams::serve(connection, session, resource)).await,
            Err(error) => return error,
        },
    };
    match end {
        Ok(()) => UpstreamError::Closed(connection.endpoints()),
        Err(end) => end.error(connection.endpoints()),
    }
}

/// Makes the TLS session of a connection, which may take as long as the connection itself.
async fn make_session(
    connection: &TcpConnection,
    tls: &TlsClient,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, UpstreamError> {
    let limit = connection.remote.settings.read_timeout;
    let outcome = tokio::time::timeout(limit, tls.connect(stream)).await;
    let cut = |error: io::Error| UpstreamError::HandshakeCut(connection.endpoints(), error.into());
    match outcome {
        Ok(Ok(session)) => {
            let mut state = connection.state.lock();
            state.is_opening = false;
            state.waiting_since = Instant::now();
            Ok(session)
        }
        Ok(Err(TlsError::Connection(error))) => Err(cut(error)),
        Ok(Err(refused)) => Err(UpstreamError::Handshake(connection.endpoints(), refused.to_string().into())),
        Err(_) => Err(cut(io::ErrorKind::TimedOut.into())),
    }
}

async fn connect(connection: &TcpConnection) -> Result<TcpStream, SystemError> {
    let Remote { address, settings, .. } = &*connection.remote;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = settings.source_address {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let connecting = tokio::time::timeout(settings.read_timeout, socket.connect(*address)).await;
    let stream = connecting.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    // Without it the kernel sends for a quarter of an hour to a pod that is gone.
    SockRef::from(&stream).set_tcp_user_timeout(Some(settings.read_timeout))?;
    Ok(stream)
}
