//! The scripts are compared with the flags; `COMPLETIONS=write cargo test --lib cli::completions` writes them anew.

use super::Shell;
use crate::cli::Flags;
use clap::{CommandFactory, ValueEnum};
use clap_complete::{generate, shells};
use std::path::Path;
use std::process::Command;

fn made(shell: Shell) -> String {
    let (mut command, mut script) = (Flags::command(), Vec::new());
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, "nodelocaldns", &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, "nodelocaldns", &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, "nodelocaldns", &mut script),
    }
    String::from_utf8(script).unwrap()
}

#[test]
fn the_scripts_are_those_of_the_flags() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/completions");
    for (shell, name) in
        [(Shell::Bash, "nodelocaldns.bash"), (Shell::Zsh, "_nodelocaldns"), (Shell::Fish, "nodelocaldns.fish")]
    {
        if std::env::var_os("COMPLETIONS").is_some_and(|wish| wish == "write") {
            std::fs::write(folder.join(name), made(shell)).unwrap();
            continue;
        }
        assert!(
            shell.script() == made(shell),
            "src/cli/completions/{name} is not what the flags say: COMPLETIONS=write cargo test --lib cli::completions"
        );
    }
    assert_eq!(Shell::value_variants().len(), 3);
}

/// What bash offers for a command line, whose last word is being written.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let [.., before, last] = words else { panic!("the program and a word") };
    let script = format!(
        "{}\nCOMP_WORDS=({}) COMP_CWORD={}\n_nodelocaldns nodelocaldns '{last}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        Shell::Bash.script(),
        quoted.join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_their_values() {
    assert_eq!(bash_offers(&["nodelocaldns", "doc"]), ["doctor"]);
    assert_eq!(bash_offers(&["nodelocaldns", "--log-f"]), ["--log-format"]);
    assert_eq!(bash_offers(&["nodelocaldns", "--interception", "ipt"]), ["iptables"]);
    assert_eq!(bash_offers(&["nodelocaldns", "doctor", "--outp"]), ["--output"]);
    assert_eq!(bash_offers(&["nodelocaldns", "completions", "z"]), ["zsh"]);
}
