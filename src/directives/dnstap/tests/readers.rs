use super::super::endpoint::Endpoint;
use super::super::parse;
use super::{accept, next_frame, next_message};
use crate::chain::testing::{Sample, build, configure, configure_with};
use crate::chain::{Encryption, Observer, ProcessContext, Transport, UpstreamExchange};
use crate::message::RecordType;
use crate::net::tls::testing::{Authority, Files};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) fn process() -> ProcessContext {
    ProcessContext::new(1, 1 << 20)
}

/// The parts of a block with one `dnstap`.
pub(super) fn tap(text: &str, process: &ProcessContext) -> crate::chain::Built {
    let (block, said) = configure(parse, text);
    assert_eq!(said, "");
    build(&block, process)
}

pub(super) fn observer(built: &crate::chain::Built) -> &Arc<dyn Observer> {
    built.observer.as_ref().expect("a tap observes")
}

fn next_reader(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    accept(&mut stream);
    stream
}

pub(super) fn value(process: &ProcessContext, name: &str, endpoint: &Path) -> u64 {
    let line = format!("{name}{{endpoint=\"{}\"}} ", endpoint.display());
    let text = process.registry.encode();
    text.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

pub(super) fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_query_and_its_answer_are_told_with_addresses_times_and_octets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let process = process();
    let text = format!(
        "dnstap {} full {{\n identity me\n version v1\n extra \"{{name}} {{rcode}} {{/x/y}}\"\n}}",
        path.display()
    );
    let built = tap(&text, &process);
    let mut sample = Sample::new("a.example.", RecordType::A);
    sample.peer.client = "[::ffff:192.0.2.7]:5000".parse().unwrap();
    sample.elapsed = Duration::from_millis(1500);
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    observer(&built).observe(&sample.exchange());
    let mut stream = next_reader(&listener);
    let [query, response] = [next_message(&mut stream), next_message(&mut stream)];
    for tapped in [&query, &response] {
        assert_eq!(tapped.identity.as_deref(), Some(&b"me"[..]));
        assert_eq!(tapped.version.as_deref(), Some(&b"v1"[..]));
        assert_eq!(tapped.extra.as_deref(), Some(&b"a.example. - -"[..]), "as in the reference, without the response");
        assert_eq!(tapped.r#type, Some(1));
        let body = tapped.message.as_ref().unwrap();
        assert_eq!((body.socket_family, body.socket_protocol), (Some(1), Some(1)), "IPv4 by UDP");
        assert_eq!((body.query_address.as_deref(), body.query_port), (Some(&[192, 0, 2, 7][..]), Some(5000)));
        assert_eq!((body.response_address.as_deref(), body.response_port), (Some(&[127, 0, 0, 1][..]), Some(53)));
        let asked = body.query_time().unwrap();
        assert!(asked <= before && before - asked <= Duration::from_millis(1500), "{asked:?} {before:?}");
    }
    let (query, response) = (query.message.unwrap(), response.message.unwrap());
    assert_eq!((query.r#type, query.query_message, query.response_message), (Some(5), Some(sample.wire.clone()), None));
    assert_eq!(query.response_time_sec, None);
    assert_eq!(
        (response.r#type, response.query_message, response.response_message),
        (Some(6), None, Some(sample.reply.clone()))
    );
    let took = response.response_time_sec.zip(response.response_time_nsec).map(|(s, n)| Duration::new(s, n)).unwrap();
    assert_eq!(
        took - Duration::new(response.query_time_sec.unwrap(), response.query_time_nsec.unwrap()),
        sample.elapsed
    );
}

#[test]
fn what_is_asked_upstreams_is_told_with_whom_and_where_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let process = process();
    let built = tap(&format!("dnstap {} full {{\n extra {{/forward/upstream}}\n}}", path.display()), &process);
    let sample = Sample::new("a.example.", RecordType::A);
    let request = sample.exchange().request;
    let mut exchange = UpstreamExchange {
        request: &request,
        query: &[0, 0, 1, 2],
        reply: Some(&[0, 0, 3, 4]),
        upstream: "[2001:db8::1]:853".parse().unwrap(),
        local: Some("[2001:db8::2]:4000".parse().unwrap()),
        transport: Transport::Tcp,
        encryption: Some(Encryption::Tls),
        is_late: false,
        started: Instant::now(),
    };
    let observer = built.upstream_observer.as_ref().expect("a tap observes upstreams");
    observer.observe_upstream(&exchange);
    let reply = std::mem::take(&mut exchange.reply);
    (exchange.local, exchange.encryption) = (None, None);
    observer.observe_upstream(&exchange);
    // Its answer comes after all.
    (exchange.reply, exchange.is_late) = (reply, true);
    observer.observe_upstream(&exchange);
    let mut stream = next_reader(&listener);
    let tapped = [(); 4].map(|()| next_message(&mut stream));
    assert!(tapped.iter().all(|tapped| tapped.extra.as_deref() == Some(b"[2001:db8::1]:853")));
    let [query, response, lost, late] = tapped.map(|tapped| tapped.message.unwrap());
    assert_eq!([query.r#type, response.r#type, lost.r#type, late.r#type], [Some(7), Some(8), Some(7), Some(8)]);
    assert_eq!([query.socket_protocol, lost.socket_protocol], [Some(3), Some(2)]);
    assert_eq!((query.socket_family, query.query_port, query.response_port), (Some(2), Some(4000), Some(853)));
    assert_eq!((lost.socket_family, lost.query_port, lost.response_port), (Some(2), None, Some(853)));
    assert_eq!(query.query_message.as_deref(), Some(&[0, 1, 1, 2][..]), "with the client's ID");
    assert_eq!(response.response_message.as_deref(), Some(&[0, 1, 3, 4][..]));
    assert!(query.response_time().is_none() && response.response_time().is_some());
}

#[test]
fn a_reader_that_restarts_is_found_again_and_gets_what_was_queued_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let process = process();
    let built = tap(&format!("dnstap {}", path.display()), &process);
    let sample = Sample::new("a.example.", RecordType::A);
    // Nobody is there yet.
    observer(&built).observe(&sample.exchange());
    for _ in 0..2 {
        let listener = UnixListener::bind(&path).unwrap();
        let mut stream = next_reader(&listener);
        assert_eq!(next_message(&mut stream).message.unwrap().r#type, Some(5));
        assert_eq!(next_message(&mut stream).message.unwrap().query_message, None, "it is not full");
        wait_for(|| value(&process, "nodelocaldns_dnstap_readers", &path) == 1);
        drop((listener, stream));
        std::fs::remove_file(&path).unwrap();
        wait_for(|| value(&process, "nodelocaldns_dnstap_readers", &path) == 0);
        observer(&built).observe(&sample.exchange());
    }
    assert_eq!(value(&process, "nodelocaldns_dnstap_dropped_total", &path), 0);
    assert!(value(&process, "nodelocaldns_dnstap_messages_total", &path) >= 4);
}

#[test]
fn a_reader_that_never_reads_costs_bounded_memory_and_what_it_loses_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let process = process();
    let built = tap(&format!("dnstap {} full", path.display()), &process);
    let _silent = next_reader(&listener);
    let sample = Sample::new("a.example.", RecordType::A);
    // Twice what the queue and what is being written hold together, and the socket's buffers beside that.
    for _ in 0..100_000 {
        observer(&built).observe(&sample.exchange());
    }
    let dropped = value(&process, "nodelocaldns_dnstap_dropped_total", &path);
    assert!((60_000..200_000).contains(&dropped), "{dropped}");
}

#[test]
fn what_is_queued_is_written_when_the_last_tap_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let process = process();
    let built = tap(&format!("dnstap {}", path.display()), &process);
    let mut stream = next_reader(&listener);
    for _ in 0..1000 {
        observer(&built).observe(&Sample::new("a.example.", RecordType::A).exchange());
    }
    drop(built);
    let tapped = std::iter::from_fn(|| next_frame(&mut stream)).count();
    assert_eq!(tapped, 2000);
    stream.write_all(&super::super::frames::Control::Finish.frame()).unwrap();
    let mut octet = [0];
    assert_eq!(stream.read(&mut octet).unwrap(), 0, "it is closed");
}

#[test]
fn an_endpoint_that_a_reload_keeps_keeps_its_connection_and_a_process_that_ends_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let process = process();
    let text = format!("dnstap {}", path.display());
    let before = tap(&text, &process);
    let mut stream = next_reader(&listener);
    let after = tap(&format!("{text} full"), &process);
    drop(before);
    observer(&after).observe(&Sample::new("a.example.", RecordType::A).exchange());
    assert!(next_message(&mut stream).message.unwrap().query_message.is_some(), "the new tap writes there");
    observer(&after).observe(&Sample::new("b.example.", RecordType::A).exchange());
    let flushing = std::thread::spawn(move || process.at_stop.flush(Instant::now() + LONG));
    let rest = std::iter::from_fn(|| next_frame(&mut stream)).count();
    assert_eq!(rest, 3);
    assert!(!flushing.is_finished(), "it waits for FINISH");
    stream.write_all(&super::super::frames::Control::Finish.frame()).unwrap();
    flushing.join().unwrap();
}

#[test]
fn who_speaks_something_else_is_left_alone_and_asked_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let process = process();
    let _built = tap(&format!("dnstap tcp://{}", listener.local_addr().unwrap()), &process);
    let (mut web, _) = listener.accept().unwrap();
    web.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    // It may be closed with octets unread.
    if let Err(error) = web.read_to_end(&mut rest) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let (mut reader, _) = listener.accept().unwrap();
    accept(&mut reader);
}

/// Connects to a listener that may not be there yet.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = None;
    wait_for(|| {
        stream = TcpStream::connect(address).ok();
        stream.is_some()
    });
    let stream = stream.expect("it is connected");
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn readers_that_connect_all_get_what_comes_and_nothing_is_made_while_there_is_none() {
    let (address, process) = (free_address(), process());
    let endpoint = format!("tcp://{address}");
    let built = tap(&format!("dnstap listen {endpoint}"), &process);
    let sample = Sample::new("a.example.", RecordType::A);
    observer(&built).observe(&sample.exchange());
    let mut readers = [connect(address), connect(address)];
    readers.iter_mut().for_each(accept);
    wait_for(|| value(&process, "nodelocaldns_dnstap_readers", Path::new(&endpoint)) == 2);
    observer(&built).observe(&sample.exchange());
    for reader in &mut readers {
        assert_eq!(next_message(reader).message.unwrap().r#type, Some(5));
        assert_eq!(next_message(reader).message.unwrap().r#type, Some(6));
    }
    let [first, mut second] = readers;
    drop(first);
    wait_for(|| value(&process, "nodelocaldns_dnstap_readers", Path::new(&endpoint)) == 1);
    observer(&built).observe(&sample.exchange());
    drop(built);
    assert_eq!(std::iter::from_fn(|| next_frame(&mut second)).count(), 2, "and then STOP");
    assert_eq!(value(&process, "nodelocaldns_dnstap_dropped_total", Path::new(&endpoint)), 0);
}

#[test]
fn a_path_is_listened_at_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let process = process();
    let built = tap(&format!("dnstap listen unix://{}", path.display()), &process);
    let mut stream = connect_unix(&path);
    accept(&mut stream);
    observer(&built).observe(&Sample::new("a.example.", RecordType::A).exchange());
    assert_eq!(next_message(&mut stream).message.unwrap().r#type, Some(5));
}

/// Connects to a path where nobody may listen yet.
pub(super) fn connect_unix(path: &Path) -> UnixStream {
    let mut stream = None;
    wait_for(|| {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let stream = stream.expect("it is connected");
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The type of the control frame that a session begins with, on either side.
async fn first_control(session: &mut (impl tokio::io::AsyncRead + Unpin)) -> [u8; 4] {
    let mut frame = [0; 12];
    tokio::io::AsyncReadExt::read_exact(session, &mut frame).await.unwrap();
    *frame.last_chunk().unwrap()
}

const READY: [u8; 4] = [0, 0, 0, 4];

#[tokio::test]
async fn readers_that_connect_may_have_to_speak_tls() {
    let authority = Authority::new("tests");
    let own = authority.sign(&["127.0.0.1"]);
    let files = [("/c", own.certificate.as_str()), ("/k", own.key.as_str())];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    let (address, process) = (free_address(), process());
    let text = format!("dnstap listen tls://{address} {{\n tls /c /k\n}}");
    let (block, said) = configure_with(&Files { files, ..Files::default() }, parse, &text);
    assert_eq!(said, "");
    let _built = build(&block, &process);
    let stream = loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let mut session = authority.client().client_of("127.0.0.1").connect(stream).await.unwrap();
    assert_eq!(first_control(&mut session).await, READY);
}

#[tokio::test]
async fn a_reader_over_tls_is_believed_by_its_certificate_or_without_one_where_that_is_said() {
    let authority = Authority::new("tests");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(authority.server(&["127.0.0.1"], None)));
    let trusted = Files {
        files: [("/ca".to_owned(), authority.pem())].into(),
        variables: [("SSL_CERT_FILE".to_owned(), "/ca".to_owned())].into(),
    };
    let other = Files {
        files: [("/ca".to_owned(), Authority::new("another").pem())].into(),
        variables: [("SSL_CERT_FILE".to_owned(), "/ca".to_owned())].into(),
    };
    for (files, options, is_believed) in
        [(&trusted, "", true), (&other, "", false), (&other, "{\n skipverify\n}", true)]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let process = process();
        let text = format!("dnstap tls://{} {options}", listener.local_addr().unwrap());
        let (block, said) = configure_with(files, parse, &text);
        assert_eq!(said, "");
        let _built = build(&block, &process);
        let accepted = acceptor.accept(listener.accept().await.unwrap().0).await;
        // With TLS 1.3 a server learns only later that it is not believed.
        let is_ready = match accepted {
            Ok(mut session) => {
                let mut frame = [0; 12];
                tokio::io::AsyncReadExt::read_exact(&mut session, &mut frame).await.is_ok() && frame.ends_with(&READY)
            }
            Err(_) => false,
        };
        assert_eq!(is_ready, is_believed, "{options}");
    }
}

#[test]
fn endpoints_without_taps_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let process = process();
    let built = tap(&format!("dnstap {}", path.display()), &process);
    assert_eq!(process.reload_state.all::<Endpoint>().len(), 1);
    drop(built);
    assert_eq!(process.reload_state.all::<Endpoint>().len(), 0);
}
