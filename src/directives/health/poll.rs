//! Asks our own health path once a second, so that a process that is too busy to answer shows in its metrics.

use crate::metrics::{Counter, Histogram, HistogramBuckets, Registry};
use crate::net::{http_client, reachable_address};
use hyper::StatusCode;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// The reference's plugin.SlimTimeBuckets: 0.00025 s × 10ⁿ, n = 0 to 4.
const BUCKETS: HistogramBuckets = HistogramBuckets(&[0.00025, 0.0025, 0.025, 0.25, 2.5]);
const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
/// A local answer that takes longer is worth a line.
const SLOW: Duration = Duration::from_secs(1);

/// What the polls are counted in.
pub(super) struct PollMetrics {
    duration: Histogram,
    failures: Counter,
}

impl PollMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            duration: registry.histogram(
                "coredns_health_request_duration_seconds",
                "Time our own request to the health path took, in seconds.",
                BUCKETS,
                &[],
            ),
            failures: registry.counter(
                "coredns_health_request_failures_total",
                "Requests of our own to the health path that failed.",
                &[],
            ),
        }
    }
}

/// Asks every second and counts, until it is dropped.
pub(super) async fn poll_forever(listener: SocketAddr, path: &'static str, series: PollMetrics) {
    let address = reachable_address(listener, false);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and the listener may not serve yet.
    ticks.tick().await;
    let mut before = None;
    loop {
        ticks.tick().await;
        let failure = poll(address, path, &series).await;
        match &failure {
            // Once, since it may be so for long: where the address cannot be listened on, say.
            Some(why) if failure != before => {
                tracing::warn!("health: our own request to http://{address}{path} failed: {why}")
            }
            None if before.is_some() => {
                tracing::info!("health: our own request to http://{address}{path} is answered again")
            }
            _ => {}
        }
        before = failure;
    }
}

/// Asks once and counts. Returns why it failed, if it did.
async fn poll(address: SocketAddr, path: &str, series: &PollMetrics) -> Option<String> {
    let start = Instant::now();
    let outcome = timeout(PATIENCE, http_client::get_status(address, path)).await;
    let elapsed = start.elapsed();
    series.duration.observe(elapsed.as_secs_f64());
    let failure = match outcome {
        Ok(Ok(StatusCode::OK)) => None,
        Ok(Ok(status)) => Some(format!("answered {status}")),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer in {} s", PATIENCE.as_secs())),
    };
    if failure.is_some() {
        series.failures.increment();
    } else if elapsed > SLOW {
        tracing::warn!(
            "health: our own request to http://{address}{path} took {elapsed:?}: the process or its node is overloaded"
        );
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::{PollMetrics, poll};
    use crate::metrics::Registry;
    use crate::net::http_client::tests::serve;
    use tokio::net::TcpListener;

    async fn counted(answer: Option<&str>) -> (String, String) {
        let registry = Registry::new(2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let series = PollMetrics::new(&registry);
        let request = if let Some(answer) = answer {
            tokio::join!(poll(address, "/health", &series), serve(listener, answer)).1
        } else {
            drop(listener);
            poll(address, "/health", &series).await;
            String::new()
        };
        (request, registry.encode())
    }

    #[tokio::test]
    async fn an_answer_is_counted_and_no_failure() {
        let (request, text) =
            counted(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nOK")).await;
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(text.contains("coredns_health_request_duration_seconds_count 1\n"), "{text}");
        assert!(text.contains("coredns_health_request_duration_seconds_bucket{le=\"0.00025\"}"), "{text}");
        assert!(text.contains("coredns_health_request_duration_seconds_bucket{le=\"2.5\"}"), "{text}");
        assert!(text.contains("coredns_health_request_failures_total 0\n"), "{text}");
    }

    #[tokio::test]
    async fn another_status_nonsense_and_a_closed_port_are_failures() {
        for answer in [
            Some("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
            Some("nonsense\r\n\r\n"),
            Some(""),
            None,
        ] {
            let (_, text) = counted(answer).await;
            assert!(text.contains("coredns_health_request_failures_total 1\n"), "{answer:?}: {text}");
            assert!(text.contains("coredns_health_request_duration_seconds_count 1\n"), "{answer:?}: {text}");
        }
    }
}
