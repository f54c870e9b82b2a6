//! The page that shows the status in a browser. It is served as it stands in `page.html`, which asks for
//! `/status.json` and for nothing else.

use crate::chain::Document;

/// Its style and its script are allowed by what they hold, and nothing else is.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-og8OTYF/nt+i89TJWoqLYwKjWd7GytX7/ypMjWRkXbI='; \
    style-src 'sha256-tG+udw7Lx/hvxurNj7pJlhNX0qEjqkHJwTJ/kQOn5Rs='; \
    connect-src 'self'; \
    img-src data:; \
    base-uri 'none'; \
    form-action 'none'; \
    frame-ancestors 'none'";

/// `/` of the metrics' address.
pub(in crate::watchdog) static PAGE: Document = Document {
    headers: &[
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        // The next version's script has another hash.
        ("cache-control", "no-store"),
    ],
    body: include_str!("page.html"),
};

#[cfg(test)]
mod tests {
    use super::PAGE;
    use data_encoding::BASE64;
    use sha2::{Digest, Sha256};

    /// What stands between the only such tags.
    fn within(tag: &str) -> &'static str {
        let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!([PAGE.body.matches(&start).count(), PAGE.body.matches(&end).count()], [1, 1], "{tag}");
        PAGE.body.split_once(&start).and_then(|(_, rest)| rest.split_once(&end)).unwrap().0
    }

    #[test]
    fn style_and_script_are_those_of_the_policy() {
        let policy = PAGE.headers.iter().find(|(name, _)| *name == "content-security-policy").unwrap().1;
        for tag in ["script", "style"] {
            let wanted = format!("{tag}-src 'sha256-{}';", BASE64.encode(&Sha256::digest(within(tag))));
            assert!(policy.contains(&wanted), "page.html has changed: write {wanted} into page.rs, not {policy}");
        }
    }

    #[test]
    fn the_page_is_small_and_makes_no_markup_of_texts() {
        assert!(PAGE.body.len() < 16 << 10, "{} octets", PAGE.body.len());
        for means in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://127", "src="] {
            assert!(!PAGE.body.contains(means), "{means}");
        }
    }
}
