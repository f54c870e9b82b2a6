//! A Markdown file as GitHub reads it.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::collections::BTreeSet;

/// What the tests look at.
#[derive(Debug, Default)]
pub struct Page {
    /// Of its headings.
    pub anchors: BTreeSet<String>,
    pub links: Vec<Link>,
    pub blocks: Vec<Block>,
    /// Code within lines.
    pub spans: Vec<Block>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub line: usize,
    pub target: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it begins.
    pub line: usize,
    /// Of its fence; empty where there is none.
    pub language: String,
    pub text: String,
}

impl Page {
    pub fn read(markdown: &str) -> Self {
        let mut page = Self::default();
        let (mut heading, mut block): (Option<String>, Option<Block>) = (None, None);
        for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
            let line = 1 + markdown[..range.start].matches('\n').count();
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take().map(|text| anchor(&text))),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { line, target: dest_url.into_string() });
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.trim().to_owned(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    block = Some(Block { line, language, text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Text(text) => {
                    block.iter_mut().for_each(|block| block.text += &text);
                    heading.iter_mut().for_each(|heading| heading.push_str(&text));
                }
                Event::Code(text) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&text));
                    page.spans.push(Block { line, language: String::new(), text: text.into_string() });
                }
                _ => {}
            }
        }
        page
    }
}

/// GitHub's anchor of a heading; scripts/site.py makes the same.
fn anchor(heading: &str) -> String {
    let kept =
        heading.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric() || "_- ".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn blocks_are_found_by_their_fence_and_line() {
    let text = "a\n```corefile\n. {\n}\n```\n```text\nno\n```\n\n- b\n\n  ```Corefile\n  x {\n  }\n  ```\n";
    let blocks = Page::read(text).blocks;
    let block = |line, language: &str, text: &str| Block { line, language: language.to_owned(), text: text.to_owned() };
    assert_eq!(blocks, [block(2, "corefile", ". {\n}\n"), block(6, "text", "no\n"), block(12, "Corefile", "x {\n}\n")]);
}

#[test]
fn headings_have_the_anchors_of_github() {
    let page = Page::read("# A, `b_c` & [d](e)\n\n## Was ist's?\n");
    assert_eq!(page.anchors, BTreeSet::from(["a-b_c--d".to_owned(), "was-ists".to_owned()]));
    assert_eq!(page.links, [Link { line: 1, target: "e".to_owned() }]);
}
