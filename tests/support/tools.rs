//! Other people's programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file or folder of the checkout.
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where `program` is. Fails, and says how to get it, when it is not installed.
pub fn require(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons stand in sbin, which an ordinary user's PATH lacks.
    let folders = std::env::split_paths(&path).chain(["/usr/local/sbin".into(), "/usr/sbin".into(), "/sbin".into()]);
    let mut places = folders.map(|folder| folder.join(program));
    places.find(|place| place.is_file()).unwrap_or_else(|| {
        panic!("this test needs `{program}`, which is not installed; run scripts/install-test-deps (or make test, which does)")
    })
}

/// A command of a program that must be there.
pub fn tool(program: &str) -> Command {
    Command::new(require(program))
}

/// helm or kubectl: the one that scripts/kubernetes-tools gets, else that of PATH.
pub fn kubernetes_tool(program: &str) -> Command {
    let got = checkout("target/kubernetes-tools").join(program);
    let mut tool = Command::new(if got.is_file() { got } else { require(program) });
    // Neither asks a cluster, whatever the machine is set up for.
    tool.env("KUBECONFIG", "/dev/null").env_remove("HELM_NAMESPACE");
    tool
}

/// Runs to the end. Fails with all it wrote when it cannot be run or its status is not 0.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("running {command:?}: {e}"));
    assert!(output.status.success(), "{command:?} failed, {}:\n{}", output.status, everything(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard output and error of a finished program.
pub fn everything(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Writes a file of a scratch folder.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the scratch folder can be written");
    path
}
