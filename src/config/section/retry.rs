//! `[retry]`: how a single aggregate is retried, and which of the user's own errors are.

use std::collections::BTreeMap;
use std::time::Duration;

use config::ValueKind;
use pgsluice_core::fault::{FaultPolicy, Override, SqlState};

use crate::config::load::reader::Section;

/// Retries of a single aggregate: exponential with full jitter; and what is retried at all.
#[derive(Debug, Clone)]
pub struct RetryConfig {
    /// The first wait's upper end.
    pub initial: Duration,
    /// The longest wait; not below `initial`.
    pub max: Duration,
    /// An aggregate that failed for so long while others of its route succeeded is parked; `None`:
    /// it is retried without end.
    pub give_up_after: Option<Duration>,
    /// What follows from a fault: the built-in table with the user's own codes moved.
    pub faults: FaultPolicy,
}

impl RetryConfig {
    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let bounds = Duration::from_millis(1)..=Duration::from_secs(3600);
        let give_up_after =
            section.duration("give_up_after", Duration::ZERO..=Duration::from_secs(30 * 86_400));
        let config = Self {
            initial: section.duration("initial", bounds.clone()),
            max: section.duration("max", bounds),
            give_up_after: (!give_up_after.is_zero()).then_some(give_up_after),
            faults: read_sqlstates(section.table("sqlstate")),
        };
        if config.initial > config.max {
            let initial = humantime::format_duration(config.initial);
            let message = format!("must not be below retry.initial ({initial})");
            section.contradiction("max", &["retry.initial"], message);
        }
        section.finish();
        config
    }
}

/// Reads the decisions for codes that the user's own triggers raise.
fn read_sqlstates(section: Section<'_>) -> FaultPolicy {
    let mut overrides = BTreeMap::new();
    for (key, value) in section.entries() {
        // Variables have no lower and upper case; neither have the codes.
        let Some(code) = SqlState::parse(&key.to_ascii_uppercase()) else {
            section.problem(key, "expected a SQLSTATE: five letters or digits, such as P0001");
            continue;
        };
        let ValueKind::String(word) = &value.kind else {
            section.problem(key, "expected retry | isolate | halt");
            continue;
        };
        let Some(decision) = Override::parse(word) else {
            section.problem(key, "expected retry | isolate | halt");
            continue;
        };
        match FaultPolicy::new(BTreeMap::from([(code, decision)])) {
            Ok(_) => drop(overrides.insert(code, decision)),
            Err(refused) => section.problem(key, refused.to_string()),
        }
    }
    // Every code was accepted alone, and codes do not depend on each other.
    FaultPolicy::new(overrides).unwrap_or_default()
}
