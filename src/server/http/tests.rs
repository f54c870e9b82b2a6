use super::*;
use crate::chain::{AskStatus, Document};
use crate::ports::free_port;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;

const HERE: &str = "127.0.0.1:9253";
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn here() -> SocketAddr {
    HERE.parse().unwrap()
}

/// `/metrics` with so many octets, which counts how often it was made.
fn routes(octets: usize) -> (Arc<ArcSwap<Routes>>, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    let answer = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        HttpAnswer::text(200, "x".repeat(octets))
    };
    let pages = HashMap::from([("/metrics", PathHandler::from(&Endpoint::shared(here(), "/metrics", answer).answers))]);
    (Arc::new(ArcSwap::from_pointee(Routes::from([(here(), Site { pages, tls: None })]))), made)
}

/// A connection, and the client's end of it; between them 4 KiB at most.
fn connect(routes: &Arc<ArcSwap<Routes>>) -> (tokio::task::JoinHandle<()>, DuplexStream) {
    let (server, client) = duplex(4 << 10);
    (tokio::spawn(converse(server, (here(), here().ip()), routes.clone(), Arc::default())), client)
}

#[tokio::test]
async fn only_known_paths_of_the_address_are_answered_and_only_get_and_head() {
    let there: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let endpoint = Endpoint::shared(here(), "/ready", || HttpAnswer::text(503, "not ready"));
    let routes = ArcSwap::from_pointee(routes_of(&[endpoint]));
    for (address, method, path, status) in [
        (here(), Method::GET, "/ready", 503),
        (here(), Method::HEAD, "/ready", 503),
        (here(), Method::POST, "/ready", 405),
        (here(), Method::GET, "/ready/", 404),
        (here(), Method::POST, "/", 404),
        (there, Method::GET, "/ready", 404),
    ] {
        let request = request(&method, path);
        assert_eq!(
            respond(&routes, (address, here().ip()), &request).await.status().as_u16(),
            status,
            "{method} {path}"
        );
    }
    let allowed = respond(&routes, (here(), here().ip()), &request(&Method::DELETE, "/ready")).await;
    assert_eq!(allowed.headers()[ALLOW], "GET, HEAD");
}

#[tokio::test]
async fn names_and_clients_are_for_who_asks_from_this_machine_unless_all_may_see_them() {
    let ask: AskStatus = Arc::new(|shows_names| Box::pin(std::future::ready(Ok(format!("names: {shows_names}")))));
    let shown = async |client: &str, shows_all: bool| {
        let endpoint = Endpoint::status(here(), ask.clone(), shows_all);
        let routes = ArcSwap::from_pointee(routes_of(&[endpoint]));
        let request = request(&Method::GET, "/status.json");
        let response = respond(&routes, (here(), client.parse().unwrap()), &request).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    for (client, shows_all, expected) in [
        ("127.0.0.9", false, "names: true"),
        ("::1", false, "names: true"),
        ("::ffff:127.0.0.1", false, "names: true"),
        ("10.0.0.1", false, "names: false"),
        ("fe80::1", false, "names: false"),
        ("10.0.0.1", true, "names: true"),
    ] {
        assert_eq!(shown(client, shows_all).await, expected, "{client}, {shows_all}");
    }
}

#[tokio::test]
async fn a_status_that_is_not_whole_is_told_with_503() {
    let ask: AskStatus = Arc::new(move |_| Box::pin(std::future::ready(Err("{\"error\":\"x\"}".to_owned()))));
    let routes = ArcSwap::from_pointee(routes_of(&[Endpoint::status(here(), ask, false)]));
    let response = respond(&routes, (here(), here().ip()), &request(&Method::GET, "/status.json")).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
        (503, &"application/json".parse().unwrap())
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().as_ref(), b"{\"error\":\"x\"}");
}

#[tokio::test]
async fn a_document_has_its_headers_and_is_for_who_asks_by_an_address() {
    static DOCUMENT: Document = Document { headers: &[("content-type", "text/html"), ("x-test", "1")], body: "<p>" };
    let routes = ArcSwap::from_pointee(routes_of(&[Endpoint::document(here(), "/", &DOCUMENT)]));
    for (method, path, host, status, body) in [
        ("GET", "/", "127.0.0.1", 200, "<p>"),
        ("HEAD", "/?x", "localhost:1", 200, "<p>"),
        ("POST", "/", "127.0.0.1", 405, ""),
        ("GET", "/", "evil.example", 421, ""),
        ("GET", "/x", "127.0.0.1", 404, ""),
    ] {
        let request = Request::builder().method(method).uri(path).header("host", host).body(()).unwrap();
        let response = respond(&routes, (here(), "10.0.0.1".parse().unwrap()), &request).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path} {host}");
        assert_eq!(response.headers().get("x-test").is_some(), status == 200, "{method} {path} {host}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status != 200 || text == body.as_bytes(), "{text:?}");
    }
}

