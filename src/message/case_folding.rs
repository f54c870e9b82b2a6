//! Lower-cases the owner names that a server repeats from a question whose letter case was drawn by chance (DNS 0x20).

use super::WireError;
use super::query::question_name_end;
use super::wire_reader::{HEADER_LENGTH, NameBudget, u16_at, walk_name_within};
use smallvec::SmallVec;
use std::ops::Range;

/// Writes in lower case, in an answer to a question whose letters have a case drawn by chance, the owner names that
/// servers make of the question's: its name and those above it. Other names stay as they are. What cannot be read is
/// left for [`super::Response::read`] to refuse.
pub(crate) fn lower_case_echoes(wire: &mut [u8]) {
    // How far it came does not matter.
    let _ = lower_case_owners(wire);
}

fn lower_case_owners(wire: &mut [u8]) -> Result<(), WireError> {
    let records = u32::from(u16_at(wire, 6)?) + u32::from(u16_at(wire, 8)?) + u32::from(u16_at(wire, 10)?);
    let name_end = question_name_end(wire)?;
    let question = wire.get(HEADER_LENGTH..name_end).unwrap_or_default().to_ascii_lowercase();
    let mut steps = NameBudget::of_message(wire.len());
    let mut at = name_end + 4;
    for _ in 0..records {
        let mut owner: SmallVec<[u8; 64]> = SmallVec::new();
        let mut runs: SmallVec<[Range<usize>; 4]> = SmallVec::new();
        let after = walk_name_within(wire, at, &mut steps, |labels| {
            owner.extend(wire.get(labels.clone()).unwrap_or_default().iter().map(u8::to_ascii_lowercase));
            runs.push(labels);
        })?;
        owner.push(0);
        if question.ends_with(&owner) {
            // Those before are the question's own, which a response keeps in lower case anyway.
            for run in runs.into_iter().filter(|run| run.start > name_end) {
                wire.get_mut(run).unwrap_or_default().make_ascii_lowercase();
            }
        }
        at = after + 10 + usize::from(u16_at(wire, after + 8)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{TO_QUESTION, answer, record};
    use super::super::header::QR;
    use super::super::{Response, Section};
    use super::*;
    use Section::{Answer, Authority};

    /// The answer to a question that was written `eXaMPle.`.
    fn to_mixed_case(records: &[(Section, Vec<u8>)]) -> Vec<u8> {
        let mut wire = answer(QR, records);
        wire[HEADER_LENGTH..HEADER_LENGTH + 9].copy_from_slice(b"\x07eXaMPle\0");
        wire
    }

    fn owners(mut wire: Vec<u8>) -> Vec<String> {
        lower_case_echoes(&mut wire);
        Response::read(&wire).unwrap().records().map(|record| record.owner().to_string()).collect()
    }

    #[test]
    fn owners_made_of_the_question_are_in_lower_case_and_others_as_they_came() {
        let wire = to_mixed_case(&[
            record(Answer, b"\x07eXaMPle\0", 5, 60, b"\x05OTHER\xc0\x0c"),
            record(Answer, b"\x05OTHER\x07eXaMPle\0", 1, 60, &[192, 0, 2, 1]),
            record(Answer, TO_QUESTION, 1, 60, &[192, 0, 2, 1]),
            record(Authority, b"\0", 2, 60, b"\x02NS\0"),
        ]);
        assert_eq!(owners(wire), ["example.", "OTHER.eXaMPle.", "example.", "."]);
    }

    #[test]
    fn whatever_the_octets_only_letters_change_and_only_their_case() {
        let whole = to_mixed_case(&[record(Answer, b"\x07eXaMPle\0", 5, 60, b"\x05OTHER\xc0\x0c")]);
        for at in 0..whole.len() {
            for octet in [0, 1, 12, 63, 64, 0xc0, 0xff] {
                let mut changed = whole.clone();
                changed[at] = octet;
                for length in [at, at + 1, changed.len()] {
                    let before = &changed[..length];
                    let mut after = before.to_vec();
                    lower_case_echoes(&mut after);
                    assert!(before.eq_ignore_ascii_case(&after));
                }
            }
        }
    }
}
