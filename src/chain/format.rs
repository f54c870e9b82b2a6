//! A text about a query with placeholders, compiled once into pieces (CoreDNS plugin/pkg/replacer): a line of `log`, or
//! what `dnstap` adds to its messages.

use super::{Exchange, Peer, Request, Spans, Transport};
use crate::message::{Class, Rcode};
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

/// The Common Log Format, which is the default.
pub(crate) const COMMON: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}"#;

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
    /// A metadata label.
    Label(String),
}

/// What may stand between braces.
const PLACEHOLDERS: [(&str, Piece); 16] = [
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
];

/// The words of all placeholders, without braces.
pub(crate) fn placeholders() -> impl Iterator<Item = &'static str> {
    PLACEHOLDERS.iter().map(|(word, _)| *word).chain(LABELS)
}

/// Metadata labels that stand for something in every format (`trace/traceid`), or in those of `log`.
const LABELS: [&str; 3] = ["/log/type", "/log/class", TRACE_PLACEHOLDER];
const TRACE_PLACEHOLDER: &str = "/trace/traceid";

/// Appends what a metadata label stands for, with its leading slash; false if nothing sets it.
pub(crate) type AppendLabel<'a> = &'a dyn Fn(&str, &mut String) -> bool;

impl Piece {
    fn placeholder(word: &str) -> Option<Self> {
        let known = PLACEHOLDERS.iter().find(|(known, _)| *known == word).map(|(_, piece)| piece.clone());
        known.or_else(|| word.starts_with('/').then(|| Self::Label(word.to_owned())))
    }
}

/// A compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

impl Format {
    /// Reads a format. Braces that hold no placeholder stand for themselves; `unknown` is told what they hold where
    /// that looks like a misspelt one.
    pub(crate) fn compile(text: &str, mut unknown: impl FnMut(&str)) -> Self {
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

    /// Whether it has one of these metadata labels, written with their leading slash.
    pub(crate) fn has_label(&self, labels: &[&str]) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Label(label) if labels.contains(&label.as_str())))
    }

    /// Appends the text about a request and, once it is over, the exchange. Nothing goes through `fmt` that each line
    /// has: that would be most of what a line costs.
    pub(crate) fn append(
        &self,
        request: &Request<'_>,
        exchange: Option<&Exchange<'_>>,
        label: AppendLabel<'_>,
        line: &mut String,
    ) {
        for piece in &self.0 {
            piece.append(request, exchange, label, line);
        }
    }

    /// The same format for the hits of a packet, whose exchange this is.
    pub(crate) fn for_packet(&self, exchange: &Exchange<'_>, label: AppendLabel<'_>) -> PacketFormat {
        let mut format = Self(Vec::new());
        for piece in &self.0 {
            if piece.differs() {
                format.0.push(piece.clone());
            } else {
                let mut text = String::new();
                piece.append(&exchange.request, Some(exchange), label, &mut text);
                format.push_literal(&text);
            }
        }
        PacketFormat(format.0.into())
    }
}

/// What is different of requests that one packet of the packet cache answers.
#[derive(Clone, Copy)]
pub(crate) struct Differing<'a> {
    pub peer: &'a Peer,
    pub id: u16,
    /// From the request's arrival; `None` as long as it is not over.
    pub elapsed: Option<Duration>,
}

/// The line for one packet's hits: all but what differs is written already.
pub(crate) struct PacketFormat(Box<[Piece]>);

impl PacketFormat {
    /// Appends the line for a hit.
    pub(crate) fn append(&self, hit: Differing<'_>, line: &mut String) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => line.push_str(text),
                piece => piece.append_differing(hit, line),
            }
        }
    }
}

impl Piece {
    /// Whether it may differ between the hits of one packet.
    fn differs(&self) -> bool {
        matches!(self, Self::Remote | Self::Port | Self::Local | Self::Id | Self::Duration)
    }

    /// Appends what may differ; nothing for a piece that does not.
    fn append_differing(&self, hit: Differing<'_>, line: &mut String) {
        match (self, hit.elapsed) {
            (Self::Remote, _) => append_address(hit.peer.client.ip(), line),
            (Self::Port, _) => append_number(hit.peer.client.port(), line),
            (Self::Local, _) => append_address(hit.peer.local.ip(), line),
            (Self::Id, _) => append_number(hit.id, line),
            (Self::Duration, Some(elapsed)) => append_seconds(elapsed, line),
            (Self::Duration, None) => line.push_str(ABSENT),
            _ => {}
        }
    }

