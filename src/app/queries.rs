//! The command `queries`: has a server show what it is asked, and prints it or writes it as a capture.

use super::top::{plain, plain_json};
use crate::admin::{self, AdminError, QueriesLine, QueriesStream, QueriesSummary};
use crate::cli::{QueriesForm, WatchQueries};
use crate::query_tap::{How, PCAP_HEADER, Packet, QueryReport, utc, write_packet};
use crate::threads;
use anyhow::{Context, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a command that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// The mode of a file that its owner alone may read and write.
const OWNER_ONLY: u32 = 0o600;

/// Shows queries until the limit, Ctrl-C, or the end of the server or of who reads.
pub(super) fn watch(command: &WatchQueries) -> anyhow::Result<ExitCode> {
    if command.form == QueriesForm::Capture(None) && io::stdout().is_terminal() {
        bail!("a capture is no text for a terminal: name a file, or send it to a program, such as `| tcpdump -r -`");
    }
    // What the error says may be the server's words.
    let harmless = |error: AdminError| anyhow!("{}", plain(&error.to_string()));
    // Before a place is taken: it may be a FIFO that nobody reads yet.
    let capture = capture(&command.form)?;
    let connection = admin::connect(command.label.as_deref()).map_err(harmless)?;
    let mut stream = connection.watch(&command.request).map_err(harmless)?;
    end_at_signals(stream.end()?)?;
    let mut out = output(capture)?;
    match show(&mut stream, &command.form, &mut *out) {
        Ok(QueriesSummary { shown, lost }) => complain(&format!("{shown} queries were shown, {lost} lost")),
        Err(Ending::Unread) => {}
        Err(Ending::Output(error)) => return Err(error).context("cannot write what is shown"),
        Err(Ending::Server(error)) => return Err(harmless(error)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The file that is to hold the capture, if one is. What it holds already stays until the server shows queries.
fn capture(form: &QueriesForm) -> anyhow::Result<Option<File>> {
    let QueriesForm::Capture(Some(path)) = form else { return Ok(None) };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path);
    file.map(Some).with_context(|| format!("cannot write the capture to {}", path.display()))
}

/// Where queries are written to: the capture's file, or else standard output.
fn output(capture: Option<File>) -> anyhow::Result<Box<dyn Write>> {
    let Some(file) = capture else {
        threads::spawn("output", None, end_with_reader)?;
        return Ok(Box::new(io::stdout().lock()));
    };
    if file.metadata()?.is_file() {
        // It holds names and clients, and may have been there before.
        let closed = file.set_permissions(Permissions::from_mode(OWNER_ONLY));
        closed.context("cannot make the capture readable for its owner alone: name a file of your own")?;
        file.set_len(0).context("cannot empty the capture's file")?;
    }
    Ok(Box::new(file))
}

/// Ends this process when nobody reads its standard output any longer, such as the program at the other end of a pipe:
/// that would be seen with the next query only, and until then nobody else had the place.
fn end_with_reader() {
    let out = io::stdout();
    loop {
        // Asks for nothing: that it is closed is told all the same (poll(2)).
        let mut waiting = [PollFd::new(&out, PollFlags::empty())];
        match poll(&mut waiting, None) {
            Ok(_) => std::process::exit(0),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The first SIGINT or SIGTERM has the server end what it shows, and say how many there were; the second ends this
/// process, whoever may still wait for something.
fn end_at_signals(stream: UnixStream) -> io::Result<()> {
    let make = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let wait = move |runtime: Runtime| {
        let ended: io::Result<()> = runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            for is_last in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if is_last {
                    std::process::exit(INTERRUPTED);
                }
                // The server may have ended.
                _ = stream.shutdown(Shutdown::Write);
            }
            Ok(())
        });
        // Without it a signal ends the process as it always does.
        _ = ended;
    };
    threads::spawn_with_runtime("signals", None, make, wait)?;
    Ok(())
}

/// Why nothing more is written before the server has said how much there was.
#[derive(Debug)]
enum Ending {
    /// Nobody reads it any longer.
    Unread,
    Output(io::Error),
    Server(AdminError),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Unread } else { Self::Output(error) }
    }
}

/// Writes what is shown, and all that came before the end.
fn show(stream: &mut QueriesStream, form: &QueriesForm, out: &mut dyn Write) -> Result<QueriesSummary, Ending> {
    let mut out = BufWriter::new(out);
    let written = write_all(stream, form, &mut out);
    if matches!(written, Err(Ending::Server(_))) {
        out.flush()?;
    }
    // What could not be written is not tried again.
    _ = out.into_parts();
    written
}

fn write_all(
    stream: &mut QueriesStream,
    form: &QueriesForm,
    out: &mut BufWriter<&mut dyn Write>,
) -> Result<QueriesSummary, Ending> {
    if matches!(form, QueriesForm::Capture(_)) {
        out.write_all(&PCAP_HEADER)?;
    }
    loop {
        if !stream.has_more() {
            out.flush()?;
        }
        match stream.next().map_err(Ending::Server)? {
            QueriesLine::Query(query) => out.write_all(&written(&query, form)?)?,
            QueriesLine::Lost(lost) => match form {
                QueriesForm::Json => writeln!(out, "{{\"lost\":{lost}}}")?,
                QueriesForm::Text | QueriesForm::Capture(_) => {
                    out.flush()?;
                    complain(&format!("{lost} queries are not shown here: they came faster than they were read"));
                }
            },
            QueriesLine::Done(summary) => {
                out.flush()?;
                return Ok(summary);
            }
            QueriesLine::Begun {} | QueriesLine::Failed(_) => {}
        }
    }
}

fn written(query: &QueryReport, form: &QueriesForm) -> Result<Vec<u8>, Ending> {
    match form {
        QueriesForm::Text => Ok(text(query).into_bytes()),
        QueriesForm::Json => {
            let json = serde_json::to_string(query).map_err(io::Error::from)?;
            Ok(format!("{}\n", plain_json(&json)).into_bytes())
        }
        QueriesForm::Capture(_) => packets(query).ok_or(Ending::Server(AdminError::Unreadable)),
    }
}

/// A line of text.
fn text(query: &QueryReport) -> String {
    let known = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
    let [name, qtype, rcode] = [&query.name, &query.r#type, &query.rcode].map(known);
    let client = SocketAddr::new(query.client, query.port);
    let (time, protocol, how) = (utc(query.time_us), plain(&query.protocol), query.how.label());
    let took = query.took_us as f64 / 1000.0;
    let mut line = format!("{time} {client} {protocol} {name} {qtype} {rcode} {how} {took:.3}ms");
    match (query.how, query.upstream) {
        (How::Miss | How::Stale, Some(upstream)) => _ = write!(line, " {upstream}"),
        (How::Local | How::Dropped, _) if !query.answered_by.is_empty() => {
            _ = write!(line, " {}", plain(&query.answered_by));
        }
        (How::Hit | How::Miss | How::Stale | How::Local | How::Rejected | How::Dropped, _) => {}
    }
    if let Some(reason) = &query.reason {
        _ = write!(line, " ({})", plain(reason));
    }
    line.push('\n');
    line
}

/// The query and its reply as packets; `None` if they are not there.
fn packets(query: &QueryReport) -> Option<Vec<u8>> {
    let (asked, replied) = query.decoded()?;
    let (client, server) = (SocketAddr::new(query.client, query.port), query.server);
    let mut packets = Vec::new();
    write_packet(&Packet { time_us: query.time_us, from: client, to: server, message: &asked }, &mut packets);
    if !replied.is_empty() {
        let time_us = query.time_us.saturating_add(query.took_us);
        write_packet(&Packet { time_us, from: server, to: client, message: &replied }, &mut packets);
    }
    Some(packets)
}

/// On standard error, which may be closed.
fn complain(line: &str) {
    _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> QueryReport {
        QueryReport {
            time_us: 1_796_115_799_123_456,
            client: [10, 244, 0, 5].into(),
            port: 41234,
            server: ([169, 254, 20, 10], 53).into(),
            protocol: "udp".to_owned(),
            name: Some("a.example.".to_owned()),
            r#type: Some("A".to_owned()),
            rcode: Some("NOERROR".to_owned()),
            how: How::Hit,
            answered_by: "cache".to_owned(),
            took_us: 12,
            upstream: None,
            transport: String::new(),
            tries: 0,
            reason: None,
            messages: None,
        }
    }

    #[test]
    fn a_line_says_who_asked_for_what_and_how_it_was_answered() {
        let upstream = Some(([10, 96, 0, 10], 53).into());
        for (query, expected) in [
            (report(), "10.244.0.5:41234 udp a.example. A NOERROR hit 0.012ms"),
            (
                QueryReport { how: How::Miss, upstream, took_us: 1_003_120, ..report() },
                "10.244.0.5:41234 udp a.example. A NOERROR miss 1003.120ms 10.96.0.10:53",
            ),
            (
                QueryReport {
                    how: How::Local,
                    answered_by: "hosts".to_owned(),
                    client: "fd00::5".parse().unwrap(),
                    ..report()
                },
                "[fd00::5]:41234 udp a.example. A NOERROR local 0.012ms hosts",
            ),
            (
                QueryReport {
                    how: How::Dropped,
                    answered_by: String::new(),
                    name: None,
                    r#type: None,
                    rcode: None,
                    reason: Some("too\u{1b}short".to_owned()),
                    ..report()
                },
                "10.244.0.5:41234 udp - - - dropped 0.012ms (too\\027short)",
            ),
        ] {
            assert_eq!(text(&query), format!("2026-12-01T09:03:19.123456Z {expected}\n"));
        }
    }

    #[test]
    fn nothing_of_a_line_is_obeyed_by_a_terminal() {
        let hostile = || Some("\u{1b}[31m\u{202e}\n".to_owned());
        let query = QueryReport {
            name: hostile(),
            r#type: hostile(),
            rcode: hostile(),
            reason: hostile(),
            protocol: hostile().unwrap(),
            answered_by: hostile().unwrap(),
            how: How::Local,
            ..report()
        };
        for form in [QueriesForm::Text, QueriesForm::Json] {
            let Ok(line) = written(&query, &form) else { panic!("{form:?}") };
            let line = String::from_utf8(line).unwrap();
            let (end, line) = (line.chars().next_back(), line.trim_end_matches('\n'));
            assert!(line.chars().all(|character| matches!(character, ' '..='~')) && end == Some('\n'), "{line:?}");
        }
    }

    #[test]
    fn a_query_is_two_packets_one_without_a_reply_one_and_what_was_not_sent_is_none() {
        let encoded = |octets: &[u8]| data_encoding::BASE64.encode(octets);
        let of = |reply: &[u8]| QueryReport { messages: Some((encoded(b"asks"), encoded(reply))), ..report() };
        let both = packets(&of(b"says")).unwrap();
        assert_eq!(both.len(), 2 * (16 + 28 + 4));
        assert_eq!(both[4..8], 123_456_u32.to_le_bytes());
        assert_eq!(both[48 + 4..48 + 8], 123_468_u32.to_le_bytes());
        assert!(both[..48].ends_with(b"asks") && both.ends_with(b"says"));
        assert_eq!(both[48 + 16 + 12..48 + 16 + 20], [169, 254, 20, 10, 10, 244, 0, 5]);
        assert_eq!(packets(&of(b"")).unwrap(), both[..48]);
        assert_eq!(packets(&report()), None);
    }
}
