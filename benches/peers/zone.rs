//! What the world of the bench holds: the scripted upstream answers by it, and the generator expects it.

use crate::message::{A, AAAA, Content, Expected, question};

/// What is true of the name with these labels and type.
pub fn content(labels: &[&[u8]], rtype: u16) -> Content {
    let is_address = rtype == A || rtype == AAAA;
    match labels {
        // Services with one IPv4 ClusterIP; whatever else is asked for below the cluster's domain comes of search
        // paths.
        [_, namespace, b"svc", b"cluster", b"local"] if namespace.starts_with(b"ns-") => match rtype {
            A => Content::Records { count: 1, ttl: 5 },
            _ => Content::NoData { ttl: 5 },
        },
        [.., b"in-addr" | b"ip6", b"arpa"] => Content::Records { count: 1, ttl: 3600 },
        [.., b"cluster", b"local"] => Content::NoName { ttl: 5 },
        [first, ..] if first.starts_with(b"nx") => Content::NoName { ttl: 3600 },
        [.., b"bench", b"example"] if is_address => Content::Records { count: 1, ttl: 3600 },
        [.., b"test-site", b"com"] if is_address => Content::Records { count: 2, ttl: 30 },
        _ => Content::NoData { ttl: 30 },
    }
}

/// What a right answer to this query looks like.
pub fn expected(query: &[u8]) -> Expected {
    let (labels, rtype) = question(query).expect("the generator's queries are well-formed");
    match content(&labels, rtype) {
        Content::Records { .. } => Expected::Records,
        Content::NoData { .. } => Expected::NoData,
        Content::NoName { .. } => Expected::NoName,
    }
}
