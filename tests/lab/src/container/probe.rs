//! A probe over HTTP, as kubelet makes it.

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::time::{Duration, Instant};

/// Asked again and again; what comes of it.
pub struct Prober {
    url: String,
    period: Duration,
    timeout: u64,
    failures: i32,
    successes: i32,
    next: Instant,
    /// Equal outcomes in a row: how many, and which.
    row: (i32, bool),
}

/// API's defaults, in seconds and times (docs of `v1.Probe`).
const PERIOD: i32 = 10;
const TIMEOUT: i32 = 1;
const FAILURES: i32 = 3;
const SUCCESSES: i32 = 1;

impl Prober {
    /// For a container that has just started. With `hurry` time runs so many times faster.
    pub fn new(probe: &Probe, hurry: u32) -> Self {
        let asked = probe.http_get.as_ref().expect("a probe over HTTP: others are another translation");
        let IntOrString::Int(port) = &asked.port else { panic!("a port by its name is another translation") };
        let host = asked.host.as_deref().expect("the host's network has no address of the pod's");
        let path = asked.path.as_deref().unwrap_or("/");
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).expect("a time from 0 on")) / hurry;
        let delay = seconds(probe.initial_delay_seconds.unwrap_or(0));
        Self {
            url: format!("http://{host}:{port}/{}", path.trim_start_matches('/')),
            period: seconds(probe.period_seconds.unwrap_or(PERIOD)),
            timeout: u64::try_from(probe.timeout_seconds.unwrap_or(TIMEOUT)).expect("a time from 0 on"),
            failures: probe.failure_threshold.unwrap_or(FAILURES),
            successes: probe.success_threshold.unwrap_or(SUCCESSES),
            next: Instant::now() + delay,
            row: (0, false),
        }
    }

    /// Asks if it is time to; whether that settles that the probe succeeds or fails.
    pub fn poll(&mut self) -> Option<bool> {
        if Instant::now() < self.next {
            return None;
        }
        self.next = Instant::now() + self.period;
        let answer =
            minreq::get(&self.url).with_timeout(self.timeout).with_header("User-Agent", "kube-probe/1.35").send();
        self.count(answer.is_ok_and(|answer| (200..400).contains(&answer.status_code)))
    }

    fn count(&mut self, is_good: bool) -> Option<bool> {
        let before = if self.row.1 == is_good { self.row.0 } else { 0 };
        self.row = (before + 1, is_good);
        let wanted = if is_good { self.successes } else { self.failures };
        (self.row.0 >= wanted).then_some(is_good)
    }
}

#[cfg(test)]
mod tests {
    use super::Prober;
    use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let http_get =
            HTTPGetAction { host: Some("::1".to_owned()), port: IntOrString::Int(1), ..HTTPGetAction::default() };
        let mut prober = Prober::new(&Probe { http_get: Some(http_get), ..Probe::default() }, 1);
        let outcomes = [false, false, true, false, false, false, false].map(|is_good| prober.count(is_good));
        assert_eq!(outcomes, [None, None, Some(true), None, None, Some(false), Some(false)]);
    }
}
