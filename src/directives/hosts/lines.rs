//! The lines of a hosts file (hosts(5)): an address, and names for it.

use crate::corefile::printable;
use crate::message::{LowerName, Name};
use std::net::IpAddr;

/// Why a line, or a part of it, says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostsLineError {
    #[error("`{0}` is no IP address")]
    Address(String),
    #[error("`{0}` has no name beside it")]
    NoName(String),
    #[error("`{0}` is no domain name")]
    Name(String),
}

/// What is wrong with a file, and in which lines; not more than somebody wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BadLines {
    first: Vec<(usize, HostsLineError)>,
    count: usize,
}

impl BadLines {
    const SHOWN: usize = 5;

    fn push(&mut self, line: usize, error: HostsLineError) {
        if self.count < Self::SHOWN {
            self.first.push((line, error));
        }
        self.count += 1;
    }

    /// Leaves out what the lines say: a file without one good line may be another than was meant, with secrets in it.
    fn conceal(&mut self) {
        for (_, error) in &mut self.first {
            let (HostsLineError::Address(text) | HostsLineError::NoName(text) | HostsLineError::Name(text)) = error;
            "…".clone_into(text);
        }
    }

    /// In one line; `None` if there are none.
    pub(super) fn summary(&self) -> Option<String> {
        let first: Vec<String> = self.first.iter().map(|(line, error)| format!("line {line}: {error}")).collect();
        let more = match self.count - first.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (self.count > 0).then(|| format!("{}{more}", first.join("; ")))
    }
}

/// An address as hosts files write it: the zone of an IPv6 address is left out, and one that maps an IPv4 address is
/// that.
pub(super) fn address(text: &str) -> Result<IpAddr, HostsLineError> {
    let (address, _) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| HostsLineError::Address(shown(text)))
}

/// A name as hosts files write it: absolute also without a final dot.
pub(super) fn name(text: &str) -> Result<LowerName, HostsLineError> {
    let mut name = Name::root().to_lower();
    read_name(text, &mut name).map(|()| name)
}

/// [`name`] in the place of another: a name is large to be handed on.
fn read_name(text: &str, place: &mut LowerName) -> Result<(), HostsLineError> {
    place.set_text(text).map_err(|_| HostsLineError::Name(shown(text)))
}

/// Reads a file; `each` takes an address and a name.
pub(super) fn read(text: &str, mut each: impl FnMut(IpAddr, &LowerName)) -> BadLines {
    let (mut bad, mut has_good) = (BadLines::default(), false);
    let mut name = Name::root().to_lower();
    for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let (line, _) = line.split_once('#').unwrap_or((line, ""));
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let address = match address(first) {
            Ok(address) => address,
            Err(error) => {
                bad.push(number, error);
                continue;
            }
        };
        let mut has_name = false;
        for word in words {
            has_name = true;
            match read_name(word, &mut name) {
                Ok(()) => {
                    has_good = true;
                    each(address, &name);
                }
                Err(error) => bad.push(number, error),
            }
        }
        if !has_name {
            bad.push(number, HostsLineError::NoName(shown(first)));
        }
    }
    if !has_good {
        bad.conceal();
    }
    bad
}

/// A word of a file for a log: cut short, and with nothing that steers a terminal.
fn shown(word: &str) -> String {
    const CHARACTERS: usize = 60;
    let text = printable(word, false);
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> (Vec<String>, Option<String>) {
        let mut entries = Vec::new();
        let bad = read(text, |address, name| entries.push(format!("{address} {name}")));
        (entries, bad.summary())
    }

    #[test]
    fn comments_blanks_and_aliases_are_read_as_hosts_files_have_them() {
        let text = "# all\n\n \t \n192.0.2.44\tCanon.EXAMPLE   Alias1.example. \talias2 # three\r\n::1 localhost#none\nfe80::1%eth0 s.test";
        let expected = [
            "192.0.2.44 canon.example.",
            "192.0.2.44 alias1.example.",
            "192.0.2.44 alias2.",
            "::1 localhost.",
            "fe80::1 s.test.",
        ];
        assert_eq!(entries(text), (expected.map(str::to_owned).to_vec(), None));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(entries("\u{feff}192.0.2.1 a\n"), (vec!["192.0.2.1 a.".to_owned()], None));
    }

    #[test]
    fn bad_lines_are_named_and_the_good_ones_are_read() {
        let (good, bad) = entries(
            "999.1.1.1 a\n192.0.2.062 b\nname 192.0.2.1\n192.0.2.9\n192.0.2.1 good .. also\n::ffff:192.0.2.2 m\nx\ny\n",
        );
        assert_eq!(good, ["192.0.2.1 good.", "192.0.2.1 also.", "192.0.2.2 m."]);
        assert_eq!(
            bad.as_deref(),
            Some(
                "line 1: `999.1.1.1` is no IP address; line 2: `192.0.2.062` is no IP address; line 3: `name` is no IP address; \
                 line 4: `192.0.2.9` has no name beside it; line 5: `..` is no domain name; and 2 more"
            )
        );
    }

    #[test]
    fn nothing_is_shown_of_a_file_without_a_good_line() {
        let (good, bad) = entries("root:$6$secret:19000:0:99999:7:::\n192.0.2.1\n192.0.2.1 ..\n");
        assert_eq!(good, [""; 0]);
        let expected = "line 1: `…` is no IP address; line 2: `…` has no name beside it; line 3: `…` is no domain name";
        assert_eq!(bad.as_deref(), Some(expected));
    }

    #[test]
    fn nothing_of_a_file_steers_a_terminal_or_fills_a_log() {
        let (_, bad) = entries(&format!("\u{1b}[31m{} name\n::1 a\n", "x".repeat(10_000)));
        let bad = bad.unwrap();
        assert!(!bad.contains('\u{1b}') && bad.len() < 200, "{bad}");
    }
}
