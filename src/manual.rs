//! The documents that operators work with, compared with the code: a halt without a section in the
//! runbook, or a manual that lacks a setting, fails here.
//!
//! `PGSLUICE_WRITE_DOCS=1 cargo test --lib manual` writes `docs/configuration.md` anew.

mod invariants;

use std::fs;

use crate::config::{self, DEFAULT_TOML};
use crate::exit::ExitReason;
use crate::kafka::Librdkafka;
use crate::telemetry::{DEFINITIONS, Definition, Kind};
use pgsluice_core::verdict::Reason;

const INTRODUCTION: &str = "\
# Configuration

Every setting with its default, generated from [`config/default.toml`](../config/default.toml) by \
`PGSLUICE_WRITE_DOCS=1 cargo test --lib manual`. `pgsluice check --defaults` prints the same file.

There are three layers, and the later one wins: the defaults, the file given by `--config` or `PGSLUICE_CONFIG`, \
and environment variables `PGSLUICE__SECTION__KEY`, with two underscores: \
`PGSLUICE__KAFKA__GROUP` is `group` in `[kafka]`. Unknown keys are errors. `pgsluice check` lists \
every problem at once, each with its key and its line or variable.

Four settings have no default and must be given: `kafka.brokers`, `kafka.group`, `kafka.topics` and \
`postgres.url` (or `postgres.url_file`).
";

fn document(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Headings of the third level, which are codes: `` ### `log_changed` ``.
fn headings(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("### `")?.split_once('`').map(|(code, _)| code))
        .collect()
}

/// `docs/configuration.md` as it has to be: a section of the file is a section of the manual, and
/// a blank line within it begins the next piece of TOML.
fn configuration() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut heading = "The top level".to_owned();
    // The file's own head is what the introduction says.
    let body = DEFAULT_TOML.split_once("\n\n").map_or("", |(_, body)| body);
    for piece in body.split("\n\n").map(str::trim).filter(|piece| !piece.is_empty()) {
        let section = piece.lines().find_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
        let next = section.map_or_else(
            || if piece.contains("# [[route]]") { "[[route]]".to_owned() } else { heading.clone() },
            |name| format!("[{name}]"),
        );
        if next != heading || text.len() == INTRODUCTION.len() {
            text += &format!(
                "\n## {}\n",
                if next.starts_with('[') { format!("`{next}`") } else { next.clone() }
            );
            heading = next;
        }
        text += &format!("\n```toml\n{piece}\n```\n");
    }
    text
}

#[test]
fn the_manual_of_the_configuration_is_that_of_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("PGSLUICE_WRITE_DOCS").is_some() {
        fs::write(path, configuration()).expect("docs/configuration.md");
    }
    let written = document("docs/configuration.md");
    assert_eq!(written, configuration(), "run this test with PGSLUICE_WRITE_DOCS=1 and commit");
}

#[test]
fn the_runbook_has_a_section_for_every_halt() {
    let runbook = document("docs/runbook.md");
    let known = headings(&runbook);
    // Halts are the last of the reasons, from this one on.
    let halts = Reason::ALL.iter().skip_while(|reason| **reason != Reason::SchemaMismatch);
    for reason in halts {
        assert!(known.contains(&reason.as_str()), "no section for the halt {}", reason.as_str());
    }
}

#[test]
fn the_runbook_explains_every_reason_of_an_outcome() {
    let runbook = document("docs/runbook.md");
    for reason in Reason::ALL {
        let code = format!("`{}`", reason.as_str());
        assert!(runbook.contains(&code), "the runbook does not mention {code}");
    }
}

#[test]
fn the_runbook_has_a_section_for_every_exit_code() {
    let runbook = document("docs/runbook.md");
    for reason in ExitReason::ALL {
        let heading = format!("### Exit code {}: ", reason.code());
        assert!(runbook.contains(&heading), "no section {heading:?}");
    }
}

#[test]
fn every_alert_has_a_section_and_asks_for_metrics_that_exist() {
    let rules = document("deploy/prometheus/pgsluice.rules.yaml");
    let runbook = document("docs/runbook.md");
    let known = headings(&runbook);
    for line in rules.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            assert!(known.contains(&alert), "no section for the alert {alert}");
        }
        let Some(expression) = line.strip_prefix("expr: ") else { continue };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in expression.split(|c| !is_name(c)).filter(|n| n.starts_with("pgsluice_")) {
            let series = |metric: &Definition| match metric.kind {
                Kind::Counter | Kind::Gauge => metric.name == name,
                Kind::Histogram(_) => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| name.strip_suffix(suffix) == Some(metric.name)),
            };
            assert!(DEFINITIONS.iter().any(series), "no metric {name}");
        }
    }
}

#[test]
fn systemd_starts_nothing_again_that_a_restart_does_not_mend() {
    let unit = document("deploy/systemd/pgsluice.service");
    let prevented = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    let codes: Vec<String> =
        [ExitReason::Configuration, ExitReason::Fenced, ExitReason::Corruption]
            .map(|reason| reason.code().to_string())
            .to_vec();
    assert_eq!(prevented, Some(codes.join(" ").as_str()));
    // The codes of other commands of the unit do not count for it.
    assert!(!unit.lines().any(|line| line.starts_with("ExecStartPre=")));
}

#[test]
fn whoever_stops_the_process_waits_longer_than_a_drain_can_take() {
    let required = [
        ("PGSLUICE__KAFKA__BROKERS", "b:9092"),
        ("PGSLUICE__KAFKA__GROUP", "g"),
        ("PGSLUICE__KAFKA__TOPICS", "t"),
        ("PGSLUICE__POSTGRES__URL", "postgres://a@b/c"),
    ];
    let variables = required.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = config::load(None, variables, &Librdkafka).expect("the defaults are valid");
    // The drain, then the last commit to Kafka and the farewell, 5 s each.
    let longest = config.shutdown.drain_timeout.as_secs() + 10;
    let places = [
        ("deploy/compose.yaml", "stop_grace_period: "),
        ("deploy/kubernetes/pgsluice.yaml", "terminationGracePeriodSeconds: "),
        ("deploy/systemd/pgsluice.service", "TimeoutStopSec="),
    ];
    for (path, key) in places {
        let text = document(path);
        let value = text.lines().find_map(|line| line.trim().strip_prefix(key)).expect(path);
        let grace: u64 = value.trim_end_matches('s').parse().expect(path);
        assert!(grace > longest, "{path}: {grace} s");
    }
}

#[test]
fn every_example_is_a_valid_configuration() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut checked = 0;
    for entry in fs::read_dir(directory).expect("config/") {
        let path = entry.expect("entry").path();
        // The defaults are no example: what is required has no default.
        if path.file_name().is_some_and(|name| name != "default.toml") {
            // Secrets stand in no example.
            let secret = [("PGSLUICE__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret")];
            let text = fs::read_to_string(&path).expect("an example");
            let secret = if text.contains("\"sasl.username\"") { &secret[..] } else { &[] };
            let secret =
                secret.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            config::load(Some(&path), secret, &Librdkafka)
                .unwrap_or_else(|problems| panic!("{problems}"));
            checked += 1;
        }
    }
    assert!(checked >= 2, "only {checked} examples found");
}
