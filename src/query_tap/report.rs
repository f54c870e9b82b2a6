//! A query as it is told over the admin socket and to users. Pure.

use super::{How, Messages, TappedQuery};
use crate::message::Name;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    pub now: Instant,
    /// Since 1970, at `now`.
    pub time: Duration,
}

impl WallClock {
    pub(crate) fn read() -> Self {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { now: Instant::now(), time }
    }

    fn at(&self, at: Instant) -> Duration {
        self.time.saturating_sub(self.now.saturating_duration_since(at))
    }
}

/// A query, as docs/queries.md lists its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueryReport {
    /// When it was received: microseconds since 1970.
    pub time_us: u64,
    pub client: IpAddr,
    pub port: u16,
    /// Where it arrived.
    pub server: SocketAddr,
    pub protocol: String,
    /// In presentation form; `None` of a message that cannot be read.
    pub name: Option<String>,
    pub r#type: Option<String>,
    /// `None`: nothing was said.
    pub rcode: Option<String>,
    pub how: How,
    /// Keyword of the directive that answered or failed; empty if none did.
    pub answered_by: String,
    /// From its receipt to its reply, in microseconds.
    pub took_us: u64,
    /// The one that answered, or was asked last.
    pub upstream: Option<SocketAddr>,
    /// `udp`, `tcp`, `tls` or `https`; empty if another query's exchange was shared.
    pub transport: String,
    /// Messages sent to upstreams.
    pub tries: u16,
    /// Why it failed, if that is known.
    pub reason: Option<String>,
    /// The client's message and the reply, in base64 (RFC 4648 section 4), for who has asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<(String, String)>,
}

impl QueryReport {
    pub(crate) fn of(query: &TappedQuery, clock: &WallClock) -> Self {
        let (name, qtype) = query.asked.as_ref().map(|(name, qtype)| (&**name, qtype)).unzip();
        let text = |wire: &[u8]| Name::read(wire, 0).map_or_else(|_| ".".to_owned(), |(name, _)| name.to_string());
        let encoded = |messages: &Messages| (BASE64.encode(&messages.query), BASE64.encode(&messages.reply));
        Self {
            time_us: microseconds(clock.at(query.received)),
            client: query.client.ip(),
            port: query.client.port(),
            server: query.server,
            protocol: query.protocol.to_owned(),
            name: name.map(text),
            r#type: qtype.map(ToString::to_string),
            rcode: query.rcode.map(|rcode| rcode.to_string()),
            how: How::of(query.answered_by, query.rcode, &query.route),
            answered_by: query.answered_by.to_owned(),
            took_us: microseconds(query.took),
            upstream: query.route.upstream,
            transport: query.route.transport.to_owned(),
            tries: query.route.tries,
            reason: query.reason.as_deref().map(str::to_owned),
            messages: query.messages.as_ref().map(encoded),
        }
    }

    /// The client's message and the reply.
    pub(crate) fn decoded(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (query, reply) = self.messages.as_ref()?;
        Some((BASE64.decode(query.as_bytes()).ok()?, BASE64.decode(reply.as_bytes()).ok()?))
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time in microseconds since 1970 as RFC 3339 writes it, in UTC, such as `2026-12-01T09:03:19.123456Z`.
pub(crate) fn utc(time_us: u64) -> String {
    let (seconds, fraction) = (time_us / 1_000_000, time_us % 1_000_000);
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Days of a year that begins in March, so that the leap day is its last, of eras of 400 years, since 1 March of
    // year 0 (Howard Hinnant, chrono-compatible low-level date algorithms, civil_from_days).
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_sample;
    use super::super::{AnsweredQuery, TappedQuery};
    use super::*;
    use crate::query_stats::Route;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_796_115_799, "2026-12-01T09:03:19.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(utc(seconds * 1_000_000), expected);
        }
        assert_eq!(utc(1_123_456), "1970-01-01T00:00:01.123456Z");
        assert!(utc(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn a_report_comes_out_as_it_went_in_and_names_are_escaped() {
        with_sample(|sample| {
            let clock = WallClock { now: sample.received + Duration::from_secs(2), time: Duration::from_secs(100) };
            let hostile = b"\x04\x1b[3m\x02\\.\x00";
            let upstream = Some("[fd00::1]:53".parse().unwrap());
            let query = AnsweredQuery {
                asked: sample.asked.map(|(_, qtype)| (&hostile[..], qtype)),
                answered_by: "forward",
                route: Route { upstream, transport: "udp", tries: 2, is_stale: false },
                reason: Some("because"),
                ..sample
            };
            let report = QueryReport::of(&TappedQuery::new(&query, true), &clock);
            assert_eq!((report.time_us, report.took_us, report.how), (98_000_000, 12, How::Miss));
            assert_eq!(report.name.as_deref(), Some("\\027[3m.\\\\\\.."));
            assert_eq!(report.decoded(), Some((sample.query.to_vec(), sample.reply.to_vec())));
            let text = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<QueryReport>(&text).unwrap(), report);
            let short = QueryReport::of(&TappedQuery::new(&AnsweredQuery { asked: None, ..query }, false), &clock);
            assert_eq!((short.name.clone(), short.decoded()), (None, None));
            assert!(!serde_json::to_string(&short).unwrap().contains("messages"));
        });
    }
}
