//! The `nsid` directive tells a client that asks for it which server answers (RFC 5001); see README.md beside this
//! file.

use crate::chain::{BlockConfig, ParseContext, host_name};
use crate::corefile::{Directive, value};
use crate::message::ReplyOptions;

/// Reads one `nsid` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    let words: Vec<&str> = directive.arguments.iter().map(|word| word.text.as_str()).collect();
    let name = match words.as_slice() {
        [] => host_name(),
        words => words.join(" "),
    };
    if name.len() > ReplyOptions::LONGEST_NSID {
        context
            .diagnostics
            .warning(
                directive.keyword.span,
                format!("clients are told the first {} octets of this name", ReplyOptions::LONGEST_NSID),
            )
            .help("write a shorter one, so that no two servers are called the same");
    }
    block.nsid = Some(name.into_bytes().into());
}

/// What it does with a query, in a line.
pub(super) fn explain(block: &BlockConfig) -> Option<String> {
    let name = block.nsid.as_ref()?;
    Some(format!("a client that asks which server this is gets {:?}", String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    fn name(text: &str) -> (String, String) {
        let (block, said) = configure(parse, text);
        (String::from_utf8(block.nsid.unwrap_or_default().to_vec()).unwrap(), said)
    }

    #[test]
    fn the_name_is_what_is_written_or_that_of_the_host() {
        assert_eq!(name("nsid node-7"), ("node-7".to_owned(), String::new()));
        assert_eq!(name("nsid two words"), ("two words".to_owned(), String::new()));
        let (of_host, said) = name("nsid");
        assert_eq!((of_host.as_str(), said.as_str()), (rustix::system::uname().nodename().to_str().unwrap(), ""));
    }

    #[test]
    fn a_name_that_is_too_long_is_a_warning_and_a_block_an_error() {
        let (_, said) = name(&format!("nsid {}", "x".repeat(129)));
        assert!(said.contains("warning: clients are told the first 128 octets"), "{said}");
        assert!(name("nsid a {\n x\n}").1.contains("error: `nsid` takes no block"));
    }
}