#[tokio::test]
async fn the_status_is_told_under_no_name_that_may_be_a_strangers_and_metrics_are() {
    let ask: AskStatus = Arc::new(|_| Box::pin(std::future::ready(Ok("told".to_owned()))));
    let status = Endpoint::status(here(), ask, true);
    let metrics = Endpoint::shared(here(), "/metrics", || HttpAnswer::text(200, "counted"));
    let routes = ArcSwap::from_pointee(routes_of(&[status, metrics]));
    for (path, host, expected) in [
        ("/status.json", "127.0.0.1:9353", 200),
        ("/status.json", "evil.example:9353", 421),
        ("/metrics", "evil.example:9353", 200),
    ] {
        let request = Request::builder().uri(path).header("host", host).body(()).unwrap();
        let response = respond(&routes, (here(), here().ip()), &request).await;
        assert_eq!(response.status().as_u16(), expected, "{path} {host}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(expected == 200 || text.windows(13).any(|octets| octets == b"DNS rebinding"), "{text:?}");
    }
}

fn request(method: &Method, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).header("host", here().to_string()).body(()).unwrap()
}

#[tokio::test]
async fn a_page_is_compressed_for_whoever_takes_gzip() {
    let (routes, _) = routes(5000);
    let mut request = request(&Method::GET, "/metrics");
    let plain = respond(&routes, (here(), here().ip()), &request).await;
    assert_eq!(plain.headers().get(CONTENT_ENCODING), None);
    assert_eq!(plain.into_body().collect().await.unwrap().to_bytes(), "x".repeat(5000));
    request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let compressed = respond(&routes, (here(), here().ip()), &request).await;
    assert_eq!(compressed.headers()[CONTENT_ENCODING], "gzip");
    assert_eq!(compressed.headers()[VARY], "Accept-Encoding");
    let octets = compressed.into_body().collect().await.unwrap().to_bytes();
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&octets[..]), &mut text).unwrap();
    assert_eq!(text, b"x".repeat(5000));
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_each_takes_its_time_sees_the_query_and_ends_with_its_client() {
    let waiting = Arc::new(());
    let held = waiting.clone();
    let answer = move |query: &str| {
        let (query, held) = (query.to_owned(), held.clone());
        let answer = async move {
            let _held = held;
            tokio::time::sleep(Duration::from_secs(60)).await;
            HttpAnswer {
                status: 200,
                content_type: "application/octet-stream",
                body: [query.as_bytes(), &[0xff, 0]].concat(),
            }
        };
        Box::pin(answer) as BoxFuture<'static, HttpAnswer>
    };
    let routes = Arc::new(ArcSwap::from_pointee(routes_of(&[Endpoint::for_each(here(), "/slow", answer)])));
    let (_serving, mut client) = connect(&routes);
    client.write_all(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut octets = Vec::new();
    client.read_to_end(&mut octets).await.unwrap();
    assert!(octets.starts_with(b"HTTP/1.1 200 OK") && octets.ends_with(b"\r\n\r\nseconds=60\xff\0"), "{octets:?}");

    let (serving, mut client) = connect(&routes);
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&waiting), 3, "the test, the endpoint and the answer that is made");
    drop(client);
    serving.await.unwrap();
    assert_eq!(Arc::strong_count(&waiting), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pipelines_and_reads_nothing_has_one_answer_made_and_is_let_go() {
    let (routes, made) = routes(200 << 10);
    let (serving, mut client) = connect(&routes);
    client.write_all(&REQUEST.repeat(50)).await.unwrap();
    tokio::time::sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
    assert!(!serving.is_finished());
    serving.await.unwrap();
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_on_one_connection_come_apart_and_in_order() {
    let (routes, made) = routes(100);
    let (_serving, mut client) = connect(&routes);
    client.write_all(&REQUEST.repeat(20)).await.unwrap();
    let mut answers = vec![0; 1 << 20];
    let mut length = 0;
    let started = Instant::now();
    while answers[..length].windows(15).filter(|octets| octets == b"HTTP/1.1 200 OK").count() < 20 {
        length += client.read(&mut answers[length..]).await.unwrap();
    }
    assert!(started.elapsed() >= SPACING * 19, "on the paused clock: {:?}", started.elapsed());
    assert_eq!(made.load(Ordering::Relaxed), 20);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_end_and_a_connection_that_says_nothing_are_let_go() {
    let (routes, _) = routes(1);
    for start in [&b""[..], b"GET /metrics HTTP/1.1\r\nX: ", REQUEST] {
        let (serving, mut client) = connect(&routes);
        client.write_all(start).await.unwrap();
        tokio::time::timeout(HEADER_TIMEOUT * 3, serving).await.expect("it ends").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_beyond_16_kib_is_refused() {
    let (routes, made) = routes(1);
    let (serving, mut client) = connect(&routes);
    let header = [b"GET /metrics HTTP/1.1\r\nX: ", &[b'a'; 2 * MAX_HEADER][..], b"\r\n\r\n"].concat();
    // Not all of it is taken.
    _ = client.write_all(&header).await;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    serving.await.unwrap();
    assert_eq!(made.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_address_that_another_has_is_listened_on_once_it_is_free_and_the_others_meanwhile() {
    let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (busy, free) = (free(), free());
    let holder = std::net::TcpListener::bind(busy).unwrap();
    let endpoint = |address| Endpoint::shared(address, "/health", || HttpAnswer::text(200, "OK"));
    let mut http = Http::new(Handle::current(), &Registry::new(1));
    http.serve(&[endpoint(busy), endpoint(free)]);
    let told = |errors: Vec<SocketError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    for _ in 0..2 {
        let told = told(http.listen());
        assert!(told.len() == 1 && told[0].contains(&format!("cannot listen on {busy} for HTTP")), "{told:?}");
        assert!(TcpStream::connect(free).await.is_ok());
    }
    drop(holder);
    assert_eq!(told(http.listen()), [""; 0]);
    assert!(TcpStream::connect(busy).await.is_ok());
}

#[tokio::test]
async fn connections_that_are_evicted_are_counted_by_whether_they_wait_for_a_first_answer() {
    let registry = Registry::new(1);
    let evictions = Evictions::new(&registry);
    let counted = || {
        let text = registry.encode();
        ["evicted", "evicted_busy"].map(|reason| {
            let series = format!("nodelocaldns_http_connections_cut_total{{reason=\"{reason}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<usize>().ok()).expect("it is exposed")
        })
    };
    let mut connections = HttpConnections::new(2);
    let mut admit = |waits: bool| {
        let task = tokio::spawn(std::future::pending::<()>());
        let connection = Connection { task: task.abort_handle(), waits: Arc::new(AtomicBool::new(waits)) };
        (super::admit(&mut connections, here().ip(), connection, &evictions), task)
    };
    let (_, answered) = admit(false);
    let (_, waiting) = admit(true);
    assert_eq!(counted(), [0, 0]);
    let (is_full, _newer) = admit(true);
    assert!(is_full && answered.await.unwrap_err().is_cancelled());
    assert_eq!(counted(), [1, 0]);
    assert!(admit(true).0 && waiting.await.unwrap_err().is_cancelled());
    assert_eq!(counted(), [1, 1]);
}

#[tokio::test]
async fn an_address_with_tls_is_served_within_it_whatever_stands_there() {
    let authority = crate::net::tls::testing::Authority::new("authority");
    let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (secret, plain) = (free(), free());
    let endpoint = |address, path| Endpoint::shared(address, path, || HttpAnswer::text(200, "x".repeat(5000)));
    let tls = authority.listener(&["metrics.example"]).speaking(&[b"http/1.1"]);
    let mut http = Http::new(Handle::current(), &Registry::new(1));
    http.serve(&[
        endpoint(secret, "/ready"),
        endpoint(secret, "/metrics").over(Some(tls)),
        endpoint(plain, "/metrics"),
    ]);
    assert!(http.listen().is_empty());
    let client = authority.client().client_of("metrics.example");
    for path in ["/metrics", "/ready"] {
        let mut session = client.connect(TcpStream::connect(secret).await.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
        session.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        session.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("content-encoding: gzip"), "{text}");
    }
    for address in [secret, plain] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 8];
        let is_answered = stream.read_exact(&mut answer).await.is_ok() && &answer == b"HTTP/1.1";
        assert_eq!(is_answered, address == plain);
    }
}
