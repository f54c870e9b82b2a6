//! Durations as Go reads and prints them, because Corefiles and CoreDNS' log lines have them.

use std::fmt;
use std::time::Duration;

/// The longest that Go's time.Duration holds.
pub(super) const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// Why a text is no duration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DurationError {
    Malformed,
    Negative,
    TooLong,
    NoUnit,
    Unit(String),
}

/// Go's time.ParseDuration: numbers with optional fractions, each followed by a unit; or `0`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = take_while(rest, |character| character.is_ascii_digit());
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => take_while(after, |character| character.is_ascii_digit()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Malformed);
        }
        let (unit, after) = take_while(after, |character| character != '.' && !character.is_ascii_digit());
        let scale: u128 = match unit {
            "" => return Err(DurationError::NoUnit),
            "ns" => 1,
            // Both letters that look like a small mu: U+00B5 and U+03BC.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::Unit(unit.to_owned())),
        };
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
        // Further digits are below a nanosecond whatever the unit.
        let fraction = fraction.get(..fraction.len().min(18)).unwrap_or_default();
        let fraction_scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
        let fraction: u128 =
            if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| DurationError::Malformed)? };
        let part = whole.checked_mul(scale).and_then(|part| part.checked_add(fraction * scale / fraction_scale));
        nanoseconds = part.and_then(|part| nanoseconds.checked_add(part)).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if is_negative {
        return Err(DurationError::Negative);
    }
    u64::try_from(nanoseconds)
        .ok()
        .map(Duration::from_nanos)
        .filter(|value| *value <= LONGEST)
        .ok_or(DurationError::TooLong)
}

fn take_while(text: &str, is_part: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !is_part(character)).unwrap_or(text.len()))
}

/// Prints a duration as a Corefile has it (`5m`).
pub(super) struct CorefileDuration(pub(super) Duration);

impl fmt::Display for CorefileDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.0.as_secs(), self.0.subsec_nanos());
        if seconds == 0 || nanoseconds != 0 {
            return if self.0.is_zero() { f.write_str("0s") } else { write!(f, "{:?}", self.0) };
        }
        for (count, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")] {
            if count != 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

/// Prints a duration as Go does (`5m0s`, `1.5s`, `20ms`).
pub(crate) struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let in_units = |per_unit: u32| self.0.as_nanos() as f64 / f64::from(per_unit);
        match nanoseconds {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => write!(f, "{}µs", in_units(1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", in_units(1_000_000)),
            _ => {
                let (hours, minutes, seconds) =
                    (self.0.as_secs() / 3600, self.0.as_secs() / 60 % 60, self.0.as_secs() % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{seconds}")?;
                match self.0.subsec_nanos() {
                    0 => {}
                    fraction => f.write_str(format!(".{fraction:09}").trim_end_matches('0'))?,
                }
                f.write_str("s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GoDuration;
    use std::time::Duration;

    #[test]
    fn durations_read_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (7, "7ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (300_000_000_000, "5m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(GoDuration(Duration::from_nanos(nanoseconds)).to_string(), text);
        }
    }
}
