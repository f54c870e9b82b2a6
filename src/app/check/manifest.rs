//! The Corefiles of a manifest: in each ConfigMap, also of a List, the keys of its data that begin with `Corefile` and
//! those that end with `.server` (which `import` brings into a Corefile as server blocks).

use super::quoted::QuotedColumns;
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
    /// In double quotes in one line, after so many lines of the file.
    Quoted { before: u32, columns: QuotedColumns },
    /// In quotes otherwise, or folded: all of it stands where it begins.
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
            CorefilePosition::Quoted { before, columns } => {
                columns.in_file(Span { line: span.line.saturating_sub(*before), ..span })
            }
            CorefilePosition::At { line, column } => Span { line: *line, column: *column, length: 1, ..span },
        }
    }

    fn of_scalar(lines: &[&str], value: &str, style: ScalarStyle, start: Marker) -> Self {
        let literal = (style == ScalarStyle::Literal).then(|| literal_lines(lines, value, start)).flatten();
        let Some((before, indents)) = literal else {
            let (before, column) = (start.line().saturating_sub(1), to_u32(start.col()).saturating_add(1));
            let line = to_u32(start.line());
            let is_quoted = style == ScalarStyle::DoubleQuoted;
            let quoted = lines.get(before).filter(|_| is_quoted);
            let place = match quoted.and_then(|text| QuotedColumns::of(text, line, start.col(), value)) {
                Some(columns) => CorefilePosition::Quoted { before: to_u32(before), columns },
                None => CorefilePosition::At { line, column },
            };
            return Self { text: "\n".repeat(before) + value, place };
        };
        let columns = std::iter::repeat_n(0, before).chain(indents).collect();
        Self { text: "\n".repeat(before) + value, place: CorefilePosition::Indented(columns) }
    }
}

/// How many lines stand before a literal block, and its lines' indents. The parser says where the first line is that
/// is not empty or, of some, where the indicator `|` is; `None` if the block stands at neither as it is.
fn literal_lines(lines: &[&str], value: &str, start: Marker) -> Option<(usize, Vec<u32>)> {
    let empty_lines = value.bytes().take_while(|octet| *octet == b'\n').count();
    [start.line().saturating_sub(1).saturating_sub(empty_lines), start.line()]
        .into_iter()
        .find_map(|before| Some((before, indents(lines.get(before..)?, value)?)))
}

/// By how much each line of a literal block is indented; `None` if the block is not what `lines` begin with.
fn indents(lines: &[&str], value: &str) -> Option<Vec<u32>> {
    let mut written = lines.iter();
    let mut found = Vec::new();
    for line in value.lines() {
        let indent = written.next()?.trim_end_matches('\r').strip_suffix(line.trim_end_matches('\r'))?;
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
    let is_named =
        path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    let text = text.trim_start_matches('\u{feff}');
    let is_json = text.trim_start().starts_with('{') && text.contains("\"apiVersion\"");
    is_named || is_json || text.lines().any(|line| line.starts_with("apiVersion:"))
}

/// All Corefiles of a manifest, in their order: those of ConfigMaps, and of objects that do not say their kind (the
/// values of a chart). JSON is YAML.
///
/// # Errors
/// It is not YAML.
pub(super) fn corefiles(file: &str) -> Result<Vec<Embedded>, ManifestError> {
    let file = file.trim_start_matches('\u{feff}');
    let lines: Vec<&str> = file.lines().collect();
    let mut found = Found::default();
    for event in Parser::new_from_str(file) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            let (line, column) = (to_u32(at.line()), to_u32(at.col()).saturating_add(1));
            ManifestError { span: Span { file: FileId(0), line, column, length: 1 }, message: error.info().to_owned() }
        })?;
        match event {
            Event::MappingStart(..) => {
                let corefiles_before = found.corefiles.len();
                found.open.push(OpenNode::Mapping(Mapping { key: None, kind: None, corefiles_before }));
            }
            Event::SequenceStart(..) => found.open.push(OpenNode::Sequence),
            Event::MappingEnd | Event::SequenceEnd => found.close(),
            Event::Alias(_) => found.node_ends(""),
            Event::Scalar(value, style, ..) => {
                if found.is_data_of_corefile() {
                    found.corefiles.push((found.open.len(), Embedded::of_scalar(&lines, &value, style, span.start)));
                }
                found.node_ends(&value);
            }
            _ => {}
        }
    }
    Ok(found.corefiles.into_iter().map(|(_, embedded)| embedded).collect())
}

#[derive(Default)]
struct Found {
    /// Each with how many mappings and sequences were open around it.
    corefiles: Vec<(usize, Embedded)>,
    open: Vec<OpenNode>,
}

enum OpenNode {
    Mapping(Mapping),
    Sequence,
}

struct Mapping {
    /// Whose value comes next; `None` before a key.
    key: Option<String>,
    /// The value of `kind`.
    kind: Option<String>,
    /// How many Corefiles had been found when it began.
    corefiles_before: usize,
}

impl Found {
    /// A scalar, alias, mapping or sequence has been read: in a mapping, a key or a key's value.
    fn node_ends(&mut self, scalar: &str) {
        let Some(OpenNode::Mapping(mapping)) = self.open.last_mut() else { return };
        match mapping.key.take() {
            None => mapping.key = Some(scalar.to_owned()),
            Some(key) if key == "kind" => mapping.kind = Some(scalar.to_owned()),
            Some(_) => {}
        }
    }

    fn close(&mut self) {
        if let Some(OpenNode::Mapping(Mapping { kind: Some(kind), corefiles_before, .. })) = self.open.pop()
            && kind != "ConfigMap"
        {
            // What stands in its own `data` is two levels below what is around it; that of a List's objects is deeper.
            let own = self.open.len() + 2;
            let inside = self.corefiles.split_off(corefiles_before);
            self.corefiles.extend(inside.into_iter().filter(|(depth, _)| *depth != own));
        }
        self.node_ends("");
    }

    fn is_data_of_corefile(&self) -> bool {
        let [.., OpenNode::Mapping(object), OpenNode::Mapping(data)] = self.open.as_slice() else { return false };
        let is_data = object.key.as_deref() == Some("data");
        is_data && data.key.as_deref().is_some_and(|key| key.starts_with("Corefile") || key.ends_with(".server"))
    }
}
