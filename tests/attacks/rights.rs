//! What a server that somebody has taken over could still do, as far as the kernel tells of it.

use crate::outcome::Outcome;
use crate::row::{Place, row_where};
use crate::scene::{Scene, Setup};
use crate::target::Program;

#[test]
#[ignore = "a row of make attacks"]
fn of_the_server() {
    row_where(Place::WithUsers, "rights::of_the_server", "a server that somebody has taken over: its rights", rights);
}

pub fn rights(program: Program) -> Outcome {
    let scene = Scene::start(program, Setup::default());
    let (mut outcome, ()) = scene.attack(|_| std::thread::sleep(std::time::Duration::from_secs(1)));
    let status = |field: &str| scene.target.status(field).unwrap_or_else(|| "unknown".to_owned());
    let (users, groups) = (status("Uid:"), status("Groups:"));
    outcome.tell(format!("uid {}", users.split_whitespace().collect::<Vec<_>>().join("/")));
    outcome.tell(format!("groups {}", if groups.is_empty() { "none" } else { &groups }));
    // A user namespace where this process is nobody else's root has no other user to be.
    if std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().nth(2) != Some("1")) {
        outcome.hold(users.split_whitespace().all(|user| user != "0"), "the server has a user of its own");
    }
    for (field, wanted) in
        [("NoNewPrivs:", "1"), ("Seccomp:", "2"), ("CapEff:", "0000000000000000"), ("CapPrm:", "0000000000000000")]
    {
        let found = status(field);
        outcome.tell(format!("{field} {}", found.trim_start_matches("000000000000")));
        outcome.hold(found == wanted, &format!("{field} {wanted}, not {found}"));
    }
    outcome
}
