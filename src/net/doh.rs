//! DNS over HTTPS as a client speaks it (RFC 8484), over HTTP/2: how a query becomes a request, what of a response is
//! an answer, and one exchange on a connection of its own.

use super::bounded_reads::{BoundedReads, ReadAllowance};
use data_encoding::BASE64URL_NOPAD;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AGE, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use hyper::{Method, Request, StatusCode, Uri};
use std::future::poll_fn;
use std::net::Ipv6Addr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// RFC 9110 section 4.2.2.
pub(crate) const HTTPS_PORT: u16 = 443;
/// Where servers are asked unless something else is said, as in CoreDNS.
pub(crate) const DEFAULT_PATH: &str = "/dns-query";
/// RFC 8484 section 6.
pub(crate) const MEDIA_TYPE: &str = "application/dns-message";
/// Octets of a DNS message at most (RFC 8484 section 6).
const MAX_MESSAGE: usize = 65535;
/// Octets that may come on all streams of a connection before we have read them. A stream alone has what HTTP/2 gives
/// it, 65,535, which is one message.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Octets of a response's head at most. One of an answer has a few hundred.
const MAX_HEAD: u32 = 16 << 10;
/// Interim responses (1xx) to a request at most. No server of DNS needs one, and HTTP/2 does not bound them.
const MAX_INTERIM: usize = 4;
/// Octets that a connection may bring for each request, and before the first: several times those of the longest
/// message and the longest head.
const OCTETS_PER_REQUEST: usize = 256 << 10;
/// Streams that we have ended and of which something may still come.
const MAX_ENDED_STREAMS: usize = 100;
/// Octets of a media type that a message shows at most.
const SHOWN_TYPE: usize = 60;

/// Sends requests on a connection.
pub(crate) type DohSender = SendRequest<Bytes>;
/// Moves what is sent and received. It has to be polled.
pub(crate) type DohConnection<S = TcpStream> = Connection<BoundedReads<TlsStream<S>>, Bytes>;

/// How a query is put into a request (RFC 8484 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DohMethod {
    /// In the URI, so that HTTP caches may answer.
    Get,
    /// In the body.
    #[default]
    Post,
}

/// Where queries are asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DohResource {
    uri: Uri,
    method: DohMethod,
}

impl DohResource {
    /// `https://HOST:PORT/PATH`, where the host is a name or an address. A host that is neither, which no certificate
    /// can be for either, is asked as `invalid` (RFC 2606 section 2).
    pub(crate) fn new(host: &str, port: u16, path: &PathAndQuery, method: DohMethod) -> Self {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut authority = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.to_owned(),
        };
        if port != HTTPS_PORT {
            authority = format!("{authority}:{port}");
        }
        let authority = Authority::try_from(authority).unwrap_or_else(|_| Authority::from_static("invalid"));
        Self { uri: uri(authority, path.clone()), method }
    }

    /// The request that asks `query`, and its body if it has one.
    fn request(&self, query: Vec<u8>) -> (Request<()>, Option<Bytes>) {
        let mut request = Request::new(());
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        match self.method {
            DohMethod::Get => {
                *request.uri_mut() = self.uri_of(&query);
                request.headers_mut().insert(ACCEPT, media_type);
                (request, None)
            }
            DohMethod::Post => {
                *request.method_mut() = Method::POST;
                *request.uri_mut() = self.uri.clone();
                let headers = request.headers_mut();
                headers.insert(ACCEPT, media_type.clone());
                headers.insert(CONTENT_TYPE, media_type);
                headers.insert(CONTENT_LENGTH, query.len().into());
                (request, Some(query.into()))
            }
        }
    }

    /// The URI of a GET request for `query`.
    fn uri_of(&self, query: &[u8]) -> Uri {
        let path = self.uri.path_and_query().map_or(DEFAULT_PATH, PathAndQuery::as_str);
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut text = format!("{path}{separator}dns=");
        BASE64URL_NOPAD.encode_append(query, &mut text);
        match (PathAndQuery::try_from(text), self.uri.authority()) {
            (Ok(path), Some(authority)) => uri(authority.clone(), path),
            // Neither happens: what is appended may stand in a URI, and every resource has an authority.
            _ => self.uri.clone(),
        }
    }
}

fn uri(authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    // All three are there, which is all that it asks for.
    Uri::from_parts(parts).unwrap_or_default()
}

