//! The terminal of the live view: raw while it runs, what keys send, and what a frame changes. This is
//! what the program needs of ratatui and crossterm: measured, both add 125 kB to the compressed program, crossterm
//! alone 44 kB, and the image has no room for either.

use super::live::{Key, Line, Style};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{self, OptionalActions, SpecialCodeIndex, Termios};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// Another screen, which leaves what stood in the terminal as it was; no cursor; and back.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
const END: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
/// Of a terminal that does not say.
const USUAL_SIZE: (usize, usize) = (80, 24);
/// Columns and lines beyond which a terminal's word is not taken.
const MOST: u16 = 1000;

/// The terminal that this process was started in. Dropped, it is as it was.
pub(super) struct Terminal {
    before: Termios,
    /// What stands there.
    shown: Vec<Line>,
    size: (usize, usize),
}

impl Terminal {
    /// # Errors
    /// Input or output is no terminal.
    pub(super) fn open() -> io::Result<Self> {
        termios::tcgetwinsize(stdout())?;
        let before = termios::tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // A read never waits.
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        let terminal = Self { before, shown: Vec::new(), size: (0, 0) };
        write(BEGIN)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        match termios::tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.min(MOST).into(), size.ws_row.min(MOST).into())
            }
            _ => USUAL_SIZE,
        }
    }

    /// Waits so long at most for keys.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn keys(&self, patience: Duration) -> io::Result<Vec<Key>> {
        let input = stdin();
        let mut waiting = [PollFd::new(&input, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut waiting, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [waiting] = &waiting;
        if waiting.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !waiting.revents().contains(PollFlags::IN) {
            return Ok(Vec::new());
        }
        let mut octets = [0; 256];
        let length = rustix::io::read(input, &mut octets)?;
        Ok(keys(octets.get(..length).unwrap_or_default()))
    }

    /// Writes what has changed since the last time.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&mut self, size: (usize, usize), lines: Vec<Line>) -> io::Result<()> {
        if self.size != size {
            self.size = size;
            self.shown.clear();
            write("\x1b[2J")?;
        }
        write(&changes(&self.shown, &lines))?;
        self.shown = lines;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may be gone.
        _ = write(END);
        _ = termios::tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What makes `after` of a screen with `before`.
fn changes(before: &[Line], after: &[Line]) -> String {
    let mut text = String::new();
    for (index, line) in after.iter().enumerate().filter(|(index, line)| before.get(*index) != Some(*line)) {
        let style = match line.style {
            Style::Plain => "",
            Style::Bold => "\x1b[1m",
            Style::Reversed => "\x1b[7m",
        };
        // Erased first: behind the last column the cursor stands on it.
        _ = write!(text, "\x1b[{};1H\x1b[K{style}{}\x1b[0m", index + 1, line.text);
    }
    text
}

/// The keys that have sent these octets. What is no key of ours is left out, and of a sequence nothing is taken for
/// single keys.
fn keys(octets: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = octets;
    while let [first, others @ ..] = rest {
        rest = others;
        let key = match first {
            b'\x1b' => match others {
                [b'[' | b'O', sequence @ ..] => {
                    let end = sequence.iter().position(|octet| matches!(octet, b'@'..=b'~'));
                    let (sequence, after) = sequence.split_at(end.map_or(sequence.len(), |end| end + 1));
                    rest = after;
                    match sequence {
                        b"A" => Some(Key::Up),
                        b"B" => Some(Key::Down),
                        b"C" => Some(Key::Next),
                        b"D" | b"Z" => Some(Key::Previous),
                        b"5~" => Some(Key::PageUp),
                        b"6~" => Some(Key::PageDown),
                        _ => None,
                    }
                }
                _ => Some(Key::Escape),
            },
            b'\r' | b'\n' => Some(Key::Enter),
            b'\t' => Some(Key::Next),
            b'\x7f' | b'\x08' => Some(Key::Backspace),
            b'\x03' => Some(Key::Interrupt),
            b' '..=b'~' => Some(Key::Char(char::from(*first))),
            _ => None,
        };
        keys.extend(key);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keys_send_is_read_and_nothing_else() {
        for (octets, expected) in [
            (&b"q"[..], &[Key::Char('q')][..]),
            (b"\x1b", &[Key::Escape]),
            (
                b"\x1b[A\x1bOB\x1b[C\x1b[D\x1b[Z\t",
                &[Key::Up, Key::Down, Key::Next, Key::Previous, Key::Previous, Key::Next],
            ),
            (b"\x1b[5~\x1b[6~\r\x7f\x03", &[Key::PageUp, Key::PageDown, Key::Enter, Key::Backspace, Key::Interrupt]),
            (b"\x1b[1;5q\x00\x1b[200~\xc3\xbc", &[]),
            (b"\x1b[", &[]),
        ] {
            assert_eq!(keys(octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn a_frame_writes_the_lines_that_have_changed() {
        let line = |text: &str, style| Line { text: text.to_owned(), style };
        let before = [line("a", Style::Plain), line("b", Style::Bold)];
        assert_eq!(changes(&before, &before), "");
        let after = [line("a", Style::Plain), line("c", Style::Reversed)];
        assert_eq!(changes(&before, &after), "\x1b[2;1H\x1b[K\x1b[7mc\x1b[0m");
        assert_eq!(changes(&[], &before).matches("\x1b[K").count(), 2);
    }
}
