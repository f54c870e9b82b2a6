//! Clients within TLS and HTTPS.

use super::*;
use crate::net::tls::testing::Authority;
use crate::net::tls::{ClientTls, ServerTls};
use crate::plan::{Https, HttpsResponses};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::client::TlsStream;

type Session = TlsStream<tokio::net::TcpStream>;

/// What is asked: of the toy, what the letter says.
fn message(letter: u8) -> Vec<u8> {
    [&[letter, 0, 1, 0][..], &[0; 8]].concat()
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

impl Rig {
    fn apply_streams(&mut self, address: SocketAddr, version: u8, protocol: ClientProtocol) {
        let mut toys = self.toys(&[address], version);
        Arc::get_mut(&mut toys[0]).unwrap().protocol = protocol;
        let wanted = ListenAddresses { streams: vec![address], ..ListenAddresses::default() };
        let sockets = Sockets::bind(&wanted, self.workers, self.server.sockets()).unwrap();
        self.server.apply(&toys, &[], sockets).unwrap();
    }

    fn https(&self, tls: Option<ServerTls>, connections: Option<usize>) -> ClientProtocol {
        let counter = |status| self.registry.counter("responses", "", &[("status", status)]);
        let [ok, bad_request, not_found, no_response] = ["200", "400", "404", "500"].map(counter);
        let responses = HttpsResponses { ok, bad_request, not_found, no_response };
        let tls = tls.map(|tls| tls.speaking(&[b"h2", b"http/1.1"]));
        ClientProtocol::Https(Https { tls, connections, responses })
    }
}

async fn connect(from: [u8; 4], to: SocketAddr) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn session(client: &ClientTls, to: SocketAddr) -> Session {
    client.client_of("dns.example").connect(connect([127, 0, 0, 3], to).await).await.unwrap()
}

async fn read_reply(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await.unwrap();
    reply
}

/// What an HTTP/1.1 server says to this request, until it closes.
async fn http(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    response
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn in_tls(limits: Limits) -> (Rig, SocketAddr, ClientTls) {
    let (mut rig, address, authority) = (Rig::new(1, limits), free("127.0.0.1"), Authority::new("authority"));
    rig.apply_streams(address, 1, ClientProtocol::Tls(Some(authority.listener(&["dns.example"]))));
    (rig, address, authority.client())
}

#[test]
fn queries_in_a_session_are_answered_as_over_tcp() {
    let (rig, address, client) = in_tls(Limits::default());
    rig.runtime.block_on(async {
        let mut session = session(&client, address).await;
        let both = [frame(&message(b'm')), frame(&message(b'h'))].concat();
        session.write_all(&both).await.unwrap();
        assert_eq!(read_reply(&mut session).await, [&[1][..], &message(b'h')].concat(), "the first that is there");
        rig.gate.add_permits(1);
        assert_eq!(read_reply(&mut session).await, [&[1][..], &message(b'm')].concat());
        session.write_all(&frame(&message(b'b'))).await.unwrap();
        assert_eq!(read_reply(&mut session).await.len(), 60_000);
        assert_eq!(rig.metric("nodelocaldns_tcp_connections"), 1.0);
    });
}

#[test]
fn a_client_that_closes_its_side_gets_what_is_due() {
    let (rig, address, client) = in_tls(Limits::default());
    rig.runtime.block_on(async {
        let mut session = session(&client, address).await;
        session.write_all(&frame(&message(b'm'))).await.unwrap();
        session.shutdown().await.unwrap();
        rig.gate.add_permits(1);
        assert_eq!(read_reply(&mut session).await[1], b'm');
        assert_eq!(session.read(&mut [0]).await.unwrap(), 0, "and is told that it was all");
    });
}

#[test]
fn without_a_certificate_there_is_tcp_alone() {
    let (mut rig, address) = (Rig::new(1, Limits::default()), free("127.0.0.1"));
    rig.apply_streams(address, 1, ClientProtocol::Tls(None));
    rig.runtime.block_on(async {
        let mut stream = connect([127, 0, 0, 3], address).await;
        stream.write_all(&frame(&message(b'h'))).await.unwrap();
        assert_eq!(read_reply(&mut stream).await[1], b'h');
    });
    assert!(UdpSocket::bind(address).is_ok(), "nobody has it");
}

#[test]
fn a_handshake_that_does_not_come_and_one_that_is_none_end() {
    let (mut rig, address) = (Rig::new(1, Limits::default()), free("127.0.0.1"));
    rig.timeouts.read = Duration::from_millis(50);
    let tls = Authority::new("authority").listener(&["dns.example"]);
    rig.apply_streams(address, 1, ClientProtocol::Tls(Some(tls)));
    rig.runtime.block_on(async {
        let mut silent = connect([127, 0, 0, 3], address).await;
        let mut plain = connect([127, 0, 0, 3], address).await;
        plain.write_all(&frame(&message(b'h'))).await.unwrap();
        let mut said = Vec::new();
        assert_eq!(silent.read_to_end(&mut said).await.unwrap(), 0);
        // An alert, or a reset.
        _ = plain.read_to_end(&mut said).await;
        assert!(said.first().is_none_or(|kind| *kind == 21), "{said:?}");
    });
    rig.wait_for("both are counted", |rig| {
        rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"handshake\"}") == 2.0
    });
}

#[test]
fn handshakes_that_say_nothing_give_way_to_one_of_the_same_address_that_does() {
    let (rig, address, client) = in_tls(Limits { tcp_connections: 4096, ..Limits::default() });
    rig.runtime.block_on(async {
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(connect([127, 0, 0, 3], address).await);
        }
        let mut session = session(&client, address).await;
        session.write_all(&frame(&message(b'h'))).await.unwrap();
        assert_eq!(read_reply(&mut session).await[1], b'h');
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0, "the first has given way");
    });
    let cut = |reason| rig.metric(&format!("nodelocaldns_tcp_connections_cut_total{{reason=\"{reason}\"}}"));
    assert_eq!((cut("refused"), cut("evicted")), (0.0, 0.0));
    assert!(cut("handshake") >= 45.0, "{}", cut("handshake"));
}

