//! Blocks of one zone, chosen by their views.

use super::*;
use crate::message::Response;

const OTHERS: [u8; 4] = [192, 168, 0, 1];

/// A block whose `hosts` has this address for names below `test.`.
fn block(key: &str, view: &str, address: &str) -> String {
    let view = if view.is_empty() { String::new() } else { format!(" view {address} {{\n expr {view}\n }}\n") };
    let names = if key == "b.test" { "a.b.test" } else { "a.test a.b.test" };
    format!("{key} {{\n bind 127.0.0.1\n{view} hosts {{\n {address} {names}\n }}\n}}\n")
}

/// The address in the reply to a client, its rcode if there is none, and whether it came from the packet cache.
async fn ask_from(
    listener: &Arc<Listener>,
    packets: &mut PacketCache,
    client: [u8; 4],
    wire: &[u8],
) -> (Result<std::net::Ipv4Addr, u16>, bool) {
    let mut out = Vec::new();
    let (peer, clock) = (Peer { client: (client, 4000).into(), ..peer() }, BatchClock::start(Instant::now()));
    let dispatch = listener.dispatch(Received { wire, peer: &peer, clock: &clock }, packets, &mut out);
    let is_hit = matches!(dispatch, Dispatch::PacketHit(_));
    if let Dispatch::Pending(pending) = dispatch {
        pending.run(&mut out).await;
    }
    let response = Response::read(&out).unwrap();
    let address = response.records().find_map(|record| <[u8; 4]>::try_from(record.rdata()).ok());
    (address.map(Into::into).ok_or_else(|| rcode(&out)), is_hit)
}

/// What clients of two networks get for a name.
async fn answers(text: &str, name: &str) -> [Result<String, u16>; 2] {
    let process = process();
    let plan = plan(text, &process);
    let mut packets = PacketCache::default();
    let mut found = Vec::new();
    for client in [[10, 0, 0, 1], OTHERS] {
        let (answer, _) = ask_from(&plan.listeners[0], &mut packets, client, &question(name)).await;
        found.push(answer.map(|address| address.to_string()));
    }
    found.try_into().unwrap()
}

fn found(first: &str, second: &str) -> [Result<String, u16>; 2] {
    [Ok(first.to_owned()), Ok(second.to_owned())]
}

const INNER: &str = "incidr(client_ip(), '10.0.0.0/8')";
const REFUSED: u16 = Rcode::REFUSED.0;

#[tokio::test]
async fn of_several_blocks_of_a_zone_the_first_whose_view_takes_the_query_has_it() {
    let text =
        block(".", INNER, "192.0.2.1") + &block(".", "type() == 'A'", "192.0.2.2") + &block(".", "", "192.0.2.3");
    assert_eq!(answers(&text, "a.test.").await, found("192.0.2.1", "192.0.2.2"));
    let text =
        block(".", INNER, "192.0.2.1") + &block(".", "type() == 'AAAA'", "192.0.2.2") + &block(".", "", "192.0.2.3");
    assert_eq!(answers(&text, "a.test.").await, found("192.0.2.1", "192.0.2.3"));
}

#[tokio::test]
async fn where_no_view_of_a_zone_takes_the_query_a_shorter_zone_is_asked_and_then_it_is_refused() {
    let text = block("b.test", INNER, "192.0.2.1") + &block("test", "", "192.0.2.2");
    assert_eq!(answers(&text, "a.b.test.").await, found("192.0.2.1", "192.0.2.2"));
    let text = block("test", INNER, "192.0.2.1");
    assert_eq!(answers(&text, "a.test.").await, [Ok("192.0.2.1".to_owned()), Err(REFUSED)]);
    let text = block("test", INNER, "192.0.2.1") + &block(".", "client_ip() == '192.168.0.1'", "192.0.2.2");
    assert_eq!(answers(&text, "a.test.").await, found("192.0.2.1", "192.0.2.2"));
}

