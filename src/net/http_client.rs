//! HTTP requests to one address, each over a connection of its own. The caller sets the time limit.

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Why a request has failed: in connecting, in the protocol, or because the body was too long.
pub(crate) type HttpError = Box<dyn std::error::Error + Send + Sync>;

/// The status of `http://ADDRESS/PATH`. The body is not read.
///
/// # Errors
/// The connection fails, or what comes is not HTTP.
pub(crate) async fn get_status(address: SocketAddr, path: &str) -> Result<StatusCode, HttpError> {
    get(address, path, async |response| Ok(response.status())).await
}

/// The status and text of `http://ADDRESS/PATH`.
///
/// # Errors
/// The connection fails, what comes is not HTTP, or the body has more than `max_octets`.
pub(crate) async fn get_text(
    address: SocketAddr,
    path: &str,
    max_octets: usize,
) -> Result<(StatusCode, String), HttpError> {
    get(address, path, async |response| {
        let status = response.status();
        let body = Limited::new(response.into_body(), max_octets).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    })
    .await
}

async fn get<T>(
    address: SocketAddr,
    path: &str,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, HttpError>,
) -> Result<T, HttpError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::get(path).header(HOST, address.to_string()).header(CONNECTION, "close").body(Empty::<Bytes>::new())?;
    let exchange = async { read(sender.send_request(request).await?).await };
    drive(exchange, connection).await
}

/// Sends `body` to `path` of `host` over a connection to it, and returns the status. What the answer holds is not read.
///
/// # Errors
/// The connection fails, or what comes is not HTTP.
pub(crate) async fn post<S>(
    stream: S,
    (host, path): (&str, &str),
    content_type: &str,
    body: impl Into<Bytes>,
) -> Result<StatusCode, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, content_type)
        .header(CONNECTION, "close")
        .body(Full::new(body.into()))?;
    let exchange = async { Ok(sender.send_request(request).await?.status()) };
    drive(exchange, connection).await
}

/// The connection moves only while it is polled, and it may end before the whole answer is read.
async fn drive<T>(
    exchange: impl Future<Output = Result<T, HttpError>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<T, HttpError> {
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => return outcome,
        ended = connection => ended?,
    }
    exchange.await
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{get_status, get_text, post};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one connection; the text of its request.
    pub(crate) async fn serve(listener: TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_page_is_read_to_its_end_and_no_further_than_the_limit() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy";
        for (max_octets, expected) in [(4, Some("busy")), (3, None)] {
            let (listener, address) = listener().await;
            let (page, request) = tokio::join!(get_text(address, "/health", max_octets), serve(listener, answer));
            assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
            assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
            assert_eq!(
                page.ok().map(|(status, text)| (status.as_u16(), text)),
                expected.map(|text| (503, text.to_owned()))
            );
        }
    }

    #[tokio::test]
    async fn the_status_is_known_before_the_body_has_come() {
        let (listener, address) = listener().await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
        let (status, _) = tokio::join!(get_status(address, "/"), serve(listener, answer));
        assert_eq!(status.unwrap().as_u16(), 200);
    }

    #[tokio::test]
    async fn what_is_posted_arrives_whole_under_the_name_of_its_host() {
        let (listener, address) = listener().await;
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let answer = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        let posting = post(stream, ("collector:9411", "/api/v2/spans"), "application/json", "[]");
        let (status, request) = tokio::join!(posting, serve(listener, answer));
        assert_eq!(status.unwrap().as_u16(), 202);
        assert!(request.starts_with("POST /api/v2/spans HTTP/1.1\r\n"), "{request}");
        for line in ["host: collector:9411\r\n", "content-type: application/json\r\n", "content-length: 2\r\n"] {
            assert!(request.contains(line), "{request}");
        }
    }

    #[tokio::test]
    async fn nonsense_and_a_closed_port_are_errors() {
        for answer in ["nonsense\r\n\r\n", ""] {
            let (listener, address) = listener().await;
            let (status, _) = tokio::join!(get_status(address, "/"), serve(listener, answer));
            assert!(status.is_err(), "{answer:?}");
        }
        let (listener, address) = listener().await;
        drop(listener);
        assert!(get_status(address, "/").await.is_err());
    }
}
