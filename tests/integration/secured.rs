//! Kafka over TLS with SCRAM, by librdkafka's own properties.

use std::path::Path;

use pgsluice_testkit::case::{Case, ENVELOPE, SETTLING, renamed};
use pgsluice_testkit::certificates::Authority;
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Outgoing};

pub(crate) const PASSWORD: &str = "test-password";
const WRONG_PASSWORD: &str = "canary-password";

/// Variables for the broker's listener at that address, the secured one.
pub(crate) fn variables<'a>(
    address: &'a str,
    password: &'a str,
    authority: &'a Path,
) -> [(&'static str, &'a str); 6] {
    [
        ("PGSLUICE__KAFKA__BROKERS", address),
        ("PGSLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SASL_SSL"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_MECHANISM", "SCRAM-SHA-512"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_USERNAME", "pgsluice"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_PASSWORD", password),
        ("PGSLUICE__KAFKA__PROPERTIES__SSL_CA_LOCATION", authority.to_str().expect("utf-8")),
    ]
}

/// A daemon that knows the broker's secured listener only.
pub(crate) fn daemon(case: &Case, password: &str, authority: &Path) -> Daemon {
    let (address, _) = kafka::secured();
    case.daemon_with(ENVELOPE, &variables(&address, password, authority))
}

#[test]
fn records_are_read_and_dead_letters_published_over_tls_with_scram() {
    let case = Case::new("secured", 1);
    case.expects(&["dead_letters"]);
    let poison = Outgoing::new("b", "not json");
    let places = case.producer().send_all([renamed("a", 1), poison]);

    let daemon = daemon(&case, PASSWORD, &kafka::secured().1);
    case.until_finished(&daemon);

    case.assert_outcomes(places.into_iter().zip(["APPLIED", "DEAD_LETTERED"]));
    let letters = format!("{}-dlq", case.topic);
    daemon.until("the dead letter topic holds it", SETTLING, || {
        kafka::partition_count(&letters).is_some() && kafka::read_all(&letters).len() == 1
    });
    assert_eq!(kafka::read_all(&letters)[0].value.as_deref(), Some(&b"not json"[..]));
    daemon.stop();
}

/// Waits until the log names the cause; nothing was read, and the password is nowhere.
fn assert_refused(case: &Case, daemon: &Daemon, cause: &str) {
    daemon.until("the log names the cause", SETTLING, || {
        daemon.log().iter().any(|line| {
            line.contains(cause) && (line.contains("\"WARN\"") || line.contains("\"ERROR\""))
        })
    });
    assert!(case.outcomes().is_empty());
    assert!(!daemon.log().iter().any(|line| line.contains(WRONG_PASSWORD)));
}

#[test]
fn a_wrong_password_and_an_unknown_authority_are_each_named_in_the_log() {
    let case = Case::new("refused", 1);
    case.expects(&["librdkafka", "kafka_trouble", "kafka_unreachable"]);
    case.producer().send(renamed("a", 1));

    let wrong_password = daemon(&case, WRONG_PASSWORD, &kafka::secured().1);
    assert_refused(&case, &wrong_password, "uthentication");
    let wrong_authority = daemon(&case, PASSWORD, &Authority::create().certificate());
    assert_refused(&case, &wrong_authority, "ssl.ca.location");
}
