//! `nodelocaldns check`: what is wrong with a Corefile, with a template of one before it is rendered, or with those of
//! a manifest.

mod manifest;
mod quoted;

use super::host::{ConfigurationSource, ThisHost};
use super::load::{CorefileSource, Examined, LoadError, Strictness, open_to_all};
use crate::corefile::{Diagnostics, FileId, Sources, Span};
use crate::kube_dns::render::StandIn;
use manifest::Embedded;
pub(super) use manifest::is_manifest;
use std::path::Path;

/// Checks one file: the text to print, and whether the file is good.
pub(super) fn check(path: &Path, default_port: u16, how: Strictness) -> (String, bool) {
    match CorefileSource::File(path.to_owned()).text(&ThisHost) {
        Ok(text) => check_text(path, &text, default_port, how, &ThisHost),
        Err(error @ (LoadError::Read { .. } | LoadError::Refused { .. })) => (format!("{error}\n"), false),
    }
}

fn check_text(
    path: &Path,
    text: &str,
    default_port: u16,
    how: Strictness,
    machine: &dyn ConfigurationSource,
) -> (String, bool) {
    if !manifest::is_manifest(path, text) {
        return check_embedded(path, text, &Embedded::whole(text), default_port, how, machine);
    }
    let refuse = |span: Option<Span>, message: String, help: &str| {
        let mut diagnostics = Diagnostics::default();
        let told = match span {
            Some(span) => diagnostics.error(span, message),
            None => diagnostics.error_without_span(message),
        };
        told.help(help);
        (diagnostics.render(&sources_of(path, text)), false)
    };
    let found = match manifest::corefiles(text) {
        Ok(found) => found,
        Err(error) => return refuse(Some(error.span), error.message, "a manifest is YAML"),
    };
    if found.is_empty() {
        let help = "a Corefile is checked by itself, or as the key `Corefile` of a ConfigMap's data";
        return refuse(None, "there is no Corefile in this manifest".to_owned(), help);
    }
    let mut all = (String::new(), true);
    for embedded in found {
        let (told, is_good) = check_embedded(path, text, &embedded, default_port, how, machine);
        all.0.push_str(&told);
        all.1 &= is_good;
    }
    all
}

/// Diagnostics point into the whole file.
fn check_embedded(
    path: &Path,
    file: &str,
    embedded: &Embedded,
    default_port: u16,
    how: Strictness,
    machine: &dyn ConfigurationSource,
) -> (String, bool) {
    let mut of_pillars = Diagnostics::default();
    let stand_in = StandIn::new(&embedded.text, &mut of_pillars);
    let Examined { corefile, config, mut diagnostics, .. } =
        Examined::new(path, &stand_in.text, default_port, machine, how);
    // What serves may be another machine, or a container with mounts of its own.
    diagnostics.excuse_machine();
    let is_here = |span: &Span| span.file == FileId(0);
    diagnostics.move_spans(|span| if is_here(&span) { stand_in.in_template(span) } else { span });
    diagnostics.extend(of_pillars);
    diagnostics.move_spans(|span| if is_here(&span) { embedded.in_file(span) } else { span });
    let mut sources = corefile.sources;
    if let Some((_, text)) = sources.files.first_mut() {
        *text = file.strip_prefix('\u{feff}').unwrap_or(file).into();
    }
    let is_good = !how.refuses(&diagnostics);
    let path = path.display();
    let mut told = match diagnostics.is_empty() {
        true => format!("{path}: good\n"),
        false => diagnostics.render(&sources),
    };
    if let Some(notice) = open_to_all(&config.on_all_addresses()).filter(|_| is_good) {
        told.push_str(&format!("{path}: note: {notice}\n"));
    }
    (told, is_good)
}

fn sources_of(path: &Path, text: &str) -> Sources {
    Sources { files: vec![(path.to_owned(), text.into())] }
}

#[cfg(test)]
mod tests {
    use super::super::host::ThisHost;
    use super::{Strictness, check_text};
    use std::path::Path;

    fn check(name: &str, text: &str) -> (String, bool) {
        check_text(Path::new(name), text, 53, Strictness::default(), &ThisHost)
    }

    #[test]
    fn pillars_of_a_template_are_known_words_and_places_are_the_templates() {
        let base = "__PILLAR__DNS__DOMAIN__:53 {\n    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n    forward . __PILLAR__CLUSTER__DNS__ {\n        force_tcp\n    }\n    prometheus __PROMETHEUS__ENDPOINT__\n    health __PILLAR__LOCAL__DNS__:8080\n}\n";
        let (told, is_good) = check("Corefile.base", base);
        assert!(is_good && told.starts_with("Corefile.base:1:1: warning: __PILLAR__DNS__DOMAIN__"), "{told}");
        assert_eq!(told.matches("warning").count(), 1, "{told}");
        let (told, is_good) = check(
            "base",
            ".:53 {\n bind __PILLAR__LOCAL__DNS__ 300.1.1.1\n forward . __PILLAR__CLUSTER__DNS__ nope/x __PILLAR__CLUSTRE__DNS__\n}\n",
        );
        assert!(!is_good);
        for place in ["base:2:30: error", "base:3:37: error", "base:3:44: error: __PILLAR__CLUSTRE__DNS__"] {
            assert!(told.contains(place), "{place}: {told}");
        }
        assert!(
            told.contains(
                "\n 2 |  bind __PILLAR__LOCAL__DNS__ 300.1.1.1\n   |                              ^^^^^^^^^\n"
            ),
            "{told}"
        );
    }