#[tokio::test]
async fn a_ds_query_goes_to_the_first_block_that_takes_it_of_the_shortest_zone() {
    let process = process();
    let text = block("b.test", "", "192.0.2.1") + &block("test", INNER, "192.0.2.2") + &block("test", "", "192.0.2.3");
    let plan = plan(&text, &process);
    let wire = Query::compose(7, Name::parse("a.b.test.").unwrap().as_wire(), RecordType::DS, true);
    let query = Query::read(&wire).unwrap();
    let index = |client: [u8; 4]| {
        let peer = Peer { client: (client, 4000).into(), ..peer() };
        plan.listeners[0].choose(&query, &wire, &peer).map(|choice| choice.index)
    };
    assert_eq!((index([10, 0, 0, 1]), index(OTHERS)), (Some(1), Some(2)));
}

#[tokio::test]
async fn a_reply_that_was_chosen_by_who_asks_is_repeated_to_nobody() {
    /// Clients by turns, and how many of the replies came from the packet cache.
    async fn hits(text: &str) -> usize {
        let process = process();
        let plan = plan(text, &process);
        let mut packets = PacketCache::default();
        let mut hits = 0;
        for _ in 0..4 {
            for client in [[10, 0, 0, 1], OTHERS] {
                let (_, is_hit) = ask_from(&plan.listeners[0], &mut packets, client, &question("localhost.")).await;
                hits += usize::from(is_hit);
            }
        }
        hits
    }
    // `template` says of what is the same for a whole zone that it may be repeated.
    let of = |key: &str, view: &str| {
        format!("{key} {{\n bind 127.0.0.1\n{view} template IN A {{\n rcode NXDOMAIN\n }}\n}}\n")
    };
    let by_client = format!(" view inner {{\n expr {INNER}\n }}\n");
    let by_type = " view a {\n expr type() == 'A'\n }\n";
    let without = hits(&of(".", "")).await;
    assert!(without > 0, "without views replies are repeated");
    assert_eq!(hits(&(of(".", &by_client) + &of(".", ""))).await, 0);
    assert_eq!(hits(&(of(".", by_type) + &of(".", ""))).await, without, "what the packet cache knows is no hindrance");
    assert_eq!(
        hits(&(of(".", "") + &of("example.org", &by_client))).await,
        without,
        "nor are the views of other zones"
    );
    assert_eq!(hits(&(of("localhost", &by_client) + &of(".", ""))).await, 0, "but those of longer zones are");
}

#[tokio::test]
async fn whoever_is_asked_for_by_a_directive_is_chosen_by_the_clients_address() {
    let process = process();
    let text = "example {\n bind 127.0.0.1\n rewrite cname exact real.test a.test\n whoami\n}\n".to_owned()
        + &block("test", INNER, "192.0.2.1")
        + &block("test", "", "192.0.2.2");
    let plan = plan(&text, &process);
    let wire = question("a.test.");
    let query = Query::read(&wire).unwrap();
    for (client, expected) in [([10, 0, 0, 1], [192, 0, 2, 1]), (OTHERS, [192, 0, 2, 2])] {
        let peer = Peer { client: (client, 4000).into(), ..peer() };
        let request = Request {
            wire: &wire,
            query: &query,
            peer: &peer,
            server_index: 0,
            zone: 0,
            udp_cap: None,
            client_subnet: None,
            nsid: None,
            metadata: None,
            trail: None,
            options: None,
            received: Instant::now(),
            purpose: Purpose::Answer,
            is_cut_later: false,
        };
        let resolver: &dyn crate::chain::Resolver = &*plan.listeners[0];
        let answer = resolver.resolve(request).await.unwrap();
        let found = answer.response.records().any(|record| record.rdata() == expected);
        assert!(found, "{client:?}");
    }
}

