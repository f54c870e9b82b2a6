//! A client against rustls' server on loopback: whom it believes and what it says of others.

use super::testing::{Authority, Certified, Files};
use super::{ClientTls, Identity, Roots, TlsClient, TlsError, TlsFileError, cause, explain};
use rustls::{HandshakeKind, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A server that sends one octet in each session and ends it.
async fn serve(config: ServerConfig) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut session) = acceptor.accept(stream).await {
                let _ = session.write_all(b"!").await;
                let _ = session.shutdown().await;
            }
        }
    });
    address
}

/// How the session was made, or why not; read to its end, since a server refuses a client's certificate after the
/// client has finished.
async fn connect(client: &TlsClient, address: std::net::SocketAddr) -> Result<HandshakeKind, String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut session = client.connect(stream).await.map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    let read = session.read_to_end(&mut said).await;
    read.map_err(|error| cause(&error).map_or(error.to_string(), explain))?;
    assert_eq!(said, b"!");
    Ok(session.get_ref().1.handshake_kind().unwrap())
}

#[tokio::test]
async fn a_server_is_believed_by_name_or_address_and_a_session_is_resumed() {
    let authority = Authority::new("authority");
    let address = serve(authority.server(&["dns.example", "127.0.0.1"], None)).await;
    let tls = authority.client();
    assert_eq!(connect(&tls.client_of("dns.example"), address).await, Ok(HandshakeKind::Full));
    for name in ["dns.example", "dns.example.", "DNS.example"] {
        assert_eq!(connect(&tls.client_of(name), address).await, Ok(HandshakeKind::Resumed), "{name}");
    }
    assert_eq!(
        connect(&tls.client_of("127.0.0.1"), address).await,
        Ok(HandshakeKind::Full),
        "another name, another session"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_said() {
    let authority = Authority::new("authority");
    let address = serve(authority.server(&["dns.example", "192.0.2.1"], None)).await;
    let said = connect(&authority.client().client_of("other.example"), address).await.unwrap_err();
    assert_eq!(
        said,
        "tls: failed to verify certificate: x509: certificate is valid for dns.example, 192.0.2.1, not other.example; see \
         tls_servername"
    );
    let said = connect(&authority.client().client_of("127.0.0.1"), address).await.unwrap_err();
    assert!(said.contains("not 127.0.0.1"), "{said}");
    let said = connect(&Authority::new("another").client().client_of("dns.example"), address).await.unwrap_err();
    assert!(said.contains("x509: certificate signed by unknown authority"), "{said}");
    let nobody = ClientTls::new(Roots::none(), None).unwrap();
    let said = connect(&nobody.client_of("dns.example"), address).await.unwrap_err();
    assert!(said.contains("x509: certificate signed by unknown authority"), "{said}");
    let said = connect(&authority.client().client_of("no name"), address).await.unwrap_err();
    assert!(said.contains("`no name` is neither a host name nor an IP address"), "{said}");
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such_and_a_broken_connection_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Authority::new("authority").client().client_of("dns.example");
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let (said, ()) = tokio::join!(connect(&client, address), answer);
    let said = said.unwrap_err();
    assert!(said.contains("first record does not look like a TLS handshake"), "{said}");

    let close = async { drop(listener.accept().await.unwrap()) };
    let connecting = async { client.connect(TcpStream::connect(address).await.unwrap()).await };
    let (outcome, ()) = tokio::join!(connecting, close);
    assert!(matches!(outcome, Err(TlsError::Connection(_))), "{:?}", outcome.err());
}

#[tokio::test]
async fn a_client_shows_its_certificate_to_a_server_that_asks_for_one() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let address = serve(authority.server(&["dns.example"], Some(&clients))).await;
    let shown = clients.sign(&["client.example"]);
    let files = Files {
        files: [
            ("/ca".to_owned(), authority.pem()),
            ("/certificate".to_owned(), shown.certificate),
            ("/key".to_owned(), shown.key),
        ]
        .into(),
        ..Files::default()
    };
    let identity = Identity::from_files(Path::new("/certificate"), Path::new("/key"), &files).unwrap();
    let with = ClientTls::new(Roots::from_file(Path::new("/ca"), &files).unwrap(), Some(identity)).unwrap();
    connect(&with.client_of("dns.example"), address).await.unwrap();
    let said = connect(&authority.client().client_of("dns.example"), address).await.unwrap_err();
    assert!(said.starts_with("remote error: tls: CertificateRequired"), "{said}");
    assert_ne!(with.client_of("dns.example").key(), authority.client().client_of("dns.example").key());
}

#[tokio::test]
async fn a_certificate_in_the_named_file_may_be_the_servers_own() {
    for (is_authority, has_expired) in [(true, false), (false, false), (true, true), (false, true)] {
        let [own, another] = [(); 2].map(|()| Certified::by_itself(&["dns.example"], is_authority, has_expired));
        let files = [("/own", own.certificate.clone()), ("/another", another.certificate)];
        let files = Files { files: files.map(|(path, text)| (path.to_owned(), text)).into(), ..Files::default() };
        let address = serve(own.server(None)).await;
        let tls = |path| ClientTls::new(Roots::from_file(Path::new(path), &files).unwrap(), None).unwrap();
        let of_own = connect(&tls("/own").client_of("dns.example"), address).await;
        if has_expired {
            assert!(of_own.as_ref().is_err_and(|said| said.contains("has expired")), "{of_own:?}");
            continue;
        }
        assert_eq!(of_own, Ok(HandshakeKind::Full));
        let said = connect(&tls("/own").client_of("other.example"), address).await.unwrap_err();
        assert!(said.contains("valid for dns.example, not other.example"), "{said}");
        let said = connect(&tls("/another").client_of("dns.example"), address).await.unwrap_err();
        assert!(said.starts_with("tls: failed to verify certificate: x509: "), "{said}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("authority");
    let (one, other) = (authority.sign(&["one.example"]), authority.sign(&["other.example"]));
    let files =
        [("/one", one.certificate), ("/key", one.key), ("/other-key", other.key), ("/text", "no PEM\n".to_owned())];
    let files = Files { files: files.map(|(path, text)| (path.to_owned(), text)).into(), ..Files::default() };
    let refused = |certificate, key| {
        Identity::from_files(Path::new(certificate), Path::new(key), &files).err().map(|error| error.to_string())
    };
    assert_eq!(refused("/one", "/key"), None);
    for (certificate, key, said) in [
        ("/absent", "/key", "the file /absent cannot be read"),
        ("/one", "/absent", "the file /absent cannot be read"),
        ("/text", "/key", "/text has no certificate"),
        ("/key", "/key", "/key has no certificate"),
        ("/one", "/text", "/text has no private key"),
        ("/one", "/other-key", "the certificate of /one cannot be shown with the key of /other-key"),
    ] {
        let error = refused(certificate, key).unwrap_or_else(|| panic!("{certificate} and {key} are accepted"));
        assert!(error.starts_with(said), "{error}");
    }
    assert!(matches!(Roots::from_file(Path::new("/key"), &files), Err(TlsFileError::NoCertificate(_))));
    assert!(matches!(Roots::from_file(Path::new("/absent"), &files), Err(TlsFileError::Read { .. })));
    assert!(!Roots::from_file(Path::new("/one"), &files).unwrap().is_empty());
}
