//! Weights of addresses, by name, as a file has them.

use crate::message::{LowerName, Name};
use std::collections::HashMap;
use std::net::IpAddr;

type Hasher = foldhash::fast::RandomState;

/// That of an address which the file does not name.
const DEFAULT_WEIGHT: u8 = 1;

/// Weights by name, in lower-case wire form, and address.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Weights(HashMap<Box<[u8]>, HashMap<IpAddr, u8, Hasher>, Hasher>);

/// What is wrong with a file, and in which line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub(super) struct WeightsError {
    line: usize,
    cause: WeightLineError,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WeightLineError {
    #[error("an address without its weight; write `ADDRESS WEIGHT`")]
    NoWeight,
    #[error("it is no domain name")]
    Name,
    #[error("it does not begin with an IP address")]
    Address,
    /// With the number, if it is one. Anything else is not shown: the file may be another than was meant, with secrets
    /// in it.
    #[error("the weight{0} is no number from 1 to 255")]
    Weight(String),
    #[error("no name stands before it whose address this is")]
    NoName,
    #[error("it is neither a name nor an address and its weight")]
    Words,
}

impl Weights {
    /// Reads a file: a line with a name, then one for each of its addresses with its weight; `#` begins a comment line.
    ///
    /// # Errors
    /// The first line that is neither.
    pub(super) fn read(text: &str) -> Result<Self, WeightsError> {
        let mut weights = Self::default();
        let mut current: Option<Box<[u8]>> = None;
        for (line, content) in (1..).zip(text.lines().map(str::trim)) {
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            weights.read_line(content, &mut current).map_err(|cause| WeightsError { line, cause })?;
        }
        Ok(weights)
    }

    fn read_line(&mut self, line: &str, current: &mut Option<Box<[u8]>>) -> Result<(), WeightLineError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name] if name.parse::<IpAddr>().is_ok() => Err(WeightLineError::NoWeight),
            [name] => {
                let name = Name::parse(name).map_err(|_| WeightLineError::Name)?.to_lower();
                *current = Some(name.as_wire().into());
                Ok(())
            }
            [address, weight] => {
                let address: IpAddr = address.parse().map_err(|_| WeightLineError::Address)?;
                let weight = weight.parse().ok().filter(|weight| *weight > 0).ok_or_else(|| {
                    let is_shown = weight.len() < 8 && weight.bytes().all(|octet| octet.is_ascii_digit());
                    WeightLineError::Weight(if is_shown { format!(" {weight}") } else { String::new() })
                })?;
                let name = current.clone().ok_or(WeightLineError::NoName)?;
                // The first weight of an address counts.
                self.0.entry(name).or_default().entry(address.to_canonical()).or_insert(weight);
                Ok(())
            }
            _ => Err(WeightLineError::Words),
        }
    }

    /// The place of the address that comes first this time, of so many: as often as its weight says. `below` gives a
    /// random number below its argument.
    pub(super) fn choose(
        &self,
        name: &LowerName,
        count: usize,
        address: impl Fn(usize) -> Option<IpAddr>,
        below: impl FnOnce(usize) -> usize,
    ) -> usize {
        let of_name = self.0.get(name.as_wire());
        let weight = |index: usize| {
            let weight = address(index).and_then(|address| of_name?.get(&address));
            usize::from(*weight.unwrap_or(&DEFAULT_WEIGHT))
        };
        let mut left = below((0..count).map(weight).sum());
        for index in 0..count {
            match left.checked_sub(weight(index)) {
                Some(more) => left = more,
                None => return index,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(name: &str) -> LowerName {
        Name::parse(name).unwrap().to_lower()
    }

    #[test]
    fn each_address_comes_first_as_often_as_its_weight_says() {
        let text =
            "# weights\n\n Multi.example\n192.0.2.1 3\n192.0.2.1 9\n 192.0.2.3\t2\nother.example.\n2001:db8::5 200\n";
        let weights = Weights::read(text).unwrap();
        let addresses: [IpAddr; 3] = [1, 2, 3].map(|last| [192, 0, 2, last].into());
        let chosen = |name: &str, number: usize| {
            let mut sum = 0;
            let below = |all| {
                sum = all;
                number
            };
            let place = weights.choose(&lower(name), 3, |index| addresses.get(index).copied(), below);
            (place, sum)
        };
        let places: Vec<usize> = (0..6).map(|number| chosen("multi.example.", number).0).collect();
        assert_eq!((places, chosen("multi.example.", 0).1), (vec![0, 0, 0, 1, 2, 2], 6));
        assert_eq!((chosen("unknown.", 2), chosen("unknown.", 7).0), ((2, 3), 0));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("a.example\n192.0.2.1", "line 2: an address without its weight; write `ADDRESS WEIGHT`"),
            ("a..example", "line 1: it is no domain name"),
            ("a.example\n\n192.0.2 1", "line 3: it does not begin with an IP address"),
            ("a.example\n192.0.2.1 0", "line 2: the weight 0 is no number from 1 to 255"),
            ("a.example\n192.0.2.1 256", "line 2: the weight 256 is no number from 1 to 255"),
            ("a.example\n192.0.2.1 secret", "line 2: the weight is no number from 1 to 255"),
            ("192.0.2.1 1", "line 1: no name stands before it whose address this is"),
            ("a.example\n192.0.2.1 1 #", "line 2: it is neither a name nor an address and its weight"),
        ] {
            assert_eq!(Weights::read(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert_eq!(Weights::read("# nothing\n\n"), Ok(Weights::default()));
    }
}
