//! What the log has been told of a setup that is tried again and again. Pure.

use std::collections::BTreeMap;

/// The last thing that was said of each matter.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<&'static str, String>);

impl Said {
    /// Whether `text` is to be said: something else was said last of this matter, or nothing.
    pub(super) fn is_news(&mut self, matter: &'static str, text: &str) -> bool {
        self.0.insert(matter, text.to_owned()).is_none_or(|last| last != text)
    }
}

#[cfg(test)]
mod tests {
    use super::Said;

    #[test]
    fn each_matter_is_told_of_once_and_again_when_it_changes() {
        let mut said = Said::default();
        let texts = ["iptables", "iptables", "nftables", "iptables"];
        assert_eq!(texts.map(|text| said.is_news("interception", text)), [true, false, true, true]);
        assert!(said.is_news("guard", "iptables"), "another matter");
    }
}
