//! What the image holds, unpacked: the program, and the libraries it is linked against where it is no static one.

use crate::support::server::binary;
use crate::support::tools::run;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// On the machine's root, where the files need not be copied.
const ABOVE: &str = "/var/lib";
/// Lists what a program is linked against. Debian's is for amd64, as the lab's machines are.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The program in the image, which the Containerfile makes its entry point.
pub const ENTRY_POINT: &str = "/nodelocaldns";

/// The root of containers. It is gone with its value.
pub struct Image {
    folder: TempDir,
}

impl Image {
    pub fn unpack() -> Self {
        let folder =
            tempfile::Builder::new().prefix("image-").tempdir_in(ABOVE).expect("the machine's root can be written");
        let program = binary();
        link(&program, folder.path(), Path::new(ENTRY_POINT));
        for library in libraries(&program) {
            let file = std::fs::canonicalize(&library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
            link(&file, folder.path(), &library);
        }
        // The Containerfile's folders.
        for name in ["etc", "tmp"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("the machine's root can be written");
        }
        Self { folder }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }
}

/// Has `root` show `file` at `path`.
fn link(file: &Path, root: &Path, path: &Path) {
    let place = root.join(path.strip_prefix("/").expect("an absolute path"));
    let folder = place.parent().expect("a file has a folder");
    let linked = std::fs::create_dir_all(folder).and_then(|()| std::fs::hard_link(file, &place));
    linked.unwrap_or_else(|error| panic!("{} as {}: {error}", file.display(), place.display()));
}

/// The libraries of a program and the loader; none of a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let verified = Command::new(LOADER).arg("--verify").arg(program).status().expect("the loader runs");
    if !verified.success() {
        return Vec::new();
    }
    let listing = run(Command::new(LOADER).arg("--list").arg(program));
    let paths = listing.split_whitespace().filter(|word| word.starts_with('/'));
    // The loader is named there too.
    paths.map(PathBuf::from).collect()
}
