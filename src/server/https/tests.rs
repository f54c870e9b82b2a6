use super::*;

#[test]
fn a_uri_holds_one_message_in_base64url_without_padding() {
    assert_eq!(query_of_uri("dns=AAAB"), Some(vec![0, 0, 1]));
    assert_eq!(query_of_uri("a=b&dns=_-8&c"), Some(vec![0xff, 0xef]));
    assert_eq!(query_of_uri("dns="), Some(vec![]));
    for query in ["", "dns", "Dns=AAAB", "dns=AAAB&dns=AAAB", "dns=AAA=", "dns=A", "dns=+/8", "dns=%41AAB"] {
        assert_eq!(query_of_uri(query), None, "{query}");
    }
    let longest = BASE64URL_NOPAD.encode(&[0; MAX_QUERY]);
    assert_eq!(query_of_uri(&format!("dns={longest}")).map(|octets| octets.len()), Some(MAX_QUERY));
    assert_eq!(query_of_uri(&format!("dns={longest}AAAA")), None);
}

#[test]
fn what_is_too_short_or_a_response_asks_for_nothing() {
    assert!(is_request(&[0; 12]));
    assert!(!is_request(&[0; 11]));
    assert!(!is_request(&[0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

proptest::proptest! {
    #[test]
    fn any_uri_is_read_and_what_was_written_comes_back(uri in ".{0,200}", message in proptest::collection::vec(0_u8.., 0..600)) {
        _ = query_of_uri(&uri);
        let written = format!("{uri}&dns={}", BASE64URL_NOPAD.encode(&message));
        let expected = (!uri.split('&').any(|pair| pair.starts_with("dns="))).then_some(message);
        proptest::prop_assert_eq!(query_of_uri(&written), expected);
    }
}