#[tokio::test]
async fn each_view_has_its_own_series_and_its_own_cache() {
    let process = process();
    let block =
        |view: &str| format!(". {{\n bind 127.0.0.1\n{view} prometheus\n cache\n acl {{\n allow\n }}\n whoami\n}}\n");
    let text = block(&format!(" view inner {{\n expr {INNER}\n }}\n")) + &block("");
    let plan = plan(&text, &process);
    let mut packets = PacketCache::default();
    for client in [[10, 0, 0, 1], OTHERS, OTHERS] {
        _ = ask_from(&plan.listeners[0], &mut packets, client, &question("a.test.")).await;
    }
    let text = process.registry.encode();
    let server = "dns://127.0.0.1:53";
    for (view, count) in [("inner", 1), ("", 2)] {
        for series in [
            format!(
                "coredns_dns_requests_total{{family=\"1\",proto=\"udp\",server=\"{server}\",type=\"A\",view=\"{view}\",zone=\".\"}} {count}\n"
            ),
            format!("coredns_cache_misses_total{{server=\"{server}\",view=\"{view}\",zones=\".\"}} 1\n"),
            format!("coredns_cache_entries{{server=\"{server}\",type=\"success\",view=\"{view}\",zones=\".\"}} 1\n"),
            format!("coredns_acl_allowed_requests_total{{server=\"{server}\",view=\"{view}\"}} {count}\n"),
        ] {
            assert!(text.contains(&series), "{series}in {text}");
        }
    }
    let views: BTreeSet<&str> = plan.enabled.iter().map(|enabled| enabled.view.as_str()).collect();
    assert_eq!(views, BTreeSet::from(["", "inner"]));
    assert!(plan.enabled.iter().any(|enabled| enabled.keyword == "view"));
    assert_eq!(plan.summary, [". on 127.0.0.1:53 (UDP and TCP)"], "a zone is told once");
}

#[tokio::test]
async fn a_template_is_told_the_view_where_the_block_has_metadata() {
    let process = process();
    let text = |metadata: &str| {
        let answer = "answer \"{{ .Name }} 60 IN TXT \\\"<{{ .Meta `view/name` }}>\\\"\"";
        format!("test {{\n bind 127.0.0.1\n{metadata} view inner {{\n }}\n template IN TXT {{\n {answer}\n }}\n}}\n")
    };
    let wire = Query::compose(7, Name::parse("a.test.").unwrap().as_wire(), RecordType::TXT, true);
    for (metadata, expected) in [(" metadata\n", "<inner>"), (" metadata other\n", "<>"), ("", "<>")] {
        let plan = plan(&text(metadata), &process);
        let reply = ask(&plan.listeners[0], &wire).await;
        assert!(reply.ends_with(expected.as_bytes()), "{metadata}: {reply:?}");
    }
}

#[test]
fn blocks_with_views_may_share_a_zone_as_in_the_reference() {
    let text = |blocks: &[(&str, bool)]| {
        let block = |(bind, has_view): &(&str, bool)| {
            let view = if *has_view { " view v {\n expr true\n }\n" } else { "" };
            format!("a:53 {{\n{bind}\n{view} whoami\n}}\n")
        };
        blocks.iter().map(block).collect::<String>()
    };
    let (any, one, other) = ("", "bind 127.0.0.1", "bind 127.0.0.2");
    for blocks in [
        &[(any, true), (any, true), (any, false)][..],
        &[(one, true), (one, true)],
        &[(one, true), (one, false), (other, false)],
        &[(any, true), (one, true), (one, false)],
    ] {
        assert_eq!(refusal(&text(blocks)), "", "{blocks:?}");
    }
    let said = refusal(&text(&[(one, false), (one, true)]));
    assert!(said.starts_with("Corefile:5:1: warning: no query for `a.` on 127.0.0.1:53 comes to this block"), "{said}");
    assert!(said.contains("line 1 has the zone, without a view") && !said.contains("error"), "{said}");
    for blocks in
        [&[(one, true), (one, false), (one, false)][..], &[(any, false), (one, true)], &[(one, false), (any, true)]]
    {
        assert!(refusal(&text(blocks)).contains("error: zone `a.` is already served"), "{blocks:?}");
    }
    let twice = refusal("a:53 {\n view v {\n expr true\n }\n view w {\n }\n whoami\n}\n");
    assert!(twice.contains("`view` stands twice in one server block"), "{twice}");
}
