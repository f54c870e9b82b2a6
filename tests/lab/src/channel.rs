//! What host and guest tell each other: the host a plan in a file, the guest lines of JSON through a port, of which
//! those about files have the file's octets after them.

use crate::case::Place;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};
use std::time::Duration;

/// Where the guest finds its [`Plan`].
pub const PLAN: &str = "/lab/plan.json";

/// The kernel's argument `lab.clock`, where the machine's clocks go by what it has run.
pub const CLOCK_OF_INSTRUCTIONS: &str = "instructions";

/// A file of a case is not brought out beyond this, in octets.
pub const MAX_FILE: u64 = 8 << 20;

/// What the guest is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Modules to leave out.
    pub without: Vec<String>,
    /// What to run, in this order.
    pub cases: Vec<PlannedCase>,
    /// Whether to give a prompt on the console instead.
    pub is_shell: bool,
}

/// What the guest needs to know of a case that it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCase {
    pub name: String,
    pub is_on_machine: bool,
    pub limit: Duration,
}

impl PlannedCase {
    pub fn of(case: &crate::case::Case) -> Self {
        Self { name: case.name.to_owned(), is_on_machine: case.place == Place::Machine, limit: case.limit }
    }
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// It is up and begins.
    Up { release: String },
    /// A case begins.
    Begin { name: String },
    /// What a case wants to be seen while it runs.
    Note { text: String },
    /// The machine is to stand still for so long, as one does that is moved to another host.
    Suspend { time: Duration },
    /// A file of a case, whose octets follow.
    File { name: String, path: String, octets: u64 },
    /// A case has ended.
    End { name: String, is_passed: bool, took: Duration },
    /// All is done.
    Done,
}

/// Says something, with the octets of a file where it is about one.
///
/// # Errors
///
/// When the port cannot be written.
pub fn say(port: &mut impl Write, message: &Message, octets: &[u8]) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    port.write_all(&line)?;
    port.write_all(octets)?;
    port.flush()
}

/// The next thing that is said, and the octets that belong to it; none at the end.
///
/// # Errors
///
/// When the port cannot be read, or what comes is no message.
pub fn hear(port: &mut impl BufRead) -> io::Result<Option<(Message, Vec<u8>)>> {
    let mut line = Vec::new();
    if port.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&line)?;
    let mut octets = Vec::new();
    if let Message::File { octets: length, .. } = message {
        if length > MAX_FILE {
            return Err(io::Error::other(format!("the guest sends a file of {length} octets; {MAX_FILE} are allowed")));
        }
        octets.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        port.read_exact(&mut octets)?;
    }
    Ok(Some((message, octets)))
}

#[cfg(test)]
mod tests {
    use super::{Message, hear, say};

    #[test]
    fn what_is_said_is_heard_with_the_octets_of_files() {
        let file = Message::File { name: "a/b".to_owned(), path: "output".to_owned(), octets: 3 };
        let note = Message::Note { text: "line\nline".to_owned() };
        let mut port = Vec::new();
        say(&mut port, &file, b"\n{}").unwrap();
        say(&mut port, &note, &[]).unwrap();
        let mut port = port.as_slice();
        assert_eq!(hear(&mut port).unwrap(), Some((file, b"\n{}".to_vec())));
        assert_eq!(hear(&mut port).unwrap(), Some((note, Vec::new())));
        assert_eq!(hear(&mut port).unwrap(), None);
        let huge = br#"{"File":{"name":"a","path":"b","octets":99999999999}}"#;
        assert!(hear(&mut huge.as_slice()).is_err());
    }
}
