use super::{ProcessMetrics, Prometheus, parse, publish_enabled};
use crate::chain::testing::{Sample, configure, process, shared_answer};
use crate::chain::{BuildContext, Built, Enabled, Observer, Transport};
use crate::message::{Name, Rcode, RecordType};
use crate::metrics::{Registry, enter_worker_slot};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

fn address_of(lines: &str) -> Option<String> {
    let (block, diagnostics) = configure(parse, lines);
    assert_eq!(diagnostics, "");
    let part = block.parts.first()?;
    let configured = <dyn Any>::downcast_ref::<Prometheus>(&*part.configured).expect("a Prometheus part");
    Some(configured.address?.to_string())
}

#[test]
fn the_address_is_loopback_unless_written() {
    assert_eq!(address_of("prometheus").unwrap(), "127.0.0.1:9153");
    assert_eq!(address_of("prometheus 10.0.0.1:9253").unwrap(), "10.0.0.1:9253");
    assert_eq!(address_of("prometheus [::1]:9253").unwrap(), "[::1]:9253");
    assert_eq!(address_of("prometheus localhost:9253").unwrap(), "127.0.0.1:9253");
    assert!(address_of("prometheus :9253").unwrap().ends_with(":9253"));
}

#[test]
fn wrong_lines_are_told_where_they_stand() {
    for (lines, position, says) in [
        ("  prometheus :9153 :9154", "Corefile:2:20:", "`:9154` is too many"),
        ("  prometheus 9153", "Corefile:2:14:", "9153"),
        ("  prometheus {\n    tls /absent.yaml\n  }", "Corefile:3:9:", "/absent.yaml cannot be read"),
        ("  prometheus {\n    tls\n  }", "Corefile:3:5:", "tls FILE"),
        ("  prometheus {\n    tls a b\n  }", "Corefile:3:", "tls FILE"),
        ("  prometheus {\n    tls /absent\n    tls /absent\n  }", "Corefile:4:5:", "twice"),
        ("  prometheus {\n    runtime_metric\n  }", "Corefile:3:5:", "runtime_metrics"),
        ("  prometheus {\n    runtime_metrics all\n  }", "Corefile:3:", "runtime_metrics"),
    ] {
        let (_, diagnostics) = configure(parse, lines);
        assert!(diagnostics.contains(position) && diagnostics.contains(says), "{lines}\n{diagnostics}");
    }
}

#[test]
fn runtime_metrics_is_taken_with_a_warning() {
    let (block, diagnostics) = configure(parse, "  prometheus {\n    runtime_metrics\n  }");
    assert!(diagnostics.contains("Corefile:3:5:") && diagnostics.contains("no effect"), "{diagnostics}");
    assert_eq!(block.parts.len(), 1);
}

#[test]
fn an_address_where_nothing_can_be_served_is_a_warning_and_queries_are_counted() {
    let (block, said) = configure(parse, "prometheus :99999");
    assert!(said.starts_with("Corefile:2:12: warning: ") && said.contains("nothing is served"), "{said}");
    let configured = <dyn Any>::downcast_ref::<Prometheus>(&*block.parts[0].configured).expect("a Prometheus part");
    assert_eq!(configured, &Prometheus { address: None, tls: None });
}

const SERVERS: [&str; 2] = ["dns://127.0.0.1:53", "dns://[::1]:53"];

fn build() -> (Registry, Built) {
    let process = process();
    let (zone, servers) = (Name::parse("example.").unwrap(), SERVERS.map(str::to_owned));
    let context = BuildContext::new(std::slice::from_ref(&zone), &servers, &process);
    let (block, _) = configure(parse, "prometheus 127.0.0.1:9153");
    (process.registry.clone(), block.parts[0].configured.build(&context).unwrap())
}

fn observer() -> (Registry, Arc<dyn Observer>) {
    let (registry, built) = build();
    (registry, built.observer.unwrap())
}

