//! Readers that are none yet, or no longer: what they cost, and whom they keep out.

use super::super::endpoint::Endpoint;
use super::super::listener::Listener;
use super::super::queue::Queue;
use super::super::shared::{Address, EndpointConfig, Mode, Shared};
use super::super::writer::Writer;
use super::readers::{connect, connect_unix, free_address, observer, process, tap, value, wait_for};
use super::{accept, next_control, next_message};
use crate::chain::testing::Sample;
use crate::chain::{Ending, ProcessContext};
use crate::message::RecordType;
use crate::net::HostLookup;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// An endpoint without a thread.
fn shared(address: SocketAddr, mode: Mode) -> Shared {
    let ProcessContext { registry, files, unix_sockets, .. } = process();
    let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
    Shared {
        queue: Queue::new(1000, 1, true, registry.counter("dropped", "Dropped.", &[])),
        config: EndpointConfig { text: "tcp://reader".to_owned(), address, mode, queue: 1 },
        lookup: HostLookup { resolvers: Vec::new(), files },
        unix_sockets,
        unix_threads: Arc::default(),
        sent: registry.counter("sent", "Sent.", &[]),
        readers: registry.gauge("readers", "Readers.", &[]),
        ending: Ending::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_accepts_and_closes_is_tried_ever_more_seldom_and_told_of_once() {
    let log: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::default();
    let into = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || LogWriter(into.clone())).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mode = Mode::Connect { tls: None, buffer_octets: 1 << 20 };
    let shared = shared(listener.local_addr().unwrap(), mode);
    let tries = Cell::new(0);
    let refuse = async {
        loop {
            drop(listener.accept().await.unwrap());
            tries.set(tries.get() + 1);
        }
    };
    let minute = async {
        tokio::select! { () = Writer::new(&shared).run() => {}, () = refuse => {} }
    };
    assert!(timeout(Duration::from_secs(60), minute).await.is_err(), "neither ends");
    // Pauses of 0.1, 0.2, ... 6.4 s are 12.7 s; then one of 10 s after another.
    assert!((3..=13).contains(&tries.get()), "{}", tries.get());
    let log = String::from_utf8(log.lock().clone()).unwrap();
    assert_eq!((log.matches("it is tried again").count(), log.matches("a reader again").count()), (1, 0), "{log}");
}

struct LogWriter(Arc<parking_lot::Mutex<Vec<u8>>>);

impl Write for LogWriter {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(octets)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_let_go_in_time() {
    let address = free_address();
    let shared = shared(address, Mode::Listen { tls: None });
    let wait = async {
        let mut stream = loop {
            match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        stream.read_to_end(&mut Vec::new()).await
    };
    let waited = async {
        tokio::select! { () = Listener::new(&shared).run() => None, read = wait => Some(read) }
    };
    let read = timeout(Duration::from_secs(5), waited).await.expect("it is let go").expect("the listener goes on");
    assert!(read.is_ok_and(|octets| octets > 0), "READY, and the end");
}

#[test]
fn connections_that_say_nothing_keep_no_reader_out_and_make_nothing_wanted() {
    let (address, process) = (free_address(), process());
    let endpoint = format!("tcp://{address}");
    let built = tap(&format!("dnstap listen {endpoint}"), &process);
    let is_wanted = || process.reload_state.all::<Endpoint>().iter().any(|(_, endpoint)| endpoint.is_wanted());
    let mut silent: Vec<TcpStream> = (0..80).map(|_| connect(address)).collect();
    let last = silent.last_mut().expect("there are 80");
    assert_eq!(next_control(last), 4, "READY");
    assert!(!is_wanted(), "a connection is no reader");
    assert_eq!(value(&process, "nodelocaldns_dnstap_readers", Path::new(&endpoint)), 0);
    let mut reader = connect(address);
    accept(&mut reader);
    // It is one before it is told so.
    assert!(is_wanted());
    observer(&built).observe(&Sample::new("a.example.", RecordType::A).exchange());
    assert_eq!(next_message(&mut reader).message.unwrap().r#type, Some(5));
    assert_eq!(value(&process, "nodelocaldns_dnstap_readers", Path::new(&endpoint)), 1);
}

#[test]
fn a_reader_that_is_too_slow_is_closed_with_what_waits_for_it_and_others_find_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let endpoint = format!("unix://{}", path.display());
    let process = process();
    let built = tap(&format!("dnstap listen {endpoint} full"), &process);
    let sample = Sample::new("a.example.", RecordType::A);
    let readers = || value(&process, "nodelocaldns_dnstap_readers", Path::new(&endpoint));
    for _ in 0..2 {
        let mut slow: Vec<UnixStream> = (0..16).map(|_| connect_unix(&path)).collect();
        slow.iter_mut().for_each(accept);
        wait_for(|| {
            (0..1000).for_each(|_| observer(&built).observe(&sample.exchange()));
            readers() == 0
        });
        for stream in &mut slow {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert!(rest.len() < 2_000_000, "what its socket held, and not what waited: {}", rest.len());
        }
    }
    // 32 times nearly 4,000,000 octets, in messages of less than 400.
    let dropped = value(&process, "nodelocaldns_dnstap_dropped_total", Path::new(&endpoint));
    assert!(dropped > 32 * 5000, "{dropped}");
}
