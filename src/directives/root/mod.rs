//! The `root` directive names the folder in which files are that other directives of the server block name without one;
//! see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

/// Reads one `root` of a server block. Of several the last counts.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    let Some((folder, more)) = directive.arguments.split_first() else {
        context
            .diagnostics
            .error(directive.keyword.span, "`root` has no value")
            .help("write `root FOLDER`, such as `root /etc/coredns`");
        return;
    };
    if let Some(extra) = more.first() {
        context.diagnostics.error(extra.span, "`root` takes one folder").help("write `root FOLDER`");
    }
    block.root = Some(folder.text.clone().into());
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;
    use std::path::Path;

    #[test]
    fn the_last_folder_counts() {
        let (block, said) = configure(parse, "root /etc/a\nroot b");
        assert_eq!((block.root.as_deref(), said.as_str()), (Some(Path::new("b")), ""));
    }

    #[test]
    fn none_and_two_folders_are_errors() {
        assert!(configure(parse, "root").1.contains("error: `root` has no value"));
        assert!(configure(parse, "root a b").1.contains("error: `root` takes one folder"));
    }
}
