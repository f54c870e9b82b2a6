//! How many workers there are.

use super::super::as_many_as_can_be;

#[test]
fn fewer_workers_than_wanted_serve_and_none_is_an_error() {
    let with = |possible: usize| {
        as_many_as_can_be(
            4,
            |index| if index < possible { Ok(index) } else { Err(format!("no thread for worker {index}")) },
        )
    };
    assert_eq!(with(4).unwrap(), [0, 1, 2, 3]);
    assert_eq!(with(2).unwrap(), [0, 1]);
    assert_eq!(with(0).unwrap_err(), "no thread for worker 0");
}