/// Why a response is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DohError {
    #[error("HTTP status {0}; check the path after https://, and whether this machine may ask there")]
    Status(u16),
    #[error("the response is of the type `{0}`, not {MEDIA_TYPE}; check the path after https://")]
    MediaType(Arc<str>),
    #[error("the response has more than {MAX_MESSAGE} octets")]
    TooLong,
    #[error("the response answers another question, or none")]
    OtherQuestion,
    #[error("more than {MAX_INTERIM} interim responses (HTTP status 1xx) instead of one that is final")]
    Interim,
}

/// Why a request has brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The stream or its connection has failed; another one may not.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("{0}")]
    Response(#[from] DohError),
}

/// A response that carries a DNS message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DohResponse {
    pub message: Vec<u8>,
    /// Seconds that it has spent in HTTP caches, by which its TTLs are too long (RFC 8484 section 5.1).
    pub age: u32,
}

/// Begins HTTP/2 in a session. `streams` is how many are opened at most before the server has said how many it takes.
/// The connection fails when it brings more than the allowance, to which [`allow_request`] adds.
///
/// # Errors
/// The connection fails.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    session: TlsStream<S>,
    streams: usize,
) -> Result<(DohSender, DohConnection<S>, ReadAllowance), h2::Error> {
    let allowance = ReadAllowance::new(2 * OCTETS_PER_REQUEST);
    let session = BoundedReads::new(session, allowance.clone());
    let (sender, connection) = Builder::new()
        .initial_max_send_streams(streams)
        .enable_push(false)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_reset_streams(MAX_ENDED_STREAMS)
        .handshake(session)
        .await?;
    Ok((sender, connection, allowance))
}

/// Allows what a request's response may have, when `open` are open with it.
pub(crate) fn allow_request(allowance: &ReadAllowance, open: usize) {
    allowance.add(OCTETS_PER_REQUEST, (open + 1) * OCTETS_PER_REQUEST);
}

/// Asks `query` on a stream of its own, with ID 0, as RFC 8484 section 4.1 wants for the sake of HTTP caches. Dropping
/// the stream does not end the request; dropping the response too does.
///
/// # Errors
/// The connection takes no more requests.
pub(crate) fn send(
    sender: &mut DohSender,
    resource: &DohResource,
    mut query: Vec<u8>,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    query.iter_mut().take(2).for_each(|octet| *octet = 0);
    let (request, body) = resource.request(query);
    let (response, mut stream) = sender.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(body, true)?;
    }
    Ok((response, stream))
}

/// The answer that a request brings.
///
/// # Errors
/// The stream fails; the response is no answer.
pub(crate) async fn receive(mut response: ResponseFuture) -> Result<DohResponse, ExchangeError> {
    let mut interim = 0;
    while let Some(outcome) = poll_fn(|context| response.poll_informational(context)).await {
        outcome?;
        interim += 1;
        if interim > MAX_INTERIM {
            return Err(DohError::Interim.into());
        }
    }
    let (head, body) = response.await?.into_parts();
    let expected = read_head(head.status, &head.headers)?;
    let message = read_body(body, expected).await?;
    Ok(DohResponse { message, age: age(&head.headers) })
}

/// One exchange in a session of its own.
///
/// # Errors
/// Those of [`receive`]; the connection fails.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    session: TlsStream<S>,
    resource: &DohResource,
    query: Vec<u8>,
) -> Result<DohResponse, ExchangeError> {
    let (sender, connection, _) = handshake(session, 1).await?;
    let exchange = async {
        let mut sender = sender.ready().await?;
        let (response, _stream) = send(&mut sender, resource, query)?;
        receive(response).await
    };
    tokio::pin!(exchange);
    // The connection moves only while it is polled, and it may end before the whole answer is read.
    tokio::select! {
        biased;
        outcome = &mut exchange => return outcome,
        ended = connection => ended?,
    }
    exchange.await
}

/// The length that a response's head announces; 0 if it does not.
fn read_head(status: StatusCode, headers: &HeaderMap) -> Result<usize, DohError> {
    if status != StatusCode::OK {
        return Err(DohError::Status(status.as_u16()));
    }
    let media_type = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let media_type = media_type.as_deref().unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(DohError::MediaType(essence.chars().take(SHOWN_TYPE).collect::<String>().into()));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE).ok_or(DohError::TooLong)
}

async fn read_body(mut body: RecvStream, expected: usize) -> Result<Vec<u8>, ExchangeError> {
    let mut message = Vec::with_capacity(expected);
    while let Some(octets) = body.data().await {
        let octets = octets?;
        body.flow_control().release_capacity(octets.len())?;
        if message.len() + octets.len() > MAX_MESSAGE {
            return Err(DohError::TooLong.into());
        }
        message.extend_from_slice(&octets);
    }
    Ok(message)
}