#[test]
fn a_session_that_is_idle_is_ended_with_a_word() {
    let (mut rig, address, authority) =
        (Rig::new(1, Limits::default()), free("127.0.0.1"), Authority::new("authority"));
    rig.timeouts.idle = Duration::from_millis(50);
    rig.apply_streams(address, 1, ClientProtocol::Tls(Some(authority.listener(&["dns.example"]))));
    rig.runtime.block_on(async {
        let mut session = session(&authority.client(), address).await;
        assert_eq!(session.read(&mut [0]).await.unwrap(), 0, "not cut off");
    });
    rig.apply_streams(address, 1, rig.https(Some(authority.listener(&["dns.example"])), None));
    rig.runtime.block_on(async {
        let mut session = session(&authority.client(), address).await;
        assert_eq!(session.read(&mut [0]).await.unwrap(), 0, "nor over HTTPS");
    });
}

#[test]
fn a_swap_shows_its_certificate_to_who_comes_and_keeps_who_is_there() {
    let (mut rig, address, client) = in_tls(Limits::default());
    let mut before = rig.runtime.block_on(session(&client, address));
    let other = Authority::new("other");
    rig.apply_streams(address, 2, ClientProtocol::Tls(Some(other.listener(&["dns.example"]))));
    rig.runtime.block_on(async {
        for session in [&mut before, &mut session(&other.client(), address).await] {
            session.write_all(&frame(&message(b'h'))).await.unwrap();
            assert_eq!(read_reply(session).await[0], 2);
        }
        let stream = connect([127, 0, 0, 3], address).await;
        assert!(client.client_of("dns.example").connect(stream).await.is_err(), "the old one is shown no more");
    });
    rig.wait_for("the first is left", |rig| rig.metric("nodelocaldns_tcp_connections") == 1.0);
}

#[test]
fn an_address_may_change_from_plain_to_tls_and_back() {
    let (mut rig, address) = rig(Limits::default());
    let authority = Authority::new("authority");
    let ask = |rig: &Rig| {
        let socket = client("127.0.0.1");
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.send_to(b"h", address).unwrap();
        let answer = socket.recv(&mut [0; 9]).ok();
        let in_session = rig.runtime.block_on(async {
            let stream = connect([127, 0, 0, 3], address).await;
            authority.client().client_of("dns.example").connect(stream).await.is_ok()
        });
        (answer, in_session)
    };
    rig.apply_streams(address, 2, ClientProtocol::Tls(Some(authority.listener(&["dns.example"]))));
    rig.wait_for("only TLS is served", |rig| ask(rig) == (None, true));
    rig.timeouts.read = Duration::from_millis(50);
    rig.apply(&[address], 3);
    rig.wait_for("UDP is served again", |rig| ask(rig).0 == Some(2));
}