    fn append(
        &self,
        request: &Request<'_>,
        exchange: Option<&Exchange<'_>>,
        label: AppendLabel<'_>,
        line: &mut String,
    ) {
        let (query, peer) = (request.query, request.peer);
        let answered = exchange.filter(|exchange| exchange.failure.is_none());
        match self {
            Self::Literal(text) => line.push_str(text),
            Self::Type => append_text_or(query.qtype.mnemonic(), query.qtype, line),
            Self::Name => line.push_str(query.name.text().as_str()),
            Self::Class => append_class(query.qclass, line),
            Self::Proto => line.push_str(peer.transport.label()),
            Self::Size => append_number(request.wire.len(), line),
            Self::Remote | Self::Port | Self::Local | Self::Id | Self::Duration => {
                let elapsed = exchange.map(|exchange| exchange.elapsed);
                self.append_differing(Differing { peer, id: query.header.id, elapsed }, line);
            }
            Self::Opcode => append_number(query.header.opcode(), line),
            Self::DnssecOk => line.push_str(if query.dnssec_ok() { "true" } else { "false" }),
            Self::BufferSize => match peer.transport {
                Transport::Tcp => append_number(u16::MAX, line),
                // What the client offers, or the block's `bufsize`; our own cap of replies is not in it.
                Transport::Udp => {
                    let cap = request.udp_cap.unwrap_or(u16::MAX).max(512);
                    append_number(request.query.udp_limit().min(cap), line);
                }
            },
            // Where no directive answered, the reference has seen no response yet: the server makes the SERVFAIL later.
            Self::Rcode => match answered {
                Some(exchange) => append_rcode(exchange.rcode, line),
                None => line.push_str(ABSENT),
            },
            Self::ResponseFlags => match answered {
                Some(exchange) => append_flags(exchange.reply, line),
                None => line.push_str(ABSENT),
            },
            Self::ResponseSize => match (answered, exchange) {
                (Some(exchange), _) => append_number(exchange.reply.len(), line),
                (None, Some(_)) => line.push('0'),
                (None, None) => line.push_str(ABSENT),
            },
            Self::Label(name) => append_label(name, request, label, line),
        }
    }
}

/// Appends the value of a metadata label: what the one who writes the text knows, the query's trace, or what a
/// directive has said of the request.
fn append_label(name: &str, request: &Request<'_>, label: AppendLabel<'_>, line: &mut String) {
    if label(name, line) {
        return;
    }
    let label = name.strip_prefix('/').unwrap_or(name);
    let value = Spans::label(label).or_else(|| request.metadata?.get(label));
    line.push_str(value.as_deref().unwrap_or(ABSENT));
}

fn append_number(number: impl itoa::Integer, line: &mut String) {
    line.push_str(itoa::Buffer::new().format(number));
}

/// The text, or what is displayed where there is none.
fn append_text_or(text: Option<&str>, other: impl std::fmt::Display, line: &mut String) {
    match text {
        Some(text) => line.push_str(text),
        // Writing to a String does not fail.
        None => _ = write!(line, "{other}"),
    }
}

/// Seconds with as many digits as there are, without an exponent, and `s`.
fn append_seconds(time: Duration, line: &mut String) {
    const NANOS: u32 = 1_000_000_000;
    append_number(time.as_secs(), line);
    if time.subsec_nanos() > 0 {
        let mut buffer = itoa::Buffer::new();
        // Nine digits after the first one.
        let digits = buffer.format(NANOS + time.subsec_nanos());
        line.push('.');
        line.push_str(digits.trim_end_matches('0').get(1..).unwrap_or_default());
    }
    line.push('s');
}

/// True for `rname` and `>flags`, not for `"a": 1`.
fn is_like_placeholder(word: &str) -> bool {
    let letters = word.trim_start_matches('>');
    !letters.is_empty() && letters.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// IPv6 addresses stand in brackets (RFC 3986 section 3.2.2); an IPv4 client of a socket for both families is written
/// as IPv4.
fn append_address(address: IpAddr, line: &mut String) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let (mut text, mut end) = ([0; 16], 0);
            for octet in address.octets() {
                for (digit, least) in [(octet / 100, 100), (octet / 10 % 10, 10), (octet % 10, 0)] {
                    text[end] = b'0' + digit;
                    end += usize::from(octet >= least);
                }
                text[end] = b'.';
                end += 1;
            }
            line.push_str(std::str::from_utf8(&text[..end - 1]).unwrap_or_default());
        }
        // Writing to a String does not fail.
        IpAddr::V6(address) => _ = write!(line, "[{address}]"),
    }
}

/// As the reference writes it: mnemonics that a type has as well are left to the type.
fn append_class(class: Class, line: &mut String) {
    match class {
        Class::IN => line.push_str("IN"),
        // Writing to a String does not fail.
        Class::ANY => _ = write!(line, "CLASS{}", class.0),
        class => _ = write!(line, "{class}"),
    }
}

/// The mnemonic, or the bare number of an unassigned code.
fn append_rcode(rcode: Rcode, line: &mut String) {
    match rcode.0 {
        0..=11 | 16..=23 => append_text_or(rcode.mnemonic(), rcode, line),
        number => append_number(number, line),
    }
}

/// The header's flags that are set, by the second word of the header (RFC 1035 section 4.1.1, RFC 4035 section 3.2).
fn append_flags(reply: &[u8], line: &mut String) {
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
        line.push_str(separator);
        line.push_str(label);
        separator = ",";
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Piece, append_seconds};
    use std::time::Duration;

    fn compile(text: &str) -> (Vec<Piece>, Vec<String>) {
        let mut unknown = Vec::new();
        let format = Format::compile(text, |word| unknown.push(word.to_owned()));
        (format.0, unknown)
    }
    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn a_time_is_written_with_as_many_digits_as_it_has() {
        for (nanos, written) in
            [(0, "0s"), (1, "0.000000001s"), (120_000, "0.00012s"), (1_000_000_000, "1s"), (12_500_000_000, "12.5s")]
        {
            let mut line = String::new();
            append_seconds(Duration::from_nanos(nanos), &mut line);
            assert_eq!(line, written);
        }
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
            ["/log/type", "/log/class", "/kubernetes/pod"].map(|label| Piece::Label(label.to_owned()))
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