/// The age that HTTP caches have given a response, in seconds; 0 if there is none or it is malformed (RFC 9111 section
/// 5.1).
fn age(headers: &HeaderMap) -> u32 {
    let text = headers.get(AGE).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    match text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        true => 0,
        // Too large a number stands for the largest (RFC 9111 section 1.2.2).
        false => text.parse().unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 1];

    fn resource(host: &str, port: u16, path: &'static str, method: DohMethod) -> DohResource {
        DohResource::new(host, port, &PathAndQuery::from_static(path), method)
    }

    fn head(status: u16, headers: &[(&'static str, &str)]) -> Result<usize, DohError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        read_head(StatusCode::from_u16(status).unwrap(), &map)
    }

    #[test]
    fn a_query_is_posted_to_the_resource() {
        let (request, body) = resource("dns.example.", 443, "/dns-query", DohMethod::Post).request(QUERY.to_vec());
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&Method::POST, "https://dns.example/dns-query")
        );
        let headers: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let media_type = "application/dns-message";
        assert_eq!(headers, [("accept", media_type), ("content-type", media_type), ("content-length", "17")]);
        assert_eq!(body.as_deref(), Some(&QUERY[..]));
    }

    #[test]
    fn a_query_is_a_parameter_of_a_get_request_in_base64url_without_padding() {
        // The example of RFC 8484 section 4.1.1.
        let query = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
        let (request, body) =
            resource("dnsserver.example.net", 443, "/dns-query", DohMethod::Get).request(query.to_vec());
        assert_eq!(
            request.uri().to_string(),
            "https://dnsserver.example.net/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB"
        );
        assert_eq!((request.method(), request.headers().len(), body), (&Method::GET, 1, None));
        let keyed = resource("a.example", 8443, "/q?key=1", DohMethod::Get).request(QUERY.to_vec()).0;
        assert_eq!(keyed.uri().to_string(), "https://a.example:8443/q?key=1&dns=AAABAAABAAAAAAAAAAD_AAE");
    }

    #[test]
    fn a_resource_is_named_by_host_and_port() {
        for (host, port, authority) in [
            ("192.0.2.53", 443, "192.0.2.53"),
            ("2001:db8::53", 443, "[2001:db8::53]"),
            ("2001:db8::53", 444, "[2001:db8::53]:444"),
            ("no name", 443, "invalid"),
        ] {
            let resource = resource(host, port, "/", DohMethod::Post);
            assert_eq!(resource.uri.authority().map(Authority::as_str), Some(authority));
        }
    }

    #[test]
    fn an_answer_has_status_200_the_media_type_and_no_more_octets_than_a_message() {
        let of_type = |value| [("content-type", value)];
        for value in ["application/dns-message", "Application/DNS-Message ; charset=x"] {
            assert_eq!(head(200, &of_type(value)), Ok(0), "{value}");
        }
        for status in [204, 302, 400, 503] {
            assert_eq!(head(status, &of_type(MEDIA_TYPE)), Err(DohError::Status(status)));
        }
        for value in ["text/html", "application/dns-json; x=application/dns-message", ""] {
            let essence = value.split(';').next().unwrap().into();
            assert_eq!(head(200, &of_type(value)), Err(DohError::MediaType(essence)));
        }
        assert_eq!(head(200, &[]), Err(DohError::MediaType("".into())));
        let long = "x".repeat(5000);
        assert_eq!(head(200, &of_type(&long)), Err(DohError::MediaType("x".repeat(SHOWN_TYPE).into())));
        let sized = |length| head(200, &[("content-type", MEDIA_TYPE), ("content-length", length)]);
        assert_eq!(sized("65535"), Ok(65535));
        assert_eq!((sized("65536"), sized("99999999999999999")), (Err(DohError::TooLong), Err(DohError::TooLong)));
    }

    #[test]
    fn an_age_that_is_no_number_is_none() {
        for (text, seconds) in
            [("0", 0), (" 250 ", 250), ("", 0), ("-1", 0), ("+1", 0), ("1.5", 0), ("x", 0), ("99999999999", u32::MAX)]
        {
            let headers = HeaderMap::from_iter([(AGE, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(age(&headers), seconds, "{text:?}");
        }
        assert_eq!(age(&HeaderMap::new()), 0);
    }
}
