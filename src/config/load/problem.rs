//! What is wrong with a configuration, and where all of it is collected.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use config::Value;

use super::layer::{Place, place_of};

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, dotted, e.g. `kafka.brokers`; empty when the file itself cannot be read.
    pub key: String,
    /// Where it was written; `None` when it was not.
    pub place: Option<Place>,
    /// What is wrong and what is expected. Never holds a value that may be a secret.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.key.is_empty()) {
            (Some(place), true) => write!(f, "{place}: {}", self.message),
            (Some(place), false) => write!(f, "{place}: {}: {}", self.key, self.message),
            (None, true) => f.write_str(&self.message),
            (None, false) => write!(f, "{}: {}", self.key, self.message),
        }
    }
}

/// Everything that is wrong with the configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}

/// Where problems are collected while sections are read.
#[derive(Debug, Default)]
pub(in crate::config) struct Collector {
    file: Option<PathBuf>,
    problems: RefCell<Vec<ConfigProblem>>,
    /// Keys that could not be read, in whose place a stand-in value is.
    unread: RefCell<Vec<String>>,
}

impl Collector {
    /// An empty collection; `file` is the one that lines are of.
    pub(in crate::config) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), ..Self::default() }
    }

    /// Notes a problem of a key; `value` tells where it was written.
    pub(in crate::config) fn note(
        &self,
        key: impl Into<String>,
        value: Option<&Value>,
        message: String,
    ) {
        let key = key.into();
        self.unread.borrow_mut().push(key.clone());
        self.add(key, value, message);
    }

    /// Notes a problem of a key that was read.
    pub(super) fn add(&self, key: String, value: Option<&Value>, message: String) {
        let place = value.and_then(|value| place_of(value, self.file.as_deref()));
        self.problems.borrow_mut().push(ConfigProblem { key, place, message });
    }

    /// Whether one of these keys, given by their full names, has a stand-in value.
    pub(super) fn any_unread(&self, keys: impl Fn(&str) -> bool) -> bool {
        self.unread.borrow().iter().any(|key| keys(key))
    }

    /// Whether a problem of a key that starts so was noted.
    pub(super) fn has_problems_of(&self, path: &str) -> bool {
        self.problems.borrow().iter().any(|problem| problem.key.starts_with(path))
    }

    /// The problems in the order of the file, those without a line last.
    pub(in crate::config) fn into_problems(self) -> Vec<ConfigProblem> {
        let mut problems: Vec<ConfigProblem> = Vec::new();
        for problem in self.problems.into_inner() {
            // A section that is no table is noticed by everybody who reads it.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems.sort_by_key(|problem| problem.place.as_ref().map_or(usize::MAX, Place::line));
        problems
    }
}
