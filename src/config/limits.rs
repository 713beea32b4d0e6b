//! Batches, bounds, retries, ordering and the end of the process.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use config::ValueKind;

use pgsluice_core::fault::SqlState;
use pgsluice_core::fault::{FaultPolicy, Override};

use super::load::section::Section;
use super::load::units::Bytes;

/// What is gathered before it is dispatched: whichever limit comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchConfig {
    /// Records of a batch, at least 1.
    pub max_records: usize,
    /// Keys and values of a batch together.
    pub max_bytes: Bytes,
    /// How long the first record of a batch waits for more.
    pub max_wait: Duration,
}

/// Bounds on memory and work (INV-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Weight of all records in memory, see `Record::weight`; polling stops above it.
    pub in_flight_bytes: Bytes,
    /// Records of a partition that may run ahead of its oldest unfinished one.
    pub unfinished_per_partition: usize,
    /// Key and value of one record; a larger one is poison `record_too_large`.
    pub record_bytes: Bytes,
    /// Events of one aggregate that are folded into one transaction.
    pub events_per_group: usize,
}

/// How events are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// What happens when versions are missing before an event.
    pub on_gap: OnGap,
}

/// What happens when versions are missing before an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// It is applied and counted.
    Apply,
    /// Its aggregate is parked.
    Park,
}

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

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long a drain may take before the process ends all the same.
    pub drain_timeout: Duration,
}

/// Sizes from one KiB to a TiB: zero would stop everything, more is a mistake.
const SIZES: RangeInclusive<Bytes> = Bytes(1 << 10)..=Bytes(1 << 40);

impl BatchConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            max_records: section.count("max_records", 1..=100_000),
            max_bytes: section.size("max_bytes", SIZES),
            max_wait: section.duration("max_wait", Duration::ZERO..=Duration::from_secs(10)),
        };
        section.finish();
        config
    }
}

impl LimitsConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            in_flight_bytes: section.size("in_flight_bytes", SIZES),
            unfinished_per_partition: section.count("unfinished_per_partition", 1..=10_000_000),
            record_bytes: section.size("record_bytes", SIZES),
            events_per_group: section.count("events_per_group", 1..=10_000),
        };
        section.finish();
        config
    }
}

impl GroupConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        section.choice("order_by", &[("aggregate", ())], &["key"]);
        section.not_yet("atomic_by", "groups of several aggregates");
        let on_gap = [("apply", OnGap::Apply), ("park", OnGap::Park)];
        let config = Self { on_gap: section.choice("on_gap", &on_gap, &[]) };
        section.finish();
        config
    }
}

impl RetryConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
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

impl ShutdownConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(3600);
        let config = Self { drain_timeout: section.duration("drain_timeout", bounds) };
        section.finish();
        config
    }
}
