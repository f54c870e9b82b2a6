//! `make bench-instructions`: instructions of a hit, counted by valgrind's callgrind and held against
//! benches/baseline.json.

use crate::hit_path::COUNTED;
use crate::hits::{HITS, Kind};
use crate::process::find;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Under version control beside the bench.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");
/// By how much a count may rise: more than a compiler's whims within one toolchain, less than a careless line on the
/// path of a hit.
const MOST_RISE: f64 = 0.03;
/// The same where compiler, valgrind or processor are others than the baseline's.
const MOST_RISE_ELSEWHERE: f64 = 0.15;

/// What counts depend on beside our code.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Toolchain {
    rustc: String,
    valgrind: String,
    architecture: String,
    /// Whether the C library's string functions use AVX2, as valgrind has it on processors that do.
    avx2: bool,
}

/// Instructions of one hit, release profile.
#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    toolchain: Toolchain,
    instructions_per_hit: BTreeMap<Kind, f64>,
}

/// Counts, and prints beside the baseline or, with `update`, makes that the baseline. Fails if a count has risen too
/// far.
pub fn run(folder: &Path, update: bool) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut counted = Counts { toolchain: toolchain()?, instructions_per_hit: BTreeMap::new() };
    for kind in Kind::value_variants() {
        let count = count(folder, *kind).with_context(|| format!("counting the instructions of {kind:?}"))?;
        counted.instructions_per_hit.insert(*kind, (count as f64 / HITS as f64 * 10.0).round() / 10.0);
    }
    if update {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        fs::write(BASELINE, &text).with_context(|| format!("cannot write {BASELINE}"))?;
        print!("{text}");
        return Ok(());
    }
    let text = fs::read_to_string(BASELINE).with_context(|| format!("cannot read {BASELINE}"))?;
    let baseline =
        serde_json::from_str(&text).with_context(|| format!("{BASELINE} is not as this program writes it"))?;
    let (report, is_good) = compare(&baseline, &counted);
    print!("{report}");
    ensure!(
        is_good,
        "a hit takes more instructions than before, or than it may beside a plain one; if the former is meant: \
         make bench-instructions BENCH=--update"
    );
    Ok(())
}

/// Runs this program as the hit path under callgrind.
fn count(folder: &Path, kind: Kind) -> Result<u64> {
    let name = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut command = Command::new(valgrind()?);
    command.args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")]);
    command.arg(format!("--callgrind-out-file={}", folder.join(format!("callgrind.{name}")).display()));
    command.arg(std::env::current_exe()?).args(["hit-path", &name]);
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(0) => bail!("valgrind has not found the function {COUNTED} in this program"),
        Some(collected) => Ok(collected),
        None => bail!("valgrind does not say what it has collected:\n{text}"),
    }
}

fn valgrind() -> Result<std::path::PathBuf> {
    find("valgrind").context("valgrind is not installed: run scripts/install-test-deps (Debian's package valgrind)")
}

fn toolchain() -> Result<Toolchain> {
    let first_line = |program: &Path| -> Result<String> {
        let output = Command::new(program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    #[cfg(target_arch = "x86_64")]
    let avx2 = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = false;
    Ok(Toolchain {
        rustc: first_line(Path::new("rustc"))?,
        valgrind: first_line(&valgrind()?)?,
        architecture: std::env::consts::ARCH.to_owned(),
        avx2,
    })
}

/// The counts beside each other, and whether none has risen too far.
fn compare(baseline: &Counts, counted: &Counts) -> (String, bool) {
    let mut out = String::new();
    let same = baseline.toolchain == counted.toolchain;
    let most = if same { MOST_RISE } else { MOST_RISE_ELSEWHERE };
    if !same {
        _ = writeln!(
            out,
            "The baseline is of another toolchain ({:?}, here {:?}): a rise of {:.0} % is let pass.",
            baseline.toolchain,
            counted.toolchain,
            most * 100.0
        );
    }
    _ = writeln!(out, "{:<20}{:>14}{:>14}{:>12}  of a plain hit", "hit", "instructions", "baseline", "change");
    let mut is_good = true;
    for (kind, count) in &counted.instructions_per_hit {
        _ = write!(out, "{:<20}{count:>14.1}", format!("{kind:?}"));
        match baseline.instructions_per_hit.get(kind) {
            Some(before) => {
                let change = count / before - 1.0;
                let is_too_much = *count > before * (1.0 + most);
                is_good &= !is_too_much;
                let remark = match change {
                    _ if is_too_much => "  too much",
                    _ if change < -MOST_RISE => "  better: keep it with --update",
                    _ => "",
                };
                _ = write!(out, "{before:>14.1}{:>+10.2} %{remark}", change * 100.0);
            }
            None => {
                is_good = false;
                _ = write!(out, "{:>14}", "none");
            }
        }
        if let Some((plain, most)) = kind.bound()
            && let Some(of_plain) = counted.instructions_per_hit.get(&plain)
        {
            let times = count / of_plain;
            is_good &= times <= most;
            let remark = if times > most { format!(", more than {most}") } else { String::new() };
            _ = write!(out, "  {times:.2} x {plain:?}{remark}");
        }
        out.push('\n');
    }
    (out, is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, count: f64) -> Counts {
        let toolchain = Toolchain {
            rustc: rustc.to_owned(),
            valgrind: "3".to_owned(),
            architecture: "x86_64".to_owned(),
            avx2: true,
        };
        Counts { toolchain, instructions_per_hit: [(Kind::Answer, count)].into() }
    }

    #[test]
    fn a_rise_of_more_than_three_percent_fails() {
        assert!(compare(&counts("1", 1000.0), &counts("1", 1030.0)).1);
        assert!(!compare(&counts("1", 1000.0), &counts("1", 1031.0)).1);
        assert!(compare(&counts("1", 1000.0), &counts("1", 500.0)).1);
    }

    #[test]
    fn a_directive_that_takes_more_than_its_share_of_a_plain_hit_fails() {
        let with = |count: f64| {
            let mut counts = counts("1", 1000.0);
            counts.instructions_per_hit.insert(Kind::HostsAnswer, count);
            compare(&counts, &counts)
        };
        assert!(with(1500.0).1);
        let (report, is_good) = with(1501.0);
        assert!(!is_good && report.contains("more than 1.5"), "{report}");
    }

    #[test]
    fn another_toolchain_is_told_and_has_more_room() {
        let (report, is_good) = compare(&counts("1", 1000.0), &counts("2", 1100.0));
        assert!(is_good && report.contains("another toolchain"), "{report}");
        assert!(!compare(&counts("1", 1000.0), &counts("2", 1200.0)).1);
    }

    #[test]
    fn a_kind_of_hit_that_the_baseline_lacks_fails() {
        let mut baseline = counts("1", 1000.0);
        baseline.instructions_per_hit.clear();
        assert!(!compare(&baseline, &counts("1", 1000.0)).1);
    }
}
