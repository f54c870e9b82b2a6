//! What directives know of one request beside its answer, for the log (CoreDNS plugin/metadata).

use parking_lot::Mutex;
use smallvec::SmallVec;

/// The labels of one request and their values. A request has it only in a block with the directive `metadata`.
#[derive(Default)]
pub struct Metadata(Mutex<SmallVec<[(&'static str, String); 1]>>);

impl Metadata {
    /// Sets the value of `label`, such as `forward/upstream`, in place of the one that it had.
    pub fn set(&self, label: &'static str, value: String) {
        let mut labels = self.0.lock();
        match labels.iter_mut().find(|(known, _)| *known == label) {
            Some((_, former)) => *former = value,
            None => labels.push((label, value)),
        }
    }

    /// The value of `label`; `None` if no directive has set it.
    pub fn get(&self, label: &str) -> Option<String> {
        self.0.lock().iter().find(|(known, _)| *known == label).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::Metadata;

    #[test]
    fn a_label_has_the_value_that_was_set_last() {
        let metadata = Metadata::default();
        assert_eq!(metadata.get("a/b"), None);
        metadata.set("a/b", "1".to_owned());
        metadata.set("a/c", "2".to_owned());
        metadata.set("a/b", "3".to_owned());
        assert_eq!(["a/b", "a/c"].map(|label| metadata.get(label)), [Some("3".to_owned()), Some("2".to_owned())]);
    }
}
