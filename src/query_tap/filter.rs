//! Which queries a tap shows. Pure.

use super::AnsweredQuery;
use crate::message::{NamePattern, NamePatternError, Rcode, RecordType};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Clients, types and codes that a filter may name, of each.
const MOST_OF_EACH: usize = 16;

/// A filter as it is written, and as it goes over the admin socket. What is empty takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) struct FilterText {
    /// Addresses and prefixes.
    #[serde(default)]
    pub clients: Vec<String>,
    /// A [`NamePattern`].
    #[serde(default)]
    pub name: Option<String>,
    /// Mnemonics, or `RCODE` and a number.
    #[serde(default)]
    pub rcodes: Vec<String>,
    /// Mnemonics, or `TYPE` and a number.
    #[serde(default)]
    pub types: Vec<String>,
    #[serde(default)]
    pub slower_than_us: Option<u64>,
}

/// What is wrong with a filter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("`{}` is neither an IP address nor a prefix: write one such as 10.244.1.7 or 10.244.0.0/16", .0.escape_debug())]
    Client(String),
    #[error("`{}` is no response code: write one such as NXDOMAIN or RCODE3", .0.escape_debug())]
    Rcode(String),
    #[error("`{}` is no record type: write one such as AAAA or TYPE65400", .0.escape_debug())]
    Type(String),
    #[error("{0} {1} are too many: name {MOST_OF_EACH} at most")]
    TooMany(usize, &'static str),
    #[error(transparent)]
    Name(#[from] NamePatternError),
}

/// A filter. A query is shown that it takes in all respects.
#[derive(Debug)]
pub(crate) struct TapFilter {
    clients: Vec<IpNet>,
    name: Option<NamePattern>,
    rcodes: Vec<Rcode>,
    types: Vec<RecordType>,
    slower_than: Option<Duration>,
}

impl TapFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn read(text: &FilterText) -> Result<Self, FilterError> {
        let FilterText { clients, name, rcodes, types, slower_than_us } = text;
        for (count, what) in [(clients.len(), "clients"), (rcodes.len(), "response codes"), (types.len(), "types")] {
            if count > MOST_OF_EACH {
                return Err(FilterError::TooMany(count, what));
            }
        }
        Ok(Self {
            clients: all(clients, client, FilterError::Client)?,
            name: name.as_deref().map(NamePattern::parse).transpose()?,
            rcodes: all(rcodes, Rcode::parse, FilterError::Rcode)?,
            types: all(types, RecordType::parse, FilterError::Type)?,
            slower_than: slower_than_us.map(Duration::from_micros),
        })
    }

    /// Whether a query is to be shown. What costs least is looked at first; of a query of another type, code or client
    /// the name is not.
    pub(crate) fn takes(&self, query: &AnsweredQuery<'_>) -> bool {
        let (name, qtype) = query.asked.unzip();
        (self.rcodes.is_empty() || query.rcode.is_some_and(|rcode| self.rcodes.contains(&rcode)))
            && (self.types.is_empty() || qtype.is_some_and(|qtype| self.types.contains(&qtype)))
            && self.slower_than.is_none_or(|bound| query.took > bound)
            && (self.clients.is_empty() || self.clients.iter().any(|network| network.contains(&query.client.ip())))
            && self.name.as_ref().is_none_or(|pattern| name.is_some_and(|name| pattern.has(name)))
    }
}

fn all<T>(
    texts: &[String],
    read: impl Fn(&str) -> Option<T>,
    wrong: impl Fn(String) -> FilterError,
) -> Result<Vec<T>, FilterError> {
    texts.iter().map(|text| read(text).ok_or_else(|| wrong(text.clone()))).collect()
}

/// A client's address, or a prefix of many.
fn client(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|| text.parse().ok())
}

