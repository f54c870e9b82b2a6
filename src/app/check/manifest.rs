//! The Corefiles of a manifest: in each ConfigMap, also of a List, the keys of its data that begin with `Corefile` and
//! those that end with `.server` (which `import` brings into a Corefile as server blocks).

use crate::corefile::{FileId, Span};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::path::Path;

/// A Corefile's text, with as many empty lines before it as stand before it in its file, so that its lines have the
/// file's numbers.
pub(super) struct Embedded {
    pub text: String,
    place: CorefilePosition,
}

enum CorefilePosition {
    /// Columns by which each line is moved to the right, from the file's first line on.
    Indented(Vec<u32>),
    /// In quotes or folded: all of it stands where it begins.
    At { line: u32, column: u32 },
}

/// Why a manifest cannot be read.
pub(super) struct ManifestError {
    pub span: Span,
    pub message: String,
}

impl Embedded {
    /// A file that is nothing but a Corefile.
    pub(super) fn whole(text: &str) -> Self {
        Self { text: text.to_owned(), place: CorefilePosition::Indented(Vec::new()) }
    }

    /// The place in the file of one in [`Embedded::text`].
    pub(super) fn in_file(&self, span: Span) -> Span {
        match &self.place {
            CorefilePosition::Indented(indents) => {
                let line = (span.line as usize).saturating_sub(1);
                Span { column: span.column.saturating_add(indents.get(line).copied().unwrap_or(0)), ..span }
            }
            CorefilePosition::At { line, column } => Span { line: *line, column: *column, length: 1, ..span },
        }
    }

    fn of_scalar(file: &str, value: &str, style: ScalarStyle, start: Marker) -> Self {
        let (line, column) = (start.line(), to_u32(start.col()).saturating_add(1));
        let at = CorefilePosition::At { line: to_u32(line), column };
        // A literal block begins, for the parser, at its first line that is not empty.
        let empty_lines =
            if style == ScalarStyle::Literal { value.bytes().take_while(|octet| *octet == b'\n').count() } else { 0 };
        let lines_before = line.saturating_sub(1).saturating_sub(empty_lines);
        let text = "\n".repeat(lines_before) + value;
        let place = match style {
            ScalarStyle::Literal => indents(file, value, lines_before).map_or(at, CorefilePosition::Indented),
            _ => at,
        };
        Self { text, place }
    }
}

/// By how much each line of a literal block is indented; `None` if the block does not stand below `before` lines as it
/// is.
fn indents(file: &str, value: &str, before: usize) -> Option<Vec<u32>> {
    let mut found = vec![0; before];
    for (line, written) in value.lines().zip(file.lines().skip(before)) {
        let indent = written.trim_end_matches('\r').strip_suffix(line.trim_end_matches('\r'))?;
        if !indent.chars().all(|character| character == ' ') {
            return None;
        }
        found.push(to_u32(indent.len()));
    }
    Some(found)
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// By its name, or since it says what version of an API it is for, which no line of a Corefile does.
pub(crate) fn is_manifest(path: &Path, text: &str) -> bool {
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    is_yaml || text.lines().any(|line| line.starts_with("apiVersion:"))
}

/// All Corefiles of a manifest, in their order.
///
/// # Errors
/// It is not YAML.
pub(super) fn corefiles(file: &str) -> Result<Vec<Embedded>, ManifestError> {
    let mut found = Vec::new();
    // What is open around an event: for each mapping the key whose value is read, for a sequence nothing.
    let mut open: Vec<OpenNode> = Vec::new();
    for event in Parser::new_from_str(file) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            let (line, column) = (to_u32(at.line()), to_u32(at.col()).saturating_add(1));
            ManifestError { span: Span { file: FileId(0), line, column, length: 1 }, message: error.info().to_owned() }
        })?;
        match event {
            Event::MappingStart(..) => open.push(OpenNode::Mapping { key: None }),
            Event::SequenceStart(..) => open.push(OpenNode::Sequence),
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                value_ends(&mut open);
            }
            Event::Alias(_) => value_ends(&mut open),
            Event::Scalar(value, style, ..) => {
                let is_value = match open.last_mut() {
                    Some(OpenNode::Mapping { key: key @ None }) => {
                        *key = Some(value.clone().into_owned());
                        continue;
                    }
                    Some(OpenNode::Mapping { key: Some(key) }) => is_corefile(key) && is_data(&open),
                    _ => false,
                };
                if is_value {
                    found.push(Embedded::of_scalar(file, &value, style, span.start));
                }
                value_ends(&mut open);
            }
            _ => {}
        }
    }
    Ok(found)
}

enum OpenNode {
    Mapping { key: Option<String> },
    Sequence,
}

/// After a value a key comes.
fn value_ends(open: &mut [OpenNode]) {
    if let Some(OpenNode::Mapping { key }) = open.last_mut() {
        *key = None;
    }
}

fn is_corefile(key: &str) -> bool {
    key.starts_with("Corefile") || key.ends_with(".server")
}

/// Whether the innermost mapping is the value of `data`.
fn is_data(open: &[OpenNode]) -> bool {
    matches!(open, [.., OpenNode::Mapping { key: Some(key) }, OpenNode::Mapping { .. }] if key == "data")
}