    #[test]
    fn diagnostics_of_a_manifest_point_into_the_yaml() {
        let yaml = "# of the node\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  Corefile: |\n    .:53 {\n        bind 127.0.0.1\n        forwrad . __PILLAR__CLUSTER__DNS__\n    }\n---\nkind: Service\n---\napiVersion: v1\nkind: ConfigMap\ndata:\n  Corefile: \"a:53 {\\n whoami\\n cahce\\n}\\n\"\n  other: x\n";
        let (told, is_good) = check("node.yaml", yaml);
        assert!(!is_good, "{told}");
        assert!(told.contains("node.yaml:10:9: error: unknown directive `forwrad`"), "{told}");
        assert!(told.contains("\n 10 |         forwrad . __PILLAR__CLUSTER__DNS__\n    |         ^^^^^^^\n"), "{told}");
        assert!(told.contains("node.yaml:18:32: error: unknown directive `cahce`"), "{told}");
        let good = yaml.replace("forwrad", "forward").replace("cahce", "cache");
        let (told, is_good) = check("node.yaml", &good);
        assert!(is_good && told.contains("node.yaml: good"), "{told}");
    }

    #[test]
    fn lines_that_messages_name_are_those_of_the_yaml() {
        let yaml = "apiVersion: v1\nkind: ConfigMap\ndata:\n  Corefile: |\n\n    .:53 {\n        bind 127.0.0.1\n        cache\n        cache\n    }\n";
        let (told, _) = check("x.yml", yaml);
        assert!(told.starts_with("x.yml:9:9: error: `cache` stands twice") && told.contains("line 8"), "{told}");
    }

    #[test]
    fn diagnostics_point_into_literal_blocks_with_anchors_tags_and_indicators_and_into_files_with_a_mark() {
        for head in ["|", "&a |", "!!str |", "|-", "|2", "&a !!str |+", "\n    |", "| # of the node"] {
            for mark in ["", "\u{feff}"] {
                let lines = head.matches('\n').count();
                let yaml =
                    format!("{mark}kind: ConfigMap\ndata:\n  Corefile: {head}\n    .:53 {{\n      cahce\n    }}\n");
                let (told, _) = check("x.yaml", &yaml);
                assert!(
                    told.starts_with(&format!("x.yaml:{}:7: error: unknown directive", 5 + lines)),
                    "{head}: {told}"
                );
            }
        }
    }

    #[test]
    fn only_data_of_config_maps_is_a_corefile() {
        let bad = "data:\n  Corefile: nonsense {\n";
        for (yaml, is_found) in [
            (format!("kind: Secret\n{bad}"), false),
            (format!("{bad}kind: Secret\nstringData:\n  Corefile: b {{\n"), false),
            (format!("{bad}kind: ConfigMap\n"), true),
            (bad.to_owned(), true),
            ("kind: List\nitems:\n- data: {Corefile: \"a {\"}\n  kind: ConfigMap\n".to_owned(), true),
            ("kind: List\nitems:\n- data: {Corefile: \"a {\"}\n  kind: Secret\n".to_owned(), false),
            ("? {a: b}\n: c\n? [d, e]\n: f\ndata: {x: y, Corefile: \"a {\"}\n".to_owned(), true),
            ("x: {data: {Corefile: a}}\n".to_owned(), true),
        ] {
            let (told, _) = check("x.yaml", &yaml);
            assert_eq!(!told.contains("there is no Corefile in this manifest"), is_found, "{yaml}: {told}");
        }
    }

    #[test]
    fn a_manifest_may_be_json() {
        let json = "{\n  \"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n  \"data\": {\"Corefile\": \".:53 {\\n cahce\\n}\"}\n}\n";
        for name in ["x.json", "x"] {
            let (told, is_good) = check(name, json);
            assert!(!is_good && told.starts_with(&format!("{name}:3:34: error: unknown directive `cahce`")), "{told}");
            assert!(told.contains("\n   |                                  ^^^^^\n"), "{told}");
        }
    }

    #[test]
    fn what_is_no_yaml_or_has_no_corefile_is_told() {
        let (told, is_good) = check("x.yaml", "apiVersion: v1\ndata: [\n");
        assert!(!is_good && told.starts_with("x.yaml:"), "{told}");
        let (told, is_good) = check("x.yaml", "apiVersion: v1\nkind: ConfigMap\ndata:\n  other: x\n");
        assert!(!is_good && told.contains("there is no Corefile in this manifest"), "{told}");
    }
}
