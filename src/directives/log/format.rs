//! A log line's format, compiled once into pieces (CoreDNS plugin/pkg/replacer).

use super::class::ResponseType;
use crate::chain::{Exchange, Metadata, Transport};
use crate::message::{Class, Rcode};
use std::fmt::Write;
use std::net::IpAddr;

/// The Common Log Format, which is the default.
pub(super) const COMMON: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}"#;

/// What stands for a value that is not there.
const ABSENT: &str = "-";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Type,
    Name,
    Class,
    Proto,
    Size,
    Remote,
    Port,
    Local,
    Id,
    Opcode,
    DnssecOk,
    BufferSize,
    Rcode,
    ResponseSize,
    Duration,
    ResponseFlags,
    ResponseType,
    ResponseClass,
    /// A label of the block's metadata.
    Label(String),
}

/// What may stand between braces.
const PLACEHOLDERS: [(&str, Piece); 18] = [
    ("type", Piece::Type),
    ("name", Piece::Name),
    ("class", Piece::Class),
    ("proto", Piece::Proto),
    ("size", Piece::Size),
    ("remote", Piece::Remote),
    ("port", Piece::Port),
    ("local", Piece::Local),
    (">id", Piece::Id),
    (">opcode", Piece::Opcode),
    (">do", Piece::DnssecOk),
    (">bufsize", Piece::BufferSize),
    ("rcode", Piece::Rcode),
    ("rsize", Piece::ResponseSize),
    ("duration", Piece::Duration),
    (">rflags", Piece::ResponseFlags),
    ("/log/type", Piece::ResponseType),
    ("/log/class", Piece::ResponseClass),
];

/// The words of all placeholders, without braces.
pub(super) fn placeholders() -> impl Iterator<Item = &'static str> {
    PLACEHOLDERS.iter().map(|(word, _)| *word)
}

impl Piece {
    fn placeholder(word: &str) -> Option<Self> {
        let known = PLACEHOLDERS.iter().find(|(known, _)| *known == word).map(|(_, piece)| piece.clone());
        known.or_else(|| word.strip_prefix('/').map(|label| Self::Label(label.to_owned())))
    }
}

/// A compiled format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Piece>);

impl Format {
    /// Reads a format. Braces that hold no placeholder stand for themselves; `unknown` is told what they hold where
    /// that looks like a misspelt one.
    pub(super) fn compile(text: &str, mut unknown: impl FnMut(&str)) -> Self {
        let text = text.replace("{common}", COMMON).replace("{combined}", &format!("{COMMON} \"{{>opcode}}\""));
        let mut format = Self(Vec::new());
        let mut rest = text.as_str();
        while let Some(end) = rest.find('}') {
            let (head, tail) = (&rest[..end], &rest[end + 1..]);
            // The innermost brace counts: `{ {name} }`.
            match head.rsplit_once('{').map(|(literal, word)| (literal, word, Piece::placeholder(word))) {
                Some((literal, _, Some(piece))) => {
                    format.push_literal(literal);
                    format.0.push(piece);
                }
                Some((_, word, None)) => {
                    if is_like_placeholder(word) {
                        unknown(word);
                    }
                    format.push_literal(&rest[..=end]);
                }
                None => format.push_literal(&rest[..=end]),
            }
            rest = tail;
        }
        format.push_literal(rest);
        format
    }

    fn push_literal(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Literal(literal)) => literal.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Literal(text.to_owned())),
        }
    }

    /// Whether [`Self::append`] looks at the response's type.
    pub(super) fn shows_response_type(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::ResponseType | Piece::ResponseClass))
    }

    /// Appends the line for an exchange.
    pub(super) fn append(
        &self,
        exchange: &Exchange<'_>,
        response_type: ResponseType,
        metadata: &Metadata,
        line: &mut String,
    ) {
        for piece in &self.0 {
            // Writing to a String does not fail.
            piece.append(exchange, response_type, metadata, line).ok();
        }
    }
}

impl Piece {
    fn append(
        &self,
        exchange: &Exchange<'_>,
        response_type: ResponseType,
        metadata: &Metadata,
        line: &mut String,
    ) -> std::fmt::Result {
        let (request, peer) = (&exchange.request, exchange.request.peer);
        let query = request.query;
        let is_answered = exchange.failure.is_none();
        match self {
            Self::Literal(text) => line.write_str(text),
            Self::Type => write!(line, "{}", query.qtype),
            Self::Name => write!(line, "{}", query.name.to_name()),
            Self::Class => append_class(query.qclass, line),
            Self::Proto => line.write_str(peer.transport.label()),
            Self::Size => write!(line, "{}", request.wire.len()),
            Self::Remote => append_address(peer.client.ip(), line),
            Self::Port => write!(line, "{}", peer.client.port()),
            Self::Local => append_address(peer.local.ip(), line),
            Self::Id => write!(line, "{}", query.header.id),
            Self::Opcode => write!(line, "{}", query.header.opcode()),
            Self::DnssecOk => write!(line, "{}", query.dnssec_ok()),
            Self::BufferSize => match peer.transport {
                Transport::Tcp => write!(line, "{}", u16::MAX),
                // What the client offers, or the block's `bufsize`; our own cap of replies is not in it.
                Transport::Udp => {
                    let cap = request.udp_cap.unwrap_or(u16::MAX).max(512);
                    write!(line, "{}", request.query.udp_limit().min(cap))
                }
            },
            // Where no directive answered, the reference has seen no response yet: the server makes the SERVFAIL later.
            Self::Rcode if is_answered => append_rcode(exchange.rcode, line),
            Self::ResponseSize if is_answered => write!(line, "{}", exchange.reply.len()),
            Self::ResponseFlags if is_answered => append_flags(exchange.reply, line),
            Self::ResponseSize => line.write_str("0"),
            Self::Rcode | Self::ResponseFlags => line.write_str(ABSENT),
            Self::Label(label) => line.write_str(metadata.get(label, &query.name).unwrap_or(ABSENT)),
            Self::Duration => write!(line, "{}s", exchange.elapsed.as_secs_f64()),
            Self::ResponseType => line.write_str(response_type.label()),
            Self::ResponseClass => line.write_str(response_type.class().label()),
        }
    }
}