impl fmt::Display for FilterText {
    /// As it is written on the command line, for the log; nothing for a filter that takes all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("client", &self.clients), ("rcode", &self.rcodes), ("type", &self.types)];
        let lists = lists.into_iter().flat_map(|(flag, texts)| texts.iter().map(move |text| (flag, text)));
        for (flag, text) in lists.chain(self.name.iter().map(|name| ("name", name))) {
            write!(f, " --{flag} {}", text.escape_default())?;
        }
        self.slower_than_us.map_or(Ok(()), |bound| write!(f, " --slower-than {bound}us"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_sample;
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn takes(text: &FilterText, query: &AnsweredQuery<'_>) -> bool {
        TapFilter::read(text).unwrap_or_else(|error| panic!("{error}")).takes(query)
    }

    #[test]
    fn a_query_is_taken_that_is_so_in_all_respects() {
        let of =
            |clients: &[&str], name: Option<&str>, rcodes: &[&str], types: &[&str], slower: Option<u64>| FilterText {
                clients: texts(clients),
                name: name.map(str::to_owned),
                rcodes: texts(rcodes),
                types: texts(types),
                slower_than_us: slower,
            };
        with_sample(|sample| {
            for (filter, expected) in [
                (FilterText::default(), true),
                (of(&["10.244.0.5"], Some("*.example"), &["noerror"], &["a"], Some(11)), true),
                (of(&["10.244.0.6"], None, &[], &[], None), false),
                (of(&["::ffff:10.244.0.5"], None, &[], &[], None), true),
                (of(&["fd00::/8", "10.244.0.0/16"], None, &[], &[], None), true),
                (of(&["10.244.0.5/31"], None, &[], &[], None), true),
                (of(&["0.0.0.0/0"], None, &[], &[], None), true),
                (of(&["::/0"], None, &[], &[], None), false),
                (of(&[], Some("A.EXAMPLE."), &[], &[], None), true),
                (of(&[], Some("*.internal"), &[], &[], None), false),
                (of(&[], None, &["SERVFAIL", "RCODE0"], &[], None), true),
                (of(&[], None, &["SERVFAIL"], &[], None), false),
                (of(&[], None, &[], &["AAAA", "TYPE1"], None), true),
                (of(&[], None, &[], &["AAAA"], None), false),
                (of(&[], None, &[], &[], Some(12)), false),
            ] {
                assert_eq!(takes(&filter, &sample), expected, "{filter}");
            }
            let unread = AnsweredQuery { asked: None, rcode: None, ..sample };
            assert!(takes(&FilterText::default(), &unread));
            for filter in [of(&[], Some("*"), &[], &[], None), of(&[], None, &[], &["A"], None)] {
                assert!(!takes(&filter, &unread), "{filter}");
            }
            assert!(!takes(&of(&[], None, &["NOERROR"], &[], None), &unread));
        });
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let wrong = |text: FilterText| TapFilter::read(&text).unwrap_err().to_string();
        for client in ["", "10.0.0", "10.0.0.1/33", "a.example", "10.0.0.1 "] {
            let message = wrong(FilterText { clients: texts(&[client]), ..FilterText::default() });
            assert!(message.starts_with(&format!("`{client}` is neither")), "{message}");
        }
        for rcode in ["", "RCODE", "RCODE65536", "NX", "ß"] {
            let message = wrong(FilterText { rcodes: texts(&[rcode]), ..FilterText::default() });
            assert!(message.contains("is no response code"), "{message}");
        }
        for qtype in ["", "TYPE", "AAAAA", "-1"] {
            let message = wrong(FilterText { types: texts(&[qtype]), ..FilterText::default() });
            assert!(message.contains("is no record type"), "{message}");
        }
        let many = vec!["10.0.0.1".to_owned(); MOST_OF_EACH + 1];
        assert_eq!(
            wrong(FilterText { clients: many, ..FilterText::default() }),
            "17 clients are too many: name 16 at most"
        );
        assert!(TapFilter::read(&FilterText { name: Some("*".repeat(5000)), ..FilterText::default() }).is_err());
    }

    #[test]
    fn in_the_log_a_filter_is_as_it_was_written_and_nothing_in_it_is_obeyed() {
        let filter = FilterText {
            clients: texts(&["10.0.0.1"]),
            name: Some("*.\u{1b}[31m\n".to_owned()),
            slower_than_us: Some(50_000),
            ..FilterText::default()
        };
        assert_eq!(filter.to_string(), " --client 10.0.0.1 --name *.\\u{1b}[31m\\n --slower-than 50000us");
        assert_eq!(FilterText::default().to_string(), "");
    }
}
