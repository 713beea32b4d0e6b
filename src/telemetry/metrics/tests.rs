//! The manual, and series that come and go.

use super::*;
use crate::telemetry::Lag;
use pgsluice_core::fault::SqlState;
use pgsluice_core::record::{NextOffset, TopicPartition};
use pgsluice_core::verdict::{Reason, Verdict};

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: "orders".into(), partition: number }
}

/// `docs/metrics.md` as it has to be.
fn manual() -> String {
    let mut text =
        "# Metrics\n\nServed at `/metrics` on the admin port, together with Prometheus' standard \
         `process_*` metrics. The series of a partition are removed when it is given up.\n\n| name \
         | kind | labels | meaning |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for metric in DEFINITIONS {
        let Definition { name, kind, labels, help } = metric;
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        text += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    text
}

#[test]
fn the_manual_names_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("PGSLUICE_WRITE_DOCS").is_some() {
        std::fs::write(path, manual()).expect("docs/metrics.md");
    }
    let written = std::fs::read_to_string(path).expect("docs/metrics.md");
    assert_eq!(written, manual(), "run this test with PGSLUICE_WRITE_DOCS=1 and commit");
}

#[test]
fn every_name_carries_our_prefix_and_the_suffix_of_its_kind() {
    for metric in DEFINITIONS {
        assert!(metric.name.starts_with("pgsluice_"), "{}", metric.name);
        let counts = metric.name.ends_with("_total");
        assert_eq!(counts, metric.kind == Kind::Counter, "{}", metric.name);
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
        }
        assert!(!metric.help.ends_with('.'), "{}", metric.name);
    }
}

/// Proves INV-11.
#[test]
fn a_partition_that_is_given_up_leaves_no_series() {
    let metrics = Metrics::try_new().expect("metrics");
    for number in [1, 11] {
        metrics.partition.finished(&partition(number), Verdict::Applied, 3);
        metrics.partition.finished(&partition(number), Verdict::Stale, 1);
        metrics.partition.version_gap(&partition(number));
        metrics.partition.next_offset(&partition(number), NextOffset(7));
        metrics.partition.lag(&partition(number), Lag { end: 5, stable: 3, unstable: 2 });
        metrics.partition.oldest_unfinished(&partition(number), Duration::from_secs(1));
        metrics.partition.halted(&partition(number), Reason::LogChanged);
    }
    metrics.partition.given_up(&partition(1));
    let text = metrics.encode().expect("text");
    assert!(!text.contains("partition=\"1\""), "{text}");
    assert_eq!(text.matches("partition=\"11\"").count(), 9, "{text}");
}

#[test]
fn a_partition_is_halted_for_one_reason_at_a_time() {
    let metrics = Metrics::try_new().expect("metrics");
    metrics.partition.halted(&partition(0), Reason::SchemaMismatch);
    metrics.partition.halted(&partition(0), Reason::PermissionDenied);
    let text = metrics.encode().expect("text");
    assert_eq!(text.matches("pgsluice_partition_halted{").count(), 1, "{text}");
    assert!(text.contains("reason=\"permission_denied\""));
}

/// Proves INV-11.
#[test]
fn codes_raised_by_users_cannot_make_series_without_bound() {
    let metrics = Metrics::try_new().expect("metrics");
    for number in 0..200 {
        let code = SqlState::parse(&format!("U{number:04}")).expect("code");
        metrics.retry(&Fault::new(FaultKind::Server(code)));
    }
    let text = metrics.encode().expect("text");
    assert_eq!(text.matches("pgsluice_retries_total{").count(), MAX_CAUSES + 1);
    assert!(text.contains("pgsluice_retries_total{cause=\"other\"} 136"), "{text}");
}