#[test]
fn connections_that_say_nothing_cost_no_other_client_its_own() {
    let (rig, address, client) = in_tls(Limits { tcp_connections: 256, ..Limits::default() });
    rig.runtime.block_on(async {
        let mut modest = session(&client, address).await;
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(connect([127, 0, 0, 2], address).await);
        }
        let mut late = session(&client, address).await;
        for session in [&mut modest, &mut late] {
            session.write_all(&frame(&message(b'h'))).await.unwrap();
            assert_eq!(read_reply(session).await[1], b'h');
        }
        rig.wait_for("others give way", |rig| rig.metric("nodelocaldns_tcp_connections") == 32.0);
    });
    assert!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"evicted\"}") >= 70.0);
}

#[test]
fn what_was_received_in_a_session_is_answered_before_the_end() {
    let (rig, address, client) = in_tls(Limits::default());
    let gate = rig.gate.clone();
    // The server's ends before the client has read.
    let outside = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut session = outside.block_on(session(&client, address));
    outside.block_on(session.write_all(&frame(&message(b'm')))).unwrap();
    let reading = thread::spawn(move || outside.block_on(async move { read_reply(&mut session).await }));
    assert_eq!(rig.drain_and(SOON, || gate.add_permits(1)), 0);
    assert_eq!(reading.join().unwrap()[1], b'm');
}

#[test]
fn http_requests_are_answered_as_rfc_8484_says() {
    let (mut rig, address) = (Rig::new(1, Limits::default()), free("127.0.0.1"));
    let authority = Authority::new("authority");
    rig.apply_streams(address, 1, rig.https(Some(authority.listener(&["dns.example"])), None));
    let client = authority.client();
    let ask = |request: Vec<u8>| {
        let response = rig.runtime.block_on(async { http(session(&client, address).await, &request).await });
        let (head, body) = response.split_at(response.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap() + 4);
        (String::from_utf8(head.to_vec()).unwrap().to_lowercase(), body.to_vec())
    };
    let get = |uri: &str| format!("GET {uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes();
    let value = data_encoding::BASE64URL_NOPAD.encode(&message(b'h'));
    let reply = [&[1][..], &message(b'h')].concat();
    for request in [get(&format!("/dns-query?dns={value}")), post("/dns-query", &message(b'h'))] {
        let (head, body) = ask(request);
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: application/dns-message"), "{head}");
        assert!(head.contains("cache-control: max-age=5") && head.contains("content-length: 13"), "{head}");
        assert_eq!(body, reply);
    }
    rig.gate.add_permits(1);
    assert_eq!(ask(post("/dns-query", &message(b'm'))).1[1], b'm');
    let delete = get("/dns-query").into_iter().skip(3);
    for (request, status) in [
        (get("/"), "404"),
        (post("/dns-query/", &message(b'h')), "404"),
        (get("/dns-query"), "400"),
        (get("/dns-query?dns=AAAA"), "400"),
        (post("/dns-query", &[0; 11]), "400"),
        (post("/dns-query", &[0; 5000]), "400"),
        (b"DELETE".iter().copied().chain(delete).collect(), "400"),
        (post("/dns-query", &message(b's')), "500"),
    ] {
        let (head, _) = ask(request);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
    }
    let counts = ["200", "400", "404", "500"].map(|status| rig.metric(&format!("responses{{status=\"{status}\"}}")));
    assert_eq!(counts, [3.0, 5.0, 2.0, 1.0]);
}

#[test]
fn one_more_connection_than_https_may_have_ends_the_idle_one_of_who_has_most() {
    let (mut rig, address) = (Rig::new(1, Limits::default()), free("127.0.0.1"));
    rig.apply_streams(address, 1, rig.https(None, Some(2)));
    rig.runtime.block_on(async {
        let mut greedy = Vec::new();
        for _ in 0..2 {
            greedy.push(connect([127, 0, 0, 2], address).await);
        }
        let reply = http(connect([127, 0, 0, 3], address).await, &post("/dns-query", &message(b'h'))).await;
        assert!(reply.starts_with(b"HTTP/1.1 200 "), "without TLS over plain HTTP");
        assert_eq!(greedy[0].read(&mut [0]).await.unwrap_or(0), 0, "the first has given way");
    });
    assert_eq!(rig.metric("nodelocaldns_tcp_connections_cut_total{reason=\"evicted\"}"), 1.0);
}
