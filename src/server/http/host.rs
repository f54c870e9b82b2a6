//! Under which name a client asks. A page of a stranger's site may have its name lead to this machine once it is loaded
//! (DNS rebinding), and then its script may read what is answered there. A browser says that name in the request.

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, Version};
use std::net::{IpAddr, Ipv6Addr};

/// Said to who asks under another name.
pub(super) const WRONG_HOST: &str = "421 this is told to who asks by an IP address or by localhost, such as \
http://127.0.0.1:9353/status.json, and not by any other name: that may be a stranger's, whose page leads a browser here \
(DNS rebinding)\n";

/// Whether a client asks by an IP address or by `localhost`. One of HTTP/1.0 may say nothing, as no browser does.
pub(super) fn is_plain<B>(request: &Request<B>) -> bool {
    let of_uri = request.uri().authority().map(Authority::as_str);
    let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let mut hosts = of_uri.into_iter().chain(hosts).peekable();
    match hosts.peek() {
        None => request.version() == Version::HTTP_10,
        Some(_) => hosts.all(is_address),
    }
}

/// Of what stands in `Host`: a name or an address, and a port (RFC 9110 section 7.2).
fn is_address(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, rest)) => {
            let address = address.split_once('%').map_or(address, |(address, _zone)| address);
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            (None, rest)
        }
        None => host.find(':').map_or((Some(host), ""), |colon| (host.get(..colon), host.get(colon..).unwrap_or(""))),
    };
    let is_port = rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|octet| octet.is_ascii_digit()));
    let is_named = |name: &str| name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    (rest.is_empty() || is_port) && name.is_none_or(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_plain_and_names_are_not() {
        for host in
            ["127.0.0.1", "10.0.0.7:9353", "localhost", "LocalHost:80", "[::1]:9353", "[fe80::1%eth0]", "1.2.3.4:"]
        {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "",
            ":9353",
            "evil.example",
            "evil.example:9353",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:80.evil.example",
            "127.0.0.1@evil.example",
            "evil.example:127.0.0.1",
            "[::1].evil.example",
            "[::1",
            "[evil.example]:80",
            "[127.0.0.1]",
            "::1",
            "127.1",
            "localhost.",
            "127.0.0.1, evil.example",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn all_that_a_request_says_is_looked_at() {
        let is_plain_of = |uri: &str, version, hosts: &[&[u8]]| {
            let mut request = Request::builder().uri(uri).version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            is_plain(&request.body(()).unwrap())
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        let (good, evil): (&[u8], &[u8]) = (b"127.0.0.1:9353", b"evil.example");
        for (uri, version, hosts, expected) in [
            ("/", new, &[good][..], true),
            ("/", old, &[good], true),
            ("/", old, &[], true),
            ("/", new, &[], false),
            ("/", old, &[evil], false),
            ("/", new, &[good, evil], false),
            ("/", new, &[b"\xff"], false),
            ("http://evil.example/", new, &[good], false),
            ("http://127.0.0.1/", new, &[evil], false),
            ("http://127.0.0.1/", new, &[good], true),
        ] {
            assert_eq!(is_plain_of(uri, version, hosts), expected, "{uri} {version:?} {hosts:?}");
        }
    }
}
