//! Whether a client takes compressed answers (RFC 9110 section 12.5.3), and the compression.

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, HeaderMap};
use std::io::Write;

/// Octets below which an answer fits in one packet however it is coded.
pub(super) const WORTHWHILE: usize = 1 << 10;

/// A content coding that answers are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// What a client takes that sent these headers. A name stands for itself before `*` does; `q=0` refuses it.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        let mut any = false;
        for choice in values.flat_map(|value| value.split(',')) {
            let mut parts = choice.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let is_taken = !parts.any(is_zero_weight);
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                return if is_taken { Self::Gzip } else { Self::Identity };
            }
            any |= coding == "*" && is_taken;
        }
        if any { Self::Gzip } else { Self::Identity }
    }
}

/// Whether a parameter is a weight of zero: `q=0`, `q=0.000`.
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, value)| value.trim().parse::<f32>().is_ok_and(|value| value <= 0.0))
}

/// The octets in gzip (RFC 1952), quickly rather than as short as can be: the processor is the one that answers
/// queries.
pub(super) fn compress(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(octets.len() / 8), Compression::fast());
    // Neither fails: memory takes everything.
    _ = encoder.write_all(octets);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Coding;
    use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};

    fn accepted(values: &[&'static str]) -> Coding {
        let headers = values.iter().map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
        Coding::accepted(&headers.collect::<HeaderMap>())
    }

    #[test]
    fn gzip_is_sent_to_whoever_takes_it() {
        for values in [
            &["gzip"][..],
            &["GZIP"],
            &["x-gzip"],
            &["deflate, gzip;q=1.0, *;q=0.5"],
            &["br", "zstd, gzip ; q=0.001"],
            &["*"],
            &["*;q=0, gzip"],
        ] {
            assert_eq!(accepted(values), Coding::Gzip, "{values:?}");
        }
    }

    #[test]
    fn plain_text_is_sent_to_everybody_else() {
        for values in [
            &[][..],
            &[""],
            &["identity"],
            &["br, deflate"],
            &["gzip;q=0"],
            &["gzip; Q=0.000, *"],
            &["*;q=0"],
            &["gzipped"],
            &[",;,"],
        ] {
            assert_eq!(accepted(values), Coding::Identity, "{values:?}");
        }
    }
}
