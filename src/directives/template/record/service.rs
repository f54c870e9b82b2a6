//! The parameters of SVCB and HTTPS records (RFC 9460 section 2.1 and appendix A).

use super::digits::base64;
use super::words::Word;
use super::{RecordError, clip};
use crate::message::RecordType;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

const KEYS: [&str; 9] =
    ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"];

/// The parameters in wire form, in the order of their keys.
pub(super) fn parameters(rtype: RecordType, words: &[Word]) -> Result<Vec<u8>, RecordError> {
    let mut values: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    for word in words {
        let wrong = |what| RecordError::Data { rtype, what, text: clip(&word.text) };
        let (key, text) = word.text.split_once('=').unwrap_or((&word.text, ""));
        let key = key_of(key).ok_or_else(|| wrong("a parameter such as `alpn=h2` or `key65000=text`"))?;
        let value = value(key, text).ok_or_else(|| wrong("a parameter with a value that is right for it"))?;
        if values.insert(key, value).is_some() {
            return Err(wrong("a parameter that stands there once"));
        }
    }
    let mut wire = Vec::new();
    for (key, value) in values {
        wire.extend_from_slice(&key.to_be_bytes());
        wire.extend_from_slice(&u16::try_from(value.len()).map_err(|_| RecordError::TooLong)?.to_be_bytes());
        wire.extend_from_slice(&value);
    }
    Ok(wire)
}

fn key_of(text: &str) -> Option<u16> {
    let known = KEYS.iter().position(|known| *known == text).map(|key| key as u16);
    known.or_else(|| text.strip_prefix("key")?.parse().ok())
}

fn value(key: u16, text: &str) -> Option<Vec<u8>> {
    let octets = || Word { text: text.to_owned(), is_quoted: false }.octets();
    let items = || text.split(',').map(str::trim);
    match KEYS.get(usize::from(key)).copied().unwrap_or_default() {
        "mandatory" => {
            let mut keys = items().map(key_of).collect::<Option<Vec<u16>>>()?;
            keys.sort_unstable();
            Some(keys.iter().flat_map(|key| key.to_be_bytes()).collect())
        }
        "alpn" => {
            let mut wire = Vec::new();
            for item in items() {
                let item = Word { text: item.to_owned(), is_quoted: false }.octets().filter(|item| !item.is_empty())?;
                wire.push(u8::try_from(item.len()).ok()?);
                wire.extend_from_slice(&item);
            }
            Some(wire)
        }
        "no-default-alpn" | "ohttp" => text.is_empty().then(Vec::new),
        "port" => text.parse::<u16>().ok().map(|port| port.to_be_bytes().to_vec()),
        "ipv4hint" => items()
            .map(|item| item.parse::<Ipv4Addr>().ok().map(|address| address.octets()))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat()),
        "ipv6hint" => items()
            .map(|item| item.parse::<Ipv6Addr>().ok().map(|address| address.octets()))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat()),
        "ech" => base64(text).filter(|octets| !octets.is_empty()),
        _ => octets(),
    }
}
