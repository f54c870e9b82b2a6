//! The scripted upstream over TLS and over HTTPS, each at a port of its own, with a certificate made for this run.

use crate::upstream::{answer, answer_messages};
use anyhow::{Context, Result};
use h2::RecvStream;
use h2::server::SendResponse;
use hyper::body::Bytes;
use hyper::{Request, Response};
use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// Of messages in DNS over HTTPS (RFC 8484 section 6).
const MEDIA_TYPE: &str = "application/dns-message";

/// Whom the certificate is for.
pub const NAME: &str = "upstream.bench.example";

/// Where an upstream that answers plain DNS at `plain` is asked over TLS.
pub fn tls_address(plain: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(*plain.ip(), plain.port() + 1)
}

/// Where it is asked over HTTPS.
pub fn https_address(plain: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(*plain.ip(), plain.port() + 2)
}

/// Answers over TLS and HTTPS in a thread of its own until the process ends. Clients find the certificate in a file.
pub fn start(plain: SocketAddrV4, certificate: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("no certificate could be made")?;
    fs::write(certificate, made.cert.pem()).with_context(|| format!("cannot write {}", certificate.display()))?;
    let acceptor = |protocols: &[&[u8]]| -> Result<TlsAcceptor> {
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    };
    let (tls, https) = (acceptor(&[])?, acceptor(&[b"h2"])?);
    let bind = |address: SocketAddrV4| -> Result<StdListener> {
        let listener = StdListener::bind(address).with_context(|| format!("cannot serve {address}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let (at_tls, at_https) = (bind(tls_address(plain))?, bind(https_address(plain))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        let served = runtime.block_on(async {
            tokio::try_join!(serve(at_tls, tls, serve_messages), serve(at_https, https, serve_requests))
        });
        if let Err(error) = served {
            eprintln!("the upstream over TLS has ended: {error}");
        }
    });
    Ok(())
}

async fn serve<F>(listener: StdListener, tls: TlsAcceptor, each: impl Fn(TlsStream<TcpStream>) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _): (_, SocketAddr) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A session or connection that fails is the server's to open again.
        if let Ok(session) = tls.accept(stream).await {
            tokio::spawn(each(session));
        }
    }
}

/// Answers a session's queries in order, all that one read brought in one write.
async fn serve_messages(mut session: TlsStream<TcpStream>) -> io::Result<()> {
    let (mut input, mut held, mut out) = (vec![0; 65_536], 0, Vec::new());
    loop {
        let count = session.read(&mut input[held..]).await?;
        if count == 0 {
            return Ok(());
        }
        held += count;
        let taken = answer_messages(&input[..held], &mut out);
        input.copy_within(taken..held, 0);
        held -= taken;
        session.write_all(&out).await?;
        session.flush().await?;
        out.clear();
    }
}

/// Answers a connection's requests, each when all of it has come.
async fn serve_requests(session: TlsStream<TcpStream>) -> io::Result<()> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(250)
        .handshake::<_, Bytes>(session)
        .await
        .map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        tokio::spawn(async move {
            // A stream that fails is the server's to ask again.
            _ = serve_request(request, respond).await;
        });
    }
    Ok(())
}

async fn serve_request(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let mut body = request.into_body();
    let (mut query, mut reply) = (Vec::new(), Vec::new());
    while let Some(octets) = body.data().await.transpose()? {
        body.flow_control().release_capacity(octets.len())?;
        query.extend_from_slice(&octets);
    }
    answer(&query, &mut reply);
    let head = Response::builder().header("content-type", MEDIA_TYPE).header("content-length", reply.len());
    respond.send_response(head.body(())?, false)?.send_data(reply.into(), true)?;
    Ok(())
}
