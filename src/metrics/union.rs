//! Two expositions in one: that of this process and that of another of the same program.

use std::cmp::Ordering;

/// What is in either of two expositions in text format, as [`super::Registry::encode`] writes them: families sorted by
/// name. A family that both have is `own`'s. `None` if `other` is not such a text, which a process at the other end of
/// a socket may say; linear in the length of both.
pub(crate) fn union(own: &str, other: &str) -> Option<String> {
    let theirs = families(other)?;
    // Ours is known to be whole.
    let ours = families(own).unwrap_or_default();
    let mut text = String::with_capacity(own.len() + other.len());
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Some(text),
        };
        let family = if order == Ordering::Greater { theirs.next() } else { ours.next() };
        if order == Ordering::Equal {
            theirs.next();
        }
        text.extend(family.map(|(_, family)| family));
    }
}

/// Each family's name and text. `None` if they are not whole and in order.
fn families(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut families: Vec<(&str, &str)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, _) = rest.strip_prefix("# HELP ")?.split_once(' ')?;
        let is_next = families.last().is_none_or(|(last, _)| *last < name);
        if !is_next || !is_name(name) {
            return None;
        }
        let end = family_length(rest, name)?;
        let (family, after) = rest.split_at(end);
        families.push((name, family));
        rest = after;
    }
    Some(families)
}

/// Octets of the family that a text begins with: its head and its samples.
fn family_length(text: &str, name: &str) -> Option<usize> {
    let mut lines = text.split_inclusive('\n');
    let help = lines.next()?;
    let kind = lines.next()?;
    let of_kind = kind.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' ')?;
    if !matches!(of_kind, "counter\n" | "gauge\n" | "histogram\n") {
        return None;
    }
    let samples = lines.take_while(|line| !line.starts_with('#'));
    let lengths = samples.map(|line| is_sample(line, name).then_some(line.len()));
    Some(help.len() + kind.len() + lengths.sum::<Option<usize>>()?)
}

/// Whether a line is a sample of the family.
fn is_sample(line: &str, name: &str) -> bool {
    let Some(line) = line.strip_suffix('\n') else { return false };
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let Some(after) = series.strip_prefix(name) else { return false };
    let suffixes = ["_bucket", "_sum", "_count"];
    let labels = suffixes.iter().find_map(|suffix| after.strip_prefix(suffix)).unwrap_or(after);
    let are_labels = labels.is_empty() || labels.starts_with('{') && labels.ends_with('}');
    are_labels && value.parse::<f64>().is_ok()
}

fn is_name(name: &str) -> bool {
    let is_first = |octet: u8| octet.is_ascii_alphabetic() || matches!(octet, b'_' | b':');
    name.bytes().next().is_some_and(is_first) && name.bytes().all(|octet| is_first(octet) || octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::union;
    use crate::metrics::{Registry, TIME_BUCKETS};
    use proptest::prelude::*;

    fn family(name: &str, value: u32) -> String {
        format!("# HELP {name} Of {name}.\n# TYPE {name} counter\n{name}{{a=\"b c\"}} {value}\n")
    }

    #[test]
    fn families_of_both_stand_in_order_and_those_that_both_have_are_the_own() {
        let own = family("b", 1) + &family("d", 1);
        let other = family("a", 2) + &family("b", 2) + &family("c", 2) + &family("e", 2);
        let both = family("a", 2) + &family("b", 1) + &family("c", 2) + &family("d", 1) + &family("e", 2);
        assert_eq!(union(&own, &other).as_deref(), Some(both.as_str()));
        assert_eq!(union(&own, "").as_deref(), Some(own.as_str()));
        assert_eq!(union("", &own).as_deref(), Some(own.as_str()));
    }

    #[test]
    fn what_registries_write_goes_together() {
        let registry = |name: &'static str| {
            let registry = Registry::new(1);
            registry.counter(name, "Counts \\ and\n\"so on\".", &[("label", "a\\ \"b\"\n{} #")]).increment();
            registry.gauge("shared", "Both have it.", &[]).set(f64::INFINITY);
            registry.histogram("times_seconds", "Times.", TIME_BUCKETS, &[]).observe(0.1);
            registry.encode()
        };
        let both = union(&registry("one_total"), &registry("other_total")).unwrap();
        let heads: Vec<&str> = both.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(
            heads,
            [
                "# TYPE one_total counter",
                "# TYPE other_total counter",
                "# TYPE shared gauge",
                "# TYPE times_seconds histogram"
            ]
        );
        assert!(both.contains("times_seconds_bucket{le=\"+Inf\"} 1\n") && both.contains("shared inf\n"), "{both}");
        assert_eq!(union(&both, &both).as_deref(), Some(both.as_str()));
    }

    #[test]
    fn what_is_no_exposition_is_not_taken() {
        let good = family("b", 1);
        for bad in [
            "x".to_owned(),
            good.trim_end().to_owned(),
            good.replace("counter", "summary"),
            good.replace("# TYPE b", "# TYPE a"),
            good.replace("# HELP b ", "# HELP b"),
            good.replace(" 1\n", " one\n"),
            good.replace("b{a", "c{a"),
            good.replace('}', ""),
            good.replace("# TYPE b counter\n", ""),
            good.clone() + &family("a", 1),
            good.clone() + &good,
            good.clone() + "\n",
            good.clone() + "# EOF\n",
            good.replace(" b", " 1b"),
        ] {
            assert_eq!(union(&family("z", 1), &bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_other_says_its_families_are_whole_or_left_out(
            cut in any::<prop::sample::Index>(),
            octet in "\\PC",
        ) {
            let own = family("b", 1);
            let other = family("a", 2) + &family("c", 3);
            let mut changed = other.clone();
            changed.insert_str(cut.index(other.len()), &octet);
            if let Some(both) = union(&own, &changed) {
                prop_assert!(both.contains(&own) && union(&both, &both).as_deref() == Some(both.as_str()), "{both}");
            }
        }
    }
}
