//! Counts the work done on messages, where debug assertions are on: tests and fuzz targets assert on it, as they must
//! not on time.

#[cfg(debug_assertions)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Notes one step: a label or pointer followed, a name looked up, a record looked at.
#[inline(always)]
pub fn count() {
    #[cfg(debug_assertions)]
    STEPS.set(STEPS.get() + 1);
}

/// What `work` gives, and the steps that it took on this thread; none where they are not counted.
pub fn of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = taken();
    let result = work();
    (result, taken() - before)
}

#[cfg(debug_assertions)]
fn taken() -> usize {
    STEPS.get()
}

#[cfg(not(debug_assertions))]
fn taken() -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::super::{Response, hostile};

    /// Labels, pointers and names that may be looked at for each octet of an answer.
    const STEPS_PER_OCTET: usize = 8;

    #[test]
    fn reading_an_answer_takes_steps_in_proportion_to_its_octets_whatever_it_holds() {
        for hostile::Hostile { kind, wire } in hostile::answers() {
            let (read, steps) = super::of(|| Response::read(&wire));
            assert!(wire.len() > 57_000, "{kind}: {} octets", wire.len());
            assert!(steps <= STEPS_PER_OCTET * wire.len(), "{kind}: {steps} steps, {read:?}");
        }
    }
}
