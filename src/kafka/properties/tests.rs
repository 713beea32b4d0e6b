//! What an operator reads about properties that librdkafka refuses, among the other problems.

use std::io::Write;

use super::*;
use crate::config::load;

const REQUIRED: &str = "[kafka]\nbrokers = \"localhost:9092\"\ngroup = \"customer-views\"\n\
     topics = [\"customer-events\"]\n[postgres]\nurl = \"postgres://pgsluice@localhost/app\"\n";

/// What is printed for a file that starts with the required settings; `FILE` stands for its name.
fn after_required(more: &str) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    write!(file, "{REQUIRED}{more}").expect("temporary file");
    let name = file.path().display().to_string();
    let problems =
        load(Some(file.path()), std::iter::empty(), &Librdkafka).expect_err("has a mistake");
    problems.to_string().lines().map(|line| line.replace(&name, "FILE")).collect()
}

#[test]
fn properties_that_librdkafka_would_refuse_are_refused_here_with_their_line() {
    let file = "[kafka.properties]\n'sesion.timeout.ms' = 6000\n'security.protocol' = 'TLS'\n";
    let problems = after_required(file);
    assert_eq!(problems.len(), 2, "{problems:?}");
    let told = |index: usize, what: &str| problems[index].starts_with(&format!("FILE:{what}"));
    assert!(
        told(0, "8: kafka.properties.sesion.timeout.ms: is not a librdkafka property"),
        "{problems:?}"
    );
    assert!(told(1, "9: kafka.properties.security.protocol: librdkafka does not"), "{problems:?}");
}

#[test]
fn a_property_that_librdkafka_does_not_know_or_reads_otherwise_is_refused() {
    let file = "[kafka.properties]\n\"security.protcol\" = \"SASL_SSL\"\n\
                \"session.timeout.ms\" = \"10s\"\n\"enable.auto.commit\" = true\n";
    assert_eq!(
        after_required(file),
        [
            "FILE:8: kafka.properties.security.protcol: is not a librdkafka property, did you mean \
             \"security.protocol\"?",
            "FILE:9: kafka.properties.session.timeout.ms: expected a number of milliseconds, \
             without a unit",
            "FILE:10: kafka.properties.enable.auto.commit: cannot be set, because the guarantees \
             depend on it; it is off: progress is kept in the database, and Kafka's offset follows \
             it",
        ]
    );
}

#[test]
fn a_number_that_librdkafka_would_read_as_another_one_is_refused() {
    let file = "[kafka.properties]\n\"session.timeout.ms\" = 4294973296\n\
                \"heartbeat.interval.ms\" = \"1e3\"\n\"max.poll.interval.ms\" = \"0600000\"\n\
                \"retries\" = \"5x\"\n\"linger.ms\" = \"2.5\"\n\"socket.timeout.ms\" = \" 7000 \"\n";
    let told = |line: u8, name: &str, what: &str| {
        format!("FILE:{line}: kafka.properties.{name}: expected a number{what}, without a unit")
    };
    assert_eq!(
        after_required(file),
        [
            told(8, "session.timeout.ms", " of milliseconds"),
            told(9, "heartbeat.interval.ms", " of milliseconds"),
            told(10, "max.poll.interval.ms", " of milliseconds"),
            told(11, "retries", ""),
        ]
    );
}

#[test]
fn credentials_and_authorities_that_cannot_work_are_told_of_without_asking_a_broker() {
    let properties = |text: &str| after_required(&format!("[kafka.properties]\n{text}"));
    let scram = "\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"me\"\n";
    assert_eq!(
        properties(scram),
        [
            "FILE:8: kafka.properties.sasl.mechanism: has no effect: security.protocol is plaintext, \
          not SASL_SSL or SASL_PLAINTEXT"
        ]
    );
    assert_eq!(
        properties(&format!("\"security.protocol\" = \"SASL_SSL\"\n{scram}")),
        ["FILE:10: kafka.properties.sasl.username: librdkafka cannot create a client with these \
          properties: sasl.username and sasl.password must be set"]
    );
    let authority = "\"ssl.ca.location\" = \"/nowhere/ca.pem\"\n";
    assert_eq!(
        properties(&format!("\"security.protocol\" = \"ssl\"\n{authority}")),
        ["FILE:9: kafka.properties.ssl.ca.location: cannot read /nowhere/ca.pem: no such file"]
    );
    let empty = "\"ssl.ca.location\" = \"/dev/null\"\n";
    assert_eq!(
        properties(&format!("{empty}\"security.protocol\" = \"SASL_PLAINTEXT\"\n")),
        ["FILE:8: kafka.properties.ssl.ca.location: has no effect: security.protocol is \
          sasl_plaintext, not SSL or SASL_SSL"]
    );
    assert_eq!(
        properties(&format!("\"security.protocol\" = \"SSL\"\n{empty}")),
        ["FILE:9: kafka.properties.ssl.ca.location: librdkafka cannot create a client with these \
          properties: ssl.ca.location failed"]
    );
    // What the two kinds of clients do with it differs: only a producer repeats.
    assert_eq!(
        properties("\"retries\" = 0\n"),
        ["FILE:8: kafka.properties.retries: librdkafka cannot create a client with these \
          properties: `retries` must be set >= 1 when `enable.idempotence` is true"]
    );
}

#[test]
fn a_text_that_happens_to_be_a_number_is_taken_as_it_is() {
    for text in ["007", "nan", "1e5"] {
        assert!(!read_otherwise(text, text), "{text}");
    }
    assert!(!read_otherwise("true", "true") && !read_otherwise("1", "true"));
    assert!(read_otherwise("010", "8") && read_otherwise("10s", "10"));
}
