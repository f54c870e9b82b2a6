//! What a collector is told of a query: spans of Zipkin's API v2 in JSON (zipkin2-api.yaml of
//! github.com/openzipkin/zipkin-api). Pure.

use crate::chain::Span;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The span of the whole query, as the reference calls it.
const WHOLE: &str = "servedns";
/// Whom a query was spent on (OpenTracing's semantic conventions).
const PEER: &str = "peer.address";

/// A query that was traced, when it is over.
#[derive(Clone, Debug)]
pub(super) struct QueryTrace {
    pub trace_id: u64,
    /// When it was received, since the Unix epoch.
    pub start: Duration,
    pub duration: Duration,
    /// What it waited for, from `spans_start` on.
    pub spans: Vec<Span>,
    pub spans_start: Duration,
    pub name: String,
    pub qtype: String,
    pub rcode: String,
    pub proto: &'static str,
    pub remote: IpAddr,
    /// Why no directive could answer.
    pub error: Option<String>,
}

impl QueryTrace {
    /// Its spans, that of the whole query among them.
    pub(super) fn span_count(&self) -> usize {
        1 + self.spans.len()
    }
}

/// Who tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LocalEndpoint {
    service_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl LocalEndpoint {
    /// The service of this name, which listens there, if that is one address.
    pub(super) fn new(service_name: &str, listens: Option<SocketAddr>) -> Self {
        let address = listens.map(|listens| listens.ip().to_canonical());
        Self {
            service_name: service_name.to_owned(),
            ipv4: address.and_then(|address| if let IpAddr::V4(address) = address { Some(address) } else { None }),
            ipv6: address.and_then(|address| if let IpAddr::V6(address) = address { Some(address) } else { None }),
            port: listens.map(|listens| listens.port()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    /// Microseconds since the Unix epoch.
    timestamp: u64,
    /// Microseconds, at least one.
    duration: u64,
    local_endpoint: &'a LocalEndpoint,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation>,
}

#[derive(Serialize)]
struct Annotation {
    timestamp: u64,
    value: String,
}

/// The body of a request that tells of these. `next_id` gives IDs of spans that no other has.
pub(super) fn encode<'a>(
    traces: impl IntoIterator<Item = &'a QueryTrace>,
    local: &'a LocalEndpoint,
    mut next_id: impl FnMut() -> u64,
) -> Vec<u8> {
    let spans = traces.into_iter().flat_map(|trace| spans_of(trace, local, &mut next_id));
    let spans: Vec<ZipkinSpan<'_>> = spans.collect();
    // Nothing in it can fail to be written: its keys are texts.
    serde_json::to_vec(&spans).unwrap_or_default()
}

fn spans_of<'a>(
    trace: &'a QueryTrace,
    local: &'a LocalEndpoint,
    next_id: &mut impl FnMut() -> u64,
) -> Vec<ZipkinSpan<'a>> {
    let hex = |id: u64| format!("{id:016x}");
    let trace_id = hex(trace.trace_id);
    let mut tags: BTreeMap<&str, String> = [
        ("coredns.io/name", trace.name.clone()),
        ("coredns.io/type", trace.qtype.clone()),
        ("coredns.io/rcode", trace.rcode.clone()),
        ("coredns.io/proto", trace.proto.to_owned()),
        ("coredns.io/remote", trace.remote.to_canonical().to_string()),
    ]
    .into();
    let mut annotations = Vec::new();
    if let Some(error) = &trace.error {
        tags.insert("error", "true".to_owned());
        let timestamp = micros(trace.start + trace.duration);
        annotations.push(Annotation { timestamp, value: format!("event=error error={error}") });
    }
    let whole = ZipkinSpan {
        // The first span has the trace's ID, as zipkin-go's generator of 64-bit IDs does it.
        id: trace_id.clone(),
        trace_id: trace_id.clone(),
        parent_id: None,
        name: WHOLE,
        kind: Some("SERVER"),
        timestamp: micros(trace.start),
        duration: micros(trace.duration).max(1),
        local_endpoint: local,
        tags,
        annotations,
    };
    let ids: Vec<u64> = trace.spans.iter().map(|_| next_id()).collect();
    let parent = |span: &Span| span.parent.and_then(|index| ids.get(index)).copied().unwrap_or(trace.trace_id);
    let end = trace.start + trace.duration;
    let parts = trace.spans.iter().zip(&ids).map(|(span, id)| {
        let start = trace.spans_start + span.start;
        ZipkinSpan {
            trace_id: trace_id.clone(),
            id: hex(*id),
            parent_id: Some(hex(parent(span))),
            name: span.name,
            kind: None,
            timestamp: micros(start),
            duration: micros(span.duration.unwrap_or_else(|| end.saturating_sub(start))).max(1),
            local_endpoint: local,
            tags: span.peer.map(|peer| (PEER, peer.to_string())).into_iter().collect(),
            annotations: Vec::new(),
        }
    });
    std::iter::once(whole).chain(parts).collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_query_and_what_it_waited_for_are_spans_within_each_other() {
        let span = |name, parent, start, duration: Option<u64>, peer| Span {
            name,
            parent,
            start: Duration::from_micros(start),
            duration: duration.map(Duration::from_micros),
            peer,
        };
        let trace = QueryTrace {
            trace_id: 0xabc,
            start: Duration::from_micros(1_000_000),
            duration: Duration::from_micros(500),
            spans: vec![
                span("cache", None, 0, Some(400), None),
                span("connect", Some(0), 20, None, Some(([192, 0, 2, 1], 53).into())),
            ],
            spans_start: Duration::from_micros(1_000_010),
            name: "a.example.".to_owned(),
            qtype: "A".to_owned(),
            rcode: "SERVFAIL".to_owned(),
            proto: "udp",
            remote: [10, 0, 0, 1].into(),
            error: Some("plugin/forward: i/o timeout".to_owned()),
        };
        let local = LocalEndpoint::new("coredns", Some(([127, 0, 0, 1], 53).into()));
        let mut id = 0;
        let body = encode([&trace], &local, || {
            id += 1;
            id
        });
        let (trace_id, local) =
            ("0000000000000abc", json!({"serviceName": "coredns", "ipv4": "127.0.0.1", "port": 53}));
        let cause = "event=error error=plugin/forward: i/o timeout";
        let expected = json!([
            {
                "traceId": trace_id, "id": trace_id, "name": "servedns", "kind": "SERVER",
                "timestamp": 1_000_000, "duration": 500, "localEndpoint": local,
                "tags": {
                    "coredns.io/name": "a.example.", "coredns.io/type": "A", "coredns.io/rcode": "SERVFAIL",
                    "coredns.io/proto": "udp", "coredns.io/remote": "10.0.0.1", "error": "true",
                },
                "annotations": [{"timestamp": 1_000_500, "value": cause}],
            },
            {
                "traceId": trace_id, "id": "0000000000000001", "parentId": trace_id, "name": "cache",
                "timestamp": 1_000_010, "duration": 400, "localEndpoint": local,
            },
            {
                "traceId": trace_id, "id": "0000000000000002", "parentId": "0000000000000001", "name": "connect",
                "timestamp": 1_000_030, "duration": 470, "localEndpoint": local,
                "tags": {"peer.address": "192.0.2.1:53"},
            },
        ]);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
        assert_eq!(trace.span_count(), 3);
    }
}