fn lines(registry: &Registry, start: &str) -> Vec<String> {
    registry.encode().lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn requests_count_by_transport_family_and_monitored_type() {
    let (registry, observer) = observer();
    assert_eq!(lines(&registry, "coredns_dns_"), [""; 0], "a series is made when first seen");
    let mut sample = Sample::new("a.example.", RecordType::A);
    observer.observe(&sample.exchange());
    observer.observe(&sample.exchange());
    sample.peer.client = "[::ffff:10.0.0.1]:5000".parse().unwrap();
    observer.observe(&sample.exchange());
    sample.peer.client = "[2001:db8::1]:5000".parse().unwrap();
    (sample.peer.transport, sample.server) = (Transport::Tcp, 1);
    observer.observe(&sample.exchange());
    observer.observe(&Sample::new("a.example.", RecordType(65400)).exchange());
    observer.observe(&Sample::new("a.example.", RecordType(65)).exchange());
    observer.observe(&Sample::new("a.example.", RecordType(99)).exchange());
    assert_eq!(
        lines(&registry, "coredns_dns_requests_total{"),
        [
            r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://127.0.0.1:53",type="A",view="",zone="example."} 3"#,
            r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://127.0.0.1:53",type="HTTPS",view="",zone="example."} 1"#,
            r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://127.0.0.1:53",type="other",view="",zone="example."} 2"#,
            r#"coredns_dns_requests_total{family="2",proto="tcp",server="dns://[::1]:53",type="A",view="",zone="example."} 1"#,
        ]
    );
}

#[test]
fn monitored_types_carry_the_registrys_mnemonics() {
    for (number, label) in super::report::MONITORED_TYPES {
        assert_eq!(RecordType(number).to_string(), label);
    }
}

#[test]
fn responses_count_by_rcode_and_directive() {
    let (registry, observer) = observer();
    let mut sample = Sample::new("a.example.", RecordType::A);
    observer.observe(&sample.exchange());
    sample.answered_by = "cache";
    observer.observe(&sample.exchange());
    observer.observe(&sample.exchange());
    sample.rcode = Rcode::NXDOMAIN;
    observer.observe(&sample.exchange());
    // Has no row kept, and yet one series.
    sample.rcode = Rcode(4080);
    observer.observe(&sample.exchange());
    observer.observe(&sample.exchange());
    sample.fail("i/o timeout");
    observer.observe(&sample.exchange());
    let tail = r#"server="dns://127.0.0.1:53",view="",zone="example."}"#;
    assert_eq!(
        lines(&registry, "coredns_dns_responses_total{"),
        [
            format!(r#"coredns_dns_responses_total{{plugin="",rcode="SERVFAIL",{tail} 1"#),
            format!(r#"coredns_dns_responses_total{{plugin="cache",rcode="NOERROR",{tail} 2"#),
            format!(r#"coredns_dns_responses_total{{plugin="cache",rcode="NXDOMAIN",{tail} 1"#),
            format!(r#"coredns_dns_responses_total{{plugin="cache",rcode="RCODE4080",{tail} 2"#),
            format!(r#"coredns_dns_responses_total{{plugin="forward",rcode="NOERROR",{tail} 1"#),
        ]
    );
}

#[test]
fn durations_sizes_and_the_do_bit_are_recorded() {
    let (registry, observer) = observer();
    let mut sample = Sample::with_edns("a.example.", RecordType::A, Some((1232, true)));
    sample.elapsed = Duration::from_micros(500);
    observer.observe(&sample.exchange());
    let mut without = Sample::with_edns("a.example.", RecordType::A, Some((1232, false)));
    without.elapsed = Duration::from_secs(10);
    without.answer(0x8180, Rcode::NOERROR, &[(16, &[0; 200])], &[]);
    observer.observe(&without.exchange());
    let zone = r#"server="dns://127.0.0.1:53",view="",zone="example.""#;
    assert_eq!(
        lines(&registry, "coredns_dns_do_requests_total{"),
        [format!("coredns_dns_do_requests_total{{{zone}}} 1")]
    );
    let text = registry.encode();
    let (request, small, large) = (sample.wire.len(), sample.reply.len(), without.reply.len());
    for line in [
        format!(r#"coredns_dns_request_duration_seconds_bucket{{{zone},le="0.00025"}} 0"#),
        format!(r#"coredns_dns_request_duration_seconds_bucket{{{zone},le="0.0005"}} 1"#),
        format!(r#"coredns_dns_request_duration_seconds_bucket{{{zone},le="8.192"}} 1"#),
        format!(r#"coredns_dns_request_duration_seconds_bucket{{{zone},le="+Inf"}} 2"#),
        format!("coredns_dns_request_duration_seconds_sum{{{zone}}} 10.0005"),
        format!(r#"coredns_dns_request_size_bytes_sum{{proto="udp",{zone}}} {}"#, 2 * request),
        format!(r#"coredns_dns_request_size_bytes_bucket{{proto="udp",{zone},le="100"}} 2"#),
        format!(r#"coredns_dns_response_size_bytes_sum{{proto="udp",{zone}}} {}"#, small + large),
        format!(r#"coredns_dns_response_size_bytes_bucket{{proto="udp",{zone},le="200"}} 1"#),
        format!(r#"coredns_dns_response_size_bytes_bucket{{proto="udp",{zone},le="300"}} 2"#),
        format!(r#"coredns_dns_response_size_bytes_bucket{{proto="udp",{zone},le="64000"}} 2"#),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}\n{text}");
    }
}

#[test]
fn workers_that_see_a_series_first_at_once_count_into_one() {
    let (registry, observer) = observer();
    std::thread::scope(|scope| {
        for slot in 0..2 {
            let observer = &observer;
            scope.spawn(move || {
                enter_worker_slot(slot);
                let mut sample = Sample::new("a.example.", RecordType::A);
                for number in 0..200 {
                    sample.rcode = Rcode(number % 100);
                    observer.observe(&sample.exchange());
                }
            });
        }
    });
    let responses = lines(&registry, "coredns_dns_responses_total{");
    assert_eq!(responses.len(), 100);
    assert!(responses.iter().all(|line| line.ends_with(" 4")), "{responses:#?}");
    assert_eq!(lines(&registry, "coredns_dns_requests_total{").len(), 1);
}

#[test]
fn counting_goes_on_when_the_same_zone_is_built_again() {
    let process = process();
    let (zone, servers) = (Name::root(), ["dns://:53".to_owned()]);
    let context = BuildContext::new(std::slice::from_ref(&zone), &servers, &process);
    let (block, _) = configure(parse, "prometheus");
    let sample = Sample::new("a.example.", RecordType::A);
    for _ in 0..2 {
        block.parts[0].configured.build(&context).unwrap().observer.unwrap().observe(&sample.exchange());
    }
    assert_eq!(lines(&process.registry, "coredns_dns_do"), Vec::<String>::new());
    let counted = lines(&process.registry, "coredns_dns_requests_total{");
    assert!(counted.len() == 1 && counted[0].ends_with(r#"zone="."} 2"#), "{counted:?}");
}

#[test]
fn queries_of_no_block_count_under_a_zone_that_cannot_be() {
    let (registry, built) = build();
    let mut sample = Sample::new("a.example.", RecordType::A);
    (sample.rcode, sample.answered_by) = (Rcode::REFUSED, "");
    assert_eq!(built.unmatched.len(), SERVERS.len(), "one for each server");
    built.unmatched[0].observe(&sample.exchange());
    assert_eq!(
        lines(&registry, "coredns_dns_responses_total{"),
        [
            r#"coredns_dns_responses_total{plugin="",rcode="REFUSED",server="dns://127.0.0.1:53",view="",zone="dropped"} 1"#
        ]
    );
}

#[test]
fn zones_of_one_block_are_counted_apart() {
    let process = process();
    let zones = [Name::parse("a.").unwrap(), Name::parse("b.").unwrap()];
    let servers = SERVERS.map(str::to_owned);
    let context = BuildContext::new(&zones, &servers, &process);
    let observer = configure(parse, "prometheus").0.parts[0].configured.build(&context).unwrap().observer.unwrap();
    let sample = Sample::new("x.b.", RecordType::A);
    let mut exchange = sample.exchange();
    (exchange.request.server_index, exchange.request.zone) = (1, 1);
    observer.observe(&exchange);
    let counted = lines(&process.registry, "coredns_dns_requests_total{");
    assert!(
        counted.len() == 1 && counted[0].contains(SERVERS[1]) && counted[0].ends_with(r#"zone="b."} 1"#),
        "{counted:?}"
    );
}

#[test]
fn the_endpoint_shows_the_whole_registry() {
    let (registry, built) = build();
    registry.counter("coredns_other_total", "Another directive's.", &[]).increment();
    let endpoint = &built.endpoints[0];
    assert_eq!((endpoint.address.to_string().as_str(), endpoint.path), ("127.0.0.1:9153", "/metrics"));
    let answer = shared_answer(endpoint);
    assert_eq!((answer.status, answer.content_type), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("\ncoredns_other_total 1\n"), "{text}");
}

#[test]
fn the_process_tells_its_version_and_its_resources() {
    let registry = Registry::new(1);
    let _metrics = ProcessMetrics::register(&registry);
    let info = lines(&registry, "coredns_build_info");
    assert_eq!(info.len(), 1);
    assert!(info[0].contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{info:?}");
    assert_eq!(lines(&registry, "process_resident_memory_bytes ").len(), 1);
}

#[test]
fn enabled_directives_are_those_of_the_plan_that_serves() {
    let registry = Registry::new(1);
    let enabled = |server: &str, keyword| Enabled {
        server: server.to_owned(),
        zone: "example.".to_owned(),
        view: String::new(),
        keyword,
    };
    let [first, second] = SERVERS;
    let both = [first, second].map(|server| ["cache", "forward"].map(|keyword| enabled(server, keyword)));
    publish_enabled(&registry, &both.concat());
    assert_eq!(lines(&registry, "coredns_plugin_enabled{").len(), 4);
    publish_enabled(&registry, &[enabled(first, "forward")]);
    assert_eq!(
        lines(&registry, "coredns_plugin_enabled{"),
        [r#"coredns_plugin_enabled{name="forward",server="dns://127.0.0.1:53",view="",zone="example."} 1"#]
    );
}
