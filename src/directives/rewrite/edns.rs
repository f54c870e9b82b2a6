//! `edns0`: EDNS options of the query that goes upstream.

use crate::chain::{KeptSubnet, Request, Transport};
use crate::message::{ClientSubnet, LowerName, Name, PrefixLimits, RecordType, UpstreamOptions};
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// What an `edns0` rule does, and to which option.
#[derive(Debug)]
pub(super) struct EdnsRule {
    pub operation: EdnsOperation,
    pub option: EdnsOption,
}

/// How an option is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EdnsOperation {
    /// Put there, or changed if it is there.
    Set,
    /// Put there if it is not.
    Append,
    /// Changed if it is there.
    Replace,
    Unset,
}

/// An option and what it is to hold.
#[derive(Debug)]
pub(super) enum EdnsOption {
    Local(u16, OptionData),
    /// Asks for the server's name (RFC 5001); empty in a query.
    Nsid,
    /// The network of the client, of so many bits (RFC 7871).
    Subnet(PrefixLimits),
}

/// The data of a local option.
#[derive(Debug)]
pub(super) enum OptionData {
    Octets(Vec<u8>),
    Variable(Variable),
}

/// What a variable stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    QueryName,
    QueryType,
    ClientAddress,
    ClientPort,
    Protocol,
    ServerAddress,
    ServerPort,
    /// A label of `metadata`, which no directive before this one gives.
    Metadata,
}

/// The options that rules have touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionChanges {
    /// In the order in which they were put there. `None`: taken away.
    list: Vec<(u16, Option<Vec<u8>>)>,
    /// `None`: not touched.
    subnet: Option<Option<ClientSubnet>>,
}

/// The question as it is when a rule is looked at.
pub(super) struct RewriteQuestion {
    /// `None`: the client's own name.
    pub renamed: Option<LowerName>,
    pub qtype: RecordType,
}

/// Code of the NSID option (RFC 5001 section 2.3).
const NSID: u16 = 3;

impl EdnsRule {
    /// Puts, changes or takes away the option; false if there was nothing to do.
    pub(super) fn apply(&self, request: &Request<'_>, asked: &RewriteQuestion, options: &mut OptionChanges) -> bool {
        match &self.option {
            EdnsOption::Subnet(limits) => self.apply_subnet(request, options, *limits),
            EdnsOption::Nsid => self.apply_local(request, options, NSID, &[]),
            EdnsOption::Local(code, OptionData::Octets(octets)) => self.apply_local(request, options, *code, octets),
            EdnsOption::Local(code, OptionData::Variable(variable)) => match variable.value(request, asked) {
                Some(octets) => self.apply_local(request, options, *code, &octets),
                None => false,
            },
        }
    }

    fn apply_local(&self, request: &Request<'_>, options: &mut OptionChanges, code: u16, octets: &[u8]) -> bool {
        let present = match options.list.iter().find(|(other, _)| *other == code) {
            Some((_, data)) => data.clone(),
            None => request.query.option(request.wire, code).map(<[u8]>::to_vec),
        };
        let data = match (self.operation, present) {
            (EdnsOperation::Set, _) | (EdnsOperation::Append, None) | (EdnsOperation::Replace, Some(_)) => {
                Some(octets.to_vec())
            }
            // The client's own stays, and goes upstream as it is.
            (EdnsOperation::Append, Some(present)) => Some(present),
            (EdnsOperation::Unset, _) => None,
            (EdnsOperation::Replace, None) => return false,
        };
        match options.list.iter_mut().find(|(other, _)| *other == code) {
            Some(place) => place.1 = data,
            None => options.list.push((code, data)),
        }
        true
    }

    fn apply_subnet(&self, request: &Request<'_>, options: &mut OptionChanges, limits: PrefixLimits) -> bool {
        let present = match options.subnet {
            Some(subnet) => subnet,
            None => match request.client_subnet {
                Some(kept) => Some(kept.asked),
                None => request.query.client_subnet(request.wire).ok().flatten().map(|sent| sent.within(limits)),
            },
        };
        let own = || {
            let address = request.peer.client.ip().to_canonical();
            let prefix = if address.is_ipv4() { limits.ipv4 } else { limits.ipv6 };
            ClientSubnet::of(address, prefix)
        };
        options.subnet = match (self.operation, present) {
            (EdnsOperation::Set, _) | (EdnsOperation::Append, None) | (EdnsOperation::Replace, Some(_)) => {
                Some(Some(own()))
            }
            (EdnsOperation::Append, Some(present)) => Some(Some(present)),
            (EdnsOperation::Unset, _) => Some(None),
            (EdnsOperation::Replace, None) => return false,
        };
        true
    }
}

impl OptionChanges {
    /// What goes upstream; `None` if nothing does. What has no room is left out.
    pub(super) fn for_upstream(&self) -> Option<UpstreamOptions> {
        let mut options = UpstreamOptions::default();
        for (code, data) in &self.list {
            if let Some(data) = data {
                options.push(*code, data);
            }
        }
        Some(options).filter(|options| !options.is_empty())
    }

    /// The subnet that goes upstream, in the place of the request's own.
    pub(super) fn subnet(&self, kept: Option<&KeptSubnet>) -> Option<KeptSubnet> {
        match self.subnet {
            None => kept.copied(),
            Some(subnet) => subnet.map(|asked| KeptSubnet { sent: kept.map_or(asked, |kept| kept.sent), asked }),
        }
    }
}

impl Variable {
    /// What `{…}` stands for, without its braces; `None` if it is neither a variable nor the form of a label of
    /// metadata.
    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "qname" => Self::QueryName,
            "qtype" => Self::QueryType,
            "client_ip" => Self::ClientAddress,
            "client_port" => Self::ClientPort,
            "protocol" => Self::Protocol,
            "server_ip" => Self::ServerAddress,
            "server_port" => Self::ServerPort,
            label => {
                let (namespace, label) = label.split_once('/')?;
                if namespace.is_empty() || label.is_empty() {
                    return None;
                }
                Self::Metadata
            }
        })
    }

    /// The octets for this request: names as text, numbers and addresses as on the wire.
    fn value(self, request: &Request<'_>, asked: &RewriteQuestion) -> Option<SmallVec<[u8; 64]>> {
        let port = |address: SocketAddr| SmallVec::from_slice(&address.port().to_be_bytes());
        Some(match self {
            Self::QueryName => match &asked.renamed {
                Some(name) => SmallVec::from_slice(name.text().as_str().as_bytes()),
                // As the client has spelt it.
                None => SmallVec::from_slice(Name::read(request.wire, 12).ok()?.0.to_string().as_bytes()),
            },
            Self::QueryType => SmallVec::from_slice(&asked.qtype.0.to_be_bytes()),
            Self::ClientAddress => octets_of(request.peer.client.ip()),
            Self::ServerAddress => octets_of(request.peer.local.ip()),
            Self::ClientPort => port(request.peer.client),
            Self::ServerPort => port(request.peer.local),
            Self::Protocol => SmallVec::from_slice(match request.peer.transport {
                Transport::Udp => b"udp",
                Transport::Tcp => b"tcp",
            }),
            Self::Metadata => return None,
        })
    }
}

fn octets_of(address: IpAddr) -> SmallVec<[u8; 64]> {
    match address.to_canonical() {
        IpAddr::V4(address) => SmallVec::from_slice(&address.octets()),
        IpAddr::V6(address) => SmallVec::from_slice(&address.octets()),
    }
}
