//! What clients ask for, and what KubeDNS says to that.

use crate::support::upstream::{Reply, Rule};

/// Services, and as many names of the world.
const COUNT: usize = 150;

/// Of every second name, and of the others, in seconds.
const TTLS: [u32; 2] = [5, 30];

/// Of resolv.conf in a pod.
const SEARCH: [&str; 3] = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"];

/// No such name (RFC 1035 section 4.1.1).
const NXDOMAIN: u8 = 3;

/// One question.
#[derive(Clone, Debug)]
pub struct Name {
    pub name: String,
    pub is_ipv6: bool,
    /// The right answer's code.
    pub expected: u8,
}

/// What KubeDNS knows. It says NXDOMAIN of all else.
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for number in 0..COUNT {
        let ttl = TTLS[number % 2];
        for name in [service(number), world(number)] {
            for (rtype, address) in [("A", "10.96.7.7"), ("AAAA", "fd00::707")] {
                let answer = vec![format!("{name}. {ttl} IN {rtype} {address}")];
                let reply = Reply { answer, ..Reply::default() };
                rules.push(Rule { name: format!("{name}."), rtype: rtype.to_owned(), via: None, reply });
            }
        }
    }
    rules
}

/// Gives the questions of one look-up after the other.
pub fn picker(seed: u64) -> impl FnMut() -> Vec<Name> + Send + 'static {
    let mut random = fastrand::Rng::with_seed(seed);
    move || {
        // The logarithm of a name's rank is uniform: half as popular, twice as far down.
        let rank = (COUNT as f64).powf(random.f64()) as usize - 1;
        let mut names = Vec::new();
        if random.bool() {
            // Found at the first step of the search path.
            names.extend(pair(&service(rank), 0));
        } else {
            for suffix in SEARCH {
                names.extend(pair(&format!("{}.{suffix}", world(rank)), NXDOMAIN));
            }
            names.extend(pair(&world(rank), 0));
        }
        names
    }
}

fn pair(name: &str, expected: u8) -> [Name; 2] {
    [false, true].map(|is_ipv6| Name { name: name.to_owned(), is_ipv6, expected })
}

fn service(number: usize) -> String {
    format!("service-{number}.default.svc.cluster.local")
}

fn world(number: usize) -> String {
    format!("www-{number}.example.org")
}