/// True for `rname` and `>flags`, not for `"a": 1`.
fn is_like_placeholder(word: &str) -> bool {
    let letters = word.trim_start_matches('>');
    !letters.is_empty() && letters.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// IPv6 addresses stand in brackets (RFC 3986 section 3.2.2); an IPv4 client of a socket for both families is written
/// as IPv4.
fn append_address(address: IpAddr, line: &mut String) -> std::fmt::Result {
    match address.to_canonical() {
        IpAddr::V4(address) => write!(line, "{address}"),
        IpAddr::V6(address) => write!(line, "[{address}]"),
    }
}

/// As the reference writes it: mnemonics that a type has as well are left to the type.
fn append_class(class: Class, line: &mut String) -> std::fmt::Result {
    match class {
        Class::ANY => write!(line, "CLASS{}", class.0),
        class => write!(line, "{class}"),
    }
}

/// The mnemonic, or the bare number of an unassigned code.
fn append_rcode(rcode: Rcode, line: &mut String) -> std::fmt::Result {
    match rcode.0 {
        0..=11 | 16..=23 => write!(line, "{rcode}"),
        number => write!(line, "{number}"),
    }
}

/// The header's flags that are set, by the second word of the header (RFC 1035 section 4.1.1, RFC 4035 section 3.2).
fn append_flags(reply: &[u8], line: &mut String) -> std::fmt::Result {
    const FLAGS: [(u16, &str); 8] = [
        (0x8000, "qr"),
        (0x0400, "aa"),
        (0x0200, "tc"),
        (0x0100, "rd"),
        (0x0080, "ra"),
        (0x0040, "z"),
        (0x0020, "ad"),
        (0x0010, "cd"),
    ];
    let flags = reply.get(2..4).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]));
    let mut separator = "";
    for (_, label) in FLAGS.iter().filter(|(bit, _)| flags & bit != 0) {
        write!(line, "{separator}{label}")?;
        separator = ",";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Format, Piece};

    fn compile(text: &str) -> (Vec<Piece>, Vec<String>) {
        let mut unknown = Vec::new();
        let format = Format::compile(text, |word| unknown.push(word.to_owned()));
        (format.0, unknown)
    }
    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn placeholders_and_literals_alternate() {
        let (pieces, unknown) = compile("{remote} said {name}{type}!");
        assert_eq!(pieces, [Piece::Remote, literal(" said "), Piece::Name, Piece::Type, literal("!")]);
        assert!(unknown.is_empty());
    }

    #[test]
    fn braces_without_a_placeholder_stand_for_themselves() {
        assert_eq!(compile("a } {{name} } {").0, [literal("a } {"), Piece::Name, literal(" } {")]);
        assert_eq!(compile("{}").0, [literal("{}")]);
        assert_eq!(
            compile(r#"{"name":"{name}"}"#),
            (vec![literal(r#"{"name":""#), Piece::Name, literal(r#""}"#)], vec![])
        );
    }

    #[test]
    fn misspelt_placeholders_are_told_and_kept() {
        let (pieces, unknown) = compile("{nmae} {>ID} {rcode}");
        assert_eq!(pieces, [literal("{nmae} {>ID} "), Piece::Rcode]);
        assert_eq!(unknown, ["nmae", ">ID"]);
    }

    #[test]
    fn metadata_labels_are_placeholders_too() {
        assert_eq!(
            compile("{/log/type}{/log/class}{/kubernetes/pod}").0,
            [Piece::ResponseType, Piece::ResponseClass, Piece::Label("kubernetes/pod".to_owned())]
        );
    }

    #[test]
    fn combined_is_common_and_the_opcode() {
        let (common, combined) = (compile("{common}").0, compile("{combined}").0);
        assert_eq!(combined[..common.len()], common);
        assert_eq!(combined[common.len()..], [literal(" \""), Piece::Opcode, literal("\"")]);
        assert_eq!(common.iter().filter(|piece| !matches!(piece, Piece::Literal(_))).count(), 14);
    }
}
