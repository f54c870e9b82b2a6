//! Whether the Corefile, or a file that it imports or names as a certificate, is another one than before.

use crate::corefile::Sources;
use sha2::{Digest, Sha512};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A file that is a part of a configuration though it is no Corefile: of a certificate, a key or authorities.
pub(crate) struct FilePart {
    pub path: PathBuf,
    /// `None` if it could not be read.
    pub text: Option<String>,
}

/// SHA-512 over the path and the text of every file of a Corefile, in the order they were read, and of its other parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 64]);

impl Fingerprint {
    /// The name of the hash, for the `hash` label of `coredns_reload_version_info`.
    pub(crate) const HASH: &'static str = "sha512";

    /// Of everything that was read for one Corefile.
    pub(crate) fn of(sources: &Sources, parts: &[FilePart]) -> Self {
        let mut hash = Sha512::new();
        let mut feed = |octets: &[u8]| {
            // Lengths keep the end of one part and the start of the next apart.
            hash.update((octets.len() as u64).to_be_bytes());
            hash.update(octets);
        };
        for (path, text) in &sources.files {
            feed(path.as_os_str().as_bytes());
            feed(text.as_bytes());
        }
        for FilePart { path, text } in parts {
            feed(path.as_os_str().as_bytes());
            // One that is there and empty is another than one that is not there.
            feed(&[text.is_some().into()]);
            feed(text.as_deref().unwrap_or_default().as_bytes());
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Fingerprint {
    /// In hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", Self::HASH)
    }
}

/// Tells each change once, also one that turns out to be bad: a file that was refused is tried again once it is another
/// one, or is good after all.
pub(crate) struct ChangeDetector {
    seen: Fingerprint,
    is_refused: bool,
}

impl ChangeDetector {
    /// Starts with what is served.
    pub(crate) fn new(served: Fingerprint) -> Self {
        Self { seen: served, is_refused: false }
    }
    /// True if this differs from what was last told, or that was bad and this is good: what it lacked has come.
    pub(crate) fn is_changed(&mut self, now: Fingerprint, is_good: bool) -> bool {
        let is_changed = self.seen != now || self.is_refused && is_good;
        if is_changed {
            (self.seen, self.is_refused) = (now, !is_good);
        }
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::{ChangeDetector, FilePart, Fingerprint};
    use crate::corefile::Sources;

    fn of(files: &[(&str, &str)]) -> Fingerprint {
        of_all(files, &[])
    }

    fn of_all(files: &[(&str, &str)], parts: &[(&str, Option<&str>)]) -> Fingerprint {
        let files = files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        let part = |(path, text): &(&str, Option<&str>)| FilePart { path: path.into(), text: text.map(str::to_owned) };
        Fingerprint::of(&Sources { files }, &parts.iter().map(part).collect::<Vec<_>>())
    }

    #[test]
    fn it_prints_as_128_hexadecimal_digits() {
        let text = of(&[("Corefile", ".:53 { whoami }")]).to_string();
        assert_eq!(text.len(), 128);
        assert!(text.bytes().all(|octet| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet)), "{text}");
        // printf '\0\0\0\0\0\0\0\1C\0\0\0\0\0\0\0\2{}' | sha512sum
        assert!(of(&[("C", "{}")]).to_string().starts_with("cce916b947a1919cae26784ded515700"));
    }

    #[test]
    fn every_imported_file_counts() {
        let base = of(&[("Corefile", "import a b"), ("a", "cache"), ("b", "")]);
        assert_eq!(base, of(&[("Corefile", "import a b"), ("a", "cache"), ("b", "")]));
        for other in [
            of(&[("Corefile", "import a b"), ("a", "cache 30"), ("b", "")]),
            of(&[("Corefile", "import a b"), ("a", "cach"), ("b", "e")]),
            of(&[("Corefile", "import a b"), ("b", ""), ("a", "cache")]),
            of(&[("Corefile", "import a b"), ("a", "cache")]),
            of(&[("Corefile", "import a b "), ("a", "cache"), ("b", "")]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn every_certificate_counts_also_one_that_is_not_there() {
        let corefile = [("Corefile", "tls c k")];
        let with = |parts: &[(&str, Option<&str>)]| of_all(&corefile, parts);
        let all = [
            of(&corefile),
            with(&[("c", None), ("k", Some("1"))]),
            with(&[("c", Some("")), ("k", Some("1"))]),
            with(&[("c", Some("1")), ("k", Some("1"))]),
            with(&[("c", Some("1")), ("k", Some("2"))]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index}");
        }
        assert_eq!(all[4], with(&[("c", Some("1")), ("k", Some("2"))]));
    }

    #[test]
    fn a_change_is_told_once_even_if_it_was_bad() {
        let (good, bad) = (of(&[("Corefile", "good")]), of(&[("Corefile", "bad")]));
        let mut detector = ChangeDetector::new(good);
        assert!(!detector.is_changed(good, true));
        assert!(!detector.is_changed(good, false), "it serves");
        assert!(detector.is_changed(bad, false));
        assert!(!detector.is_changed(bad, false));
        assert!(detector.is_changed(bad, true), "what it lacked has come");
        assert!(!detector.is_changed(bad, true));
        assert!(detector.is_changed(good, true));
    }
}
