//! A small DNS client and an HTTP one.

use super::text::{parse_name, parse_type};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long an answer may take where a test does not say.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The same for one over HTTP: a profile takes its second, and then some to be made.
const HTTP_PATIENCE: Duration = Duration::from_secs(10);

/// 127.0.0.1 with `port`.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A query with RD set and a random ID.
pub fn query(name: &str, rtype: &str) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(parse_name(name), parse_type(rtype)));
    message
}

/// Asks over UDP; the parsed answer, or `None` when there was none in time.
pub fn ask(server: SocketAddr, name: &str, rtype: &str) -> Option<Message> {
    let wire = query(name, rtype).to_vec().expect("a query of ours encodes");
    let answer = exchange_udp(server, &wire, PATIENCE).ok()?;
    Some(Message::from_vec(&answer).expect("the server's answer is well-formed"))
}

/// Sends one datagram and waits for one with the same ID.
pub fn exchange_udp(server: SocketAddr, wire: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let ours: IpAddr = if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let socket = UdpSocket::bind((ours, 0))?;
    socket.connect(server)?;
    socket.send(wire)?;
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 65_535];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = socket.recv(&mut buffer)?;
        if buffer[..length].get(..2) == wire.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// Sends one message on a connection of its own and reads one.
pub fn exchange_tcp(server: SocketAddr, wire: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    send_tcp(&mut stream, wire)?;
    read_tcp(&mut stream)
}

/// Writes one message with its length in front (RFC 1035 section 4.2.2), in one write.
pub fn send_tcp(stream: &mut TcpStream, wire: &[u8]) -> io::Result<()> {
    let length = u16::try_from(wire.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), wire].concat())
}

/// Reads one message and its length.
pub fn read_tcp(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Status and body of `http://127.0.0.1:PORT/PATH`, where `place` is `PORT/PATH`; `None` when nobody answers.
pub fn http(place: &str) -> Option<(u16, String)> {
    let response =
        minreq::get(format!("http://127.0.0.1:{place}")).with_timeout(HTTP_PATIENCE.as_secs()).send().ok()?;
    // A profile is no text.
    Some((response.status_code, String::from_utf8_lossy(response.as_bytes()).into_owned()))
}

/// The sum of all series of a metric whose labels hold those asked for, as in `coredns_x{type="A"}`; `None` when there
/// are none.
pub fn metric(port: u16, series: &str) -> Option<f64> {
    let (status, text) = http(&format!("{port}/metrics"))?;
    assert_eq!(status, 200, "the status of /metrics");
    sum_of_series(&text, series)
}

/// [`metric`], of an exposition already read.
pub fn sum_of_series(exposition: &str, series: &str) -> Option<f64> {
    let (name, labels) = split_series(series);
    let values = exposition.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (found, value) = line.rsplit_once(' ')?;
        let (found, found_labels) = split_series(found);
        let matches = found == name && labels.iter().all(|label| found_labels.contains(label));
        matches.then(|| value.parse::<f64>().expect("a sample's value is a number"))
    });
    values.reduce(|sum, value| sum + value)
}

/// Name and labels (`type="A"`) of a series.
fn split_series(series: &str) -> (&str, Vec<&str>) {
    static LABEL: std::sync::LazyLock<regex::Regex> =
        std::sync::LazyLock::new(|| regex::Regex::new(r#"\w+="(?:[^"\\]|\\.)*""#).expect("a valid pattern"));
    match series.split_once('{') {
        Some((name, labels)) => (name, LABEL.find_iter(labels).map(|label| label.as_str()).collect()),
        None => (series, Vec::new()),
    }
}
