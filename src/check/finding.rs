//! One line of the result: how bad, about what, what was found, what to do.

use std::fmt;

use serde::Serialize;

use crate::exit::ExitReason;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but may surprise.
    Warn,
    /// Has to be mended before a run can work.
    Fail,
    /// A dependency does not answer, so nothing can be said of what it holds.
    Unavailable,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Unavailable => "DOWN",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, e.g. `topic orders`.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All findings.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// As it should be.
    pub fn ok(&mut self, subject: impl Into<String>, found: impl Into<String>) {
        self.add(Level::Ok, subject.into(), found.into(), None);
    }

    /// Works, but may surprise.
    pub fn warn(
        &mut self,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Warn, subject.into(), found.into(), Some(advice.into()));
    }

    /// Has to be mended.
    pub fn fail(
        &mut self,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Fail, subject.into(), found.into(), Some(advice.into()));
    }

    /// Does not answer.
    pub fn unavailable(
        &mut self,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Unavailable, subject.into(), found.into(), Some(advice.into()));
    }

    fn add(&mut self, level: Level, subject: String, found: String, advice: Option<String>) {
        self.findings.push(Finding { level, subject, found, advice });
    }

    /// The findings in the order of the checks.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What the process should end with. A failure counts more than a dependency that does not
    /// answer: waiting mends only the latter.
    pub fn exit(&self) -> ExitReason {
        let any = |level| self.findings.iter().any(|finding| finding.level == level);
        if any(Level::Fail) {
            ExitReason::Configuration
        } else if any(Level::Unavailable) {
            ExitReason::DependencyUnavailable
        } else {
            ExitReason::Clean
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            self.findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
        for Finding { level, subject, found, advice } in &self.findings {
            writeln!(f, "{:<5} {subject:<width$}  {found}", level.as_str())?;
            if let Some(advice) = advice {
                writeln!(f, "{:<5} {:<width$}  -> {advice}", "", "")?;
            }
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let failed = count(Level::Fail) + count(Level::Unavailable);
        write!(f, "{} ok, {} with warnings, {failed} failed", count(Level::Ok), count(Level::Warn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding_and_warnings_do_not_count() {
        let mut report = Report::default();
        report.ok("a", "fine");
        report.warn("b", "odd", "look");
        assert_eq!(report.exit(), ExitReason::Clean);
        report.unavailable("c", "silent", "start it");
        assert_eq!(report.exit(), ExitReason::DependencyUnavailable);
        report.fail("d", "missing", "create it");
        assert_eq!(report.exit(), ExitReason::Configuration);
    }

    #[test]
    fn the_table_has_one_line_a_finding_and_its_advice_below() {
        let mut report = Report::default();
        report.ok("brokers", "1 broker");
        report.fail("topic a", "does not exist", "create it");
        let table = "ok    brokers  1 broker\nFAIL  topic a  does not exist\n\x20              -> \
                     create it\n1 ok, 0 with warnings, 1 failed";
        assert_eq!(report.to_string(), table);
    }
}
