//! The name of this machine (uname(2)).

/// What a machine is called whose name cannot be had.
const NAMELESS: &str = "localhost";

/// The host's name, as the kernel has it for this process.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}
