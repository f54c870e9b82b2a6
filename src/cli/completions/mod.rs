//! The command `completions`: scripts that have a shell complete command lines. They are made of the flags by a test,
//! so that the program need not carry what makes them.

/// Whose command lines are completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// What the shell is to read.
    pub(crate) fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("nodelocaldns.bash"),
            Self::Zsh => include_str!("_nodelocaldns"),
            Self::Fish => include_str!("nodelocaldns.fish"),
        }
    }
}

#[cfg(test)]
mod tests;
