//! Why the process ends.

use std::process::ExitCode;

/// Why the process ends, and the exit code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// As asked for: everything finished and durable.
    Clean,
    /// Ended before the drain was finished; what is missing is read again by the next owner.
    Interrupted,
    /// The configuration or the command line is wrong.
    Configuration,
    /// The database or Kafka could not be reached at start.
    DependencyUnavailable,
    /// Another process has this member's name, or the cluster is another one than before.
    Fenced,
    /// Going on would do harm: data is not what it was.
    Corruption,
    /// A state that should not be.
    Bug,
}

impl ExitReason {
    /// Every reason, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Clean,
        Self::Interrupted,
        Self::Configuration,
        Self::DependencyUnavailable,
        Self::Fenced,
        Self::Corruption,
        Self::Bug,
    ];

    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Interrupted => 1,
            Self::Configuration => 2,
            Self::DependencyUnavailable => 3,
            Self::Fenced => 4,
            Self::Corruption => 5,
            Self::Bug => 70,
        }
    }

    /// The reason's one spelling in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Interrupted => "interrupted",
            Self::Configuration => "configuration",
            Self::DependencyUnavailable => "dependency_unavailable",
            Self::Fenced => "fenced",
            Self::Corruption => "corruption",
            Self::Bug => "bug",
        }
    }
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        let codes = [
            (ExitReason::Clean, 0),
            (ExitReason::Configuration, 2),
            (ExitReason::DependencyUnavailable, 3),
            (ExitReason::Fenced, 4),
            (ExitReason::Corruption, 5),
            (ExitReason::Bug, 70),
        ];
        for (reason, code) in codes {
            assert_eq!(reason.code(), code, "{reason:?}");
        }
    }
}
