//! What an operator sees of the configuration as a whole.

use std::io::Write;
use std::time::Duration;

use pgsluice_core::envelope::EnvelopeField;
use pgsluice_core::fault::{Decision, Fault, FaultKind, SqlState};
use pgsluice_core::verdict::Reason;

use super::load::layer::Layer;
use super::*;

const MINIMAL: [(&str, &str); 4] = [
    ("PGSLUICE__KAFKA__BROKERS", "localhost:9092"),
    ("PGSLUICE__KAFKA__GROUP", "customer-views"),
    ("PGSLUICE__KAFKA__TOPICS", "customer-events"),
    ("PGSLUICE__POSTGRES__URL", "postgres://app:s3cret@localhost/app"),
];

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    pairs.into_iter()
}

fn with_env(more: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
    load(None, env(&MINIMAL).chain(env(more)), &AnyProperty)
}

/// Loads the four required values and the given file text.
fn with_file(text: &str) -> Result<Config, ConfigProblems> {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(text.as_bytes()).expect("temporary file");
    load(Some(file.path()), env(&MINIMAL), &AnyProperty)
}

/// The problems of a file as `line key: message`.
fn problems(text: &str) -> Vec<String> {
    let problems = with_file(text).expect_err("has problems").0;
    let line = |problem: &ConfigProblem| match &problem.place {
        Some(Place::File { line, .. }) => line.to_string(),
        Some(Place::Env(name)) => name.clone(),
        None => "-".to_owned(),
    };
    problems.iter().map(|p| format!("{} {}: {}", line(p), p.key, p.message)).collect()
}

#[test]
fn four_variables_are_a_whole_configuration() {
    let config = with_env(&[]).expect("valid");
    assert_eq!(config.kafka.topics, ["customer-events"]);
    assert_eq!(config.decode.format, Format::Plain);
    assert_eq!(config.limits.in_flight_bytes, Bytes::mebibytes(12));
    assert_eq!(config.limits.record_bytes, Bytes::mebibytes(8));
    assert_eq!(config.limits.unfinished_per_partition, 50_000);
    assert_eq!(config.batch.max_records, 2000);
    assert_eq!(config.batch.max_wait, Duration::from_millis(5));
    assert_eq!((config.postgres.lanes, config.postgres.in_flight), (4, 64));
    assert_eq!(config.retry.max, Duration::from_secs(30));
    assert!(config.routes.is_empty());
}

#[test]
fn nothing_at_all_names_the_four_missing_keys() {
    let problems = load(None, env(&[]), &AnyProperty).expect_err("incomplete").0;
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["kafka.brokers", "kafka.group", "kafka.topics", "postgres.url"]);
    assert!(problems[0].message.contains("PGSLUICE__KAFKA__BROKERS"));
}

#[test]
fn variables_win_over_the_file_and_the_file_over_the_defaults() {
    let file = "[postgres]\nlanes = 8\nin_flight = 32\n";
    assert_eq!(with_file(file).expect("valid").postgres.lanes, 8);
    let mut on_disk = tempfile::NamedTempFile::new().expect("temporary file");
    on_disk.write_all(file.as_bytes()).expect("temporary file");
    let more = env(&[("PGSLUICE__POSTGRES__LANES", "2")]);
    let config =
        load(Some(on_disk.path()), env(&MINIMAL).chain(more), &AnyProperty).expect("valid");
    assert_eq!((config.postgres.lanes, config.postgres.in_flight), (2, 32));
}

/// Every setting below a value as its variable, with its text.
fn as_variables(name: &str, value: &::config::Value, found: &mut Vec<(String, String)>) {
    match &value.kind {
        ::config::ValueKind::Table(table) => {
            for (key, value) in table {
                as_variables(&format!("{name}__{}", key.to_uppercase()), value, found);
            }
        }
        kind => found.push((name.to_owned(), kind.to_string())),
    }
}

#[test]
fn every_setting_with_a_default_can_be_given_by_its_variable() {
    let defaults = Layer::from_defaults(DEFAULT_TOML).expect("TOML");
    let mut variables = Vec::new();
    for (key, value) in ::config::Source::collect(&defaults).expect("never fails") {
        as_variables(&format!("PGSLUICE__{}", key.to_uppercase()), &value, &mut variables);
    }
    assert!(variables.len() > 40, "only {} found", variables.len());
    let given =
        load(None, env(&MINIMAL).chain(variables), &AnyProperty).expect("the defaults are valid");
    assert_eq!(format!("{given:?}"), format!("{:?}", with_env(&[]).expect("valid")));
}

#[test]
fn lists_in_variables_are_separated_by_commas() {
    let config = with_env(&[
        ("PGSLUICE__KAFKA__TOPICS", "a, b,^c.*"),
        ("PGSLUICE__DECODE__FIELDS__AGGREGATE_ID", "value:/id,key"),
    ])
    .expect("valid");
    assert_eq!(config.kafka.topics, ["a", "b", "^c.*"]);
    let id = FieldSources(vec![FieldSource::ValuePointer("/id".into()), FieldSource::Key]);
    assert_eq!(*config.decode.fields.of(EnvelopeField::AggregateId), id);
}

#[test]
fn every_problem_is_listed_with_its_key_and_line() {
    let file = "on_unmatched = 'stop'\n[kafka]\ngroupe = 'x'\n[batch]\nmax_records = 0\n\
                max_bytes = 8\n[limits]\nrecord_bytes = '32MiB'\n[nonsense]\na = 1\n";
    assert_eq!(
        problems(file),
        [
            "1 on_unmatched: expected dead-letter | skip | halt",
            "3 kafka.groupe: unknown key, did you mean \"group\"?",
            "5 batch.max_records: expected a whole number from 1 to 100000",
            "6 batch.max_bytes: expected a size with its unit, such as \"8MiB\" or \"512KiB\"",
            "8 limits.record_bytes: must not exceed limits.in_flight_bytes (12MiB)",
            "10 nonsense: unknown section; known keys are admin, batch, dead_letter, decode, \
             group, kafka, limits, log, notification, on_unmatched, postgres, retry, route, \
             shutdown",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_named_by_line_without_its_text() {
    let problems = problems("[postgres]\nurl = postgres://app:s3cret@db/app\n");
    assert!(problems[0].starts_with("2 : is not TOML"), "{problems:?}");
    assert!(!problems.join("\n").contains("s3cret"));
}

#[test]
fn an_unknown_variable_is_an_error_and_a_foreign_one_is_not() {
    let problems = with_env(&[
        ("PGSLUICE__KAFKA__TOPIC", "x"),
        ("PGSLUICE_PORT", "tcp://10.0.0.1:80"),
        ("PGSLUICE_SERVICE_HOST", "10.0.0.1"),
    ])
    .expect_err("one problem");
    let [problem] = problems.0.as_slice() else { panic!("{problems}") };
    assert_eq!(problem.place, Some(Place::Env("PGSLUICE__KAFKA__TOPIC".to_owned())));
    assert!(problem.message.contains("did you mean PGSLUICE__KAFKA__TOPICS?"));
}

#[test]
fn a_variable_of_ours_that_is_not_text_is_a_problem_and_another_ones_is_not() {
    use std::os::unix::ffi::OsStringExt;
    let odd = |name: &str| (name.into(), std::ffi::OsString::from_vec(vec![0xff]));
    let fine = ("PGSLUICE__KAFKA__GROUP".into(), "g".into());
    let read = variables([odd("HOME"), fine].into_iter()).expect("only HOME is odd");
    assert_eq!(read, [("PGSLUICE__KAFKA__GROUP".to_owned(), "g".to_owned())]);
    let refused = variables([odd("PGSLUICE__KAFKA__GROUP")].into_iter()).expect_err("not text");
    assert_eq!(refused.to_string(), "PGSLUICE__KAFKA__GROUP: is not UTF-8 text");
}

#[test]
fn a_variable_that_may_be_meant_for_us_is_doubtful_and_an_injected_one_is_not() {
    let names =
        ["PGSLUICE_LOG_LEVEL", "PGSLUICE_KAFKA_PORT_9092_TCP", "PGSLUICE_ADMIN_PORT", "HOME"];
    assert_eq!(
        doubtful_variables(names.into_iter().map(str::to_owned)),
        [("PGSLUICE_LOG_LEVEL".to_owned(), "PGSLUICE__LOG__LEVEL".to_owned())]
    );
}

#[test]
fn the_authorities_of_the_system_may_be_looked_for() {
    with_env(&[
        ("PGSLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl"),
        ("PGSLUICE__KAFKA__PROPERTIES__SSL_CA_LOCATION", "probe"),
    ])
    .expect("\"probe\" is no file");
}

#[test]
fn properties_the_guarantees_rest_on_are_refused_with_the_reason() {
    let file = "[kafka.properties]\n'enable.auto.commit' = true\n'client.id' = 'x'\n\
                'isolation.level' = 'read_uncommitted'\n";
    let problems = problems(file);
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("2 kafka.properties.enable.auto.commit: cannot be set"));
    assert!(problems[1].contains("aborted records must never be applied"));
}

#[test]
fn properties_come_from_variables_and_secrets_from_files() {
    let mut secret = tempfile::NamedTempFile::new().expect("temporary file");
    secret.write_all(b"s3cret\n").expect("temporary file");
    let path = secret.path().to_str().expect("utf-8").to_owned();
    let config = with_env(&[
        ("PGSLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SASL_SSL"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_USERNAME", "me"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &path),
    ])
    .expect("valid");
    assert_eq!(config.kafka.properties["security.protocol"], "SASL_SSL");
    assert_eq!(config.kafka.properties["sasl.password"], "s3cret");
}

#[test]
fn what_this_version_does_not_have_is_refused_by_name() {
    let file = "[decode]\nformat = 'cloudevents'\n[group]\norder_by = 'key'\n\
                atomic_by = 'header:t'\n[dead_letter]\nheaders = 'spring'\n\
                [notification]\nretain = {}\n\
                [[route]]\nsql = {}\n[[route]]\nsql = {}\nskip = true\n";
    let problems = problems(file);
    assert_eq!(problems.len(), 7, "{problems:#?}");
    for problem in problems {
        assert!(problem.contains("this version does not support"), "{problem}");
    }
}

#[test]
fn decisions_are_moved_for_codes_of_the_users_own_only() {
    let decide = |config: &Config, code| {
        let code = SqlState::parse(code).expect("a code");
        config.retry.faults.decide(&Fault::new(FaultKind::Server(code)))
    };
    let variable = [("PGSLUICE__RETRY__SQLSTATE__P0001", "halt")];
    let config = with_env(&variable).expect("valid");
    assert_eq!(decide(&config, "P0001"), Decision::Halt(Reason::RaisedException));
    assert_eq!(decide(&config, "P0002"), Decision::Isolate(Reason::RaisedException));

    let refused = problems(
        "[retry]\nsqlstate = { P0001 = 'ignore', '57P01' = 'isolate', P1 = 'halt', \
         '42P01' = 'isolate', P0003 = 'retry' }\n",
    );
    assert_eq!(refused.len(), 4, "{refused:#?}");
    for key in ["P0001: expected retry", "57P01: the server", "P1: expected a", "42P01: the"] {
        assert!(refused.iter().any(|problem| problem.contains(key)), "{key}: {refused:#?}");
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let config = with_env(&[
        ("PGSLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_USERNAME", "me"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret"),
    ]);
    assert!(!format!("{:?}", config.expect("valid")).contains("s3cret"));
}

#[test]
fn problems_show_no_secret() {
    let problems = with_env(&[
        ("PGSLUICE__POSTGRES__URL", "postgres://app:s3cret@local host:x/app"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", "/nowhere/at/all"),
    ])
    .expect_err("two problems");
    assert_eq!(problems.0.len(), 2);
    assert!(!problems.to_string().contains("s3cret"));
}

#[test]
fn the_password_file_is_read_again_on_each_connect() {
    let mut secret = tempfile::NamedTempFile::new().expect("temporary file");
    secret.write_all(b"first\n").expect("temporary file");
    let path = secret.path().to_str().expect("utf-8").to_owned();
    let variables = [
        ("PGSLUICE__POSTGRES__URL", "postgres://app@localhost/app"),
        ("PGSLUICE__POSTGRES__PASSWORD_FILE", path.as_str()),
    ];
    let config = with_env(&variables).expect("valid");
    let password = || {
        let connect = config.postgres.connect_config().expect("valid");
        String::from_utf8(connect.driver.get_password().expect("password").to_vec()).expect("utf-8")
    };
    assert_eq!(password(), "first");
    std::fs::write(secret.path(), "second").expect("temporary file");
    assert_eq!(password(), "second");
}

#[test]
fn the_format_decides_what_the_fields_override() {
    let file = "[decode]\nformat = 'envelope'\n[decode.fields]\nversion = 'none'\n\
                tenant = 'header:host_id'\n";
    let decode = with_file(file).expect("valid").decode;
    assert_eq!(decode.tombstone, Tombstone::Skip);
    assert!(!decode.is_versioned());
    let sources = |field| &*decode.fields.of(field).0;
    assert_eq!(sources(EnvelopeField::Tenant), [FieldSource::Header("host_id".into())]);
    assert_eq!(sources(EnvelopeField::EventId), [FieldSource::ValuePointer("/eventId".into())]);
    let plain = with_env(&[]).expect("valid").decode;
    assert_eq!((plain.tombstone, plain.is_versioned()), (Tombstone::Delete, false));
}

#[test]
fn an_envelope_field_cannot_refer_to_another_one() {
    let file = "[decode.fields]\ntenant = 'aggregate_id'\npayload = 'payload:/a'\n";
    assert_eq!(problems(file).len(), 2);
}

#[test]
fn routes_are_read_in_order_with_the_formats_defaults() {
    let file = "[decode]\nformat = 'envelope'\n[[route]]\nevent_type = ['A', 'B']\n\
                [route.upsert]\ntable = 'public.customer'\nkey = { id = 'aggregate_id' }\n\
                columns = { name = 'payload:/newName' }\n[[route]]\nevent_type = 'C'\n\
                [route.delete]\ntable = 'customer'\nkey = { id = 'aggregate_id' }\n\
                soft = { active = 'const:false' }\n[[route]]\ntopic = 't'\ndocument = {}\n\
                [[route]]\nskip = true\n";
    let routes = with_file(file).expect("valid").routes;
    assert_eq!(routes[0].event_type, ["A", "B"]);
    let RouteAction::Upsert(upsert) = &routes[0].action else { panic!() };
    assert_eq!(upsert.columns.as_ref().map(Vec::len), Some(1));
    assert!(matches!(&routes[1].action, RouteAction::Delete(delete) if delete.soft.len() == 1));
    let document = DocumentRoute { state: DocumentState::Merge, delete: false };
    assert_eq!(routes[2].action, RouteAction::Document(document));
    assert_eq!(routes[3].action, RouteAction::Skip);
}

#[test]
fn a_route_that_cannot_be_meant_is_refused() {
    let file = "[[route]]\ntopic = 'a'\n[[route]]\nskip = true\ndocument = {}\n\
                [[route]]\nupsert = { table = 'a.b.c', key = {}, columns = 'all' }\n\
                [[route]]\nevent_type = []\nskip = true\n";
    let lines: Vec<_> =
        problems(file).iter().map(|p| p.split_once(':').expect("key").0.to_owned()).collect();
    assert_eq!(
        lines,
        [
            "1 route[0]",
            "5 route[1].document",
            "7 route[2].upsert.table",
            "7 route[2].upsert.key",
            "7 route[2].upsert.columns",
            "9 route[3].event_type",
        ]
    );
}

#[test]
fn dead_letters_may_not_go_to_a_topic_that_is_read() {
    let problems = problems("[kafka]\ntopics = 'x'\n[dead_letter]\ntopic = '{topic}'\n");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("4 dead_letter.topic"), "{problems:?}");
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let file = "[retry]\ninitial = '10s'\nmax = '1s'\n[postgres]\ndeadline = '20s'\n\
                url_file = '/nowhere'\n";
    let problems = problems(file);
    assert!(problems.iter().any(|p| p.starts_with("3 retry.max")), "{problems:?}");
    assert!(problems.iter().any(|p| p.starts_with("5 postgres.deadline")), "{problems:?}");
    assert!(problems.iter().any(|p| p.contains("either url or url_file")), "{problems:?}");
}

#[test]
fn timings_that_cannot_stand_together_are_refused() {
    let file = "[kafka]\nrevoke_budget = '60s'\n[kafka.properties]\n'max.poll.interval.ms' = 50000\n\
                'session.timeout.ms' = 60000\n'heartbeat.interval.ms' = 60000\n\
                [postgres]\nlane_lock_timeout = '3s'\nslow_lock_timeout = '2s'\n\
                statement_timeout = '2s'\n";
    let lines: Vec<_> =
        problems(file).iter().map(|p| p.split_once(':').expect("key").0.to_owned()).collect();
    assert_eq!(
        lines,
        [
            "2 kafka.revoke_budget",
            "5 kafka.properties.session.timeout.ms",
            "6 kafka.properties.heartbeat.interval.ms",
            "8 postgres.lane_lock_timeout",
            "9 postgres.slow_lock_timeout",
        ]
    );
}

#[test]
fn sources_and_dead_letters_that_get_in_each_others_way_are_refused() {
    for (topics, letters) in [
        ("['^a.*']", "{topic}"),
        ("['^a.*', 'b-dlq']", "{topic}-dlq"),
        ("['a', 'a-dlq']", "{topic}-dlq"),
        ("['a', 'letters']", "letters"),
    ] {
        let file = format!("[dead_letter]\ntopic = '{letters}'\n");
        let topics = topics.trim_matches(['[', ']']).replace(['\'', ' '], "");
        let mut path = tempfile::NamedTempFile::new().expect("temporary file");
        path.write_all(file.as_bytes()).expect("temporary file");
        let pairs = [("PGSLUICE__KAFKA__TOPICS", topics.as_str())];
        let more = env(&pairs);
        let problems = load(Some(path.path()), env(&MINIMAL).chain(more), &AnyProperty)
            .expect_err("refused")
            .0;
        assert_eq!(problems[0].key, "dead_letter.topic", "{topics} {problems:?}");
    }
}

#[test]
fn topics_that_cannot_be_subscribed_to_are_refused() {
    with_env(&[("PGSLUICE__KAFKA__TOPICS", r"^(a|b)\.[0-9]+(-x)?$")]).expect("POSIX");
    let problems = with_env(&[("PGSLUICE__KAFKA__TOPICS", "a,b,a,^x(")]).expect_err("two").0;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].message.contains("twice"));
    assert!(problems[1].message.contains("is not a regular expression"));
}

#[test]
fn parking_gaps_needs_versions_and_a_batch_must_fit_into_memory() {
    let file = "[group]\non_gap = 'park'\n[batch]\nmax_bytes = '17MiB'\n";
    let problems = problems(file);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("2 group.on_gap"));
    assert!(problems[1].starts_with("4 batch.max_bytes"));
}

#[test]
fn a_section_that_is_no_table_is_one_problem() {
    let problems = with_env(&[("PGSLUICE__DEAD_LETTER", "x")]).expect_err("refused");
    assert!(problems.0.iter().filter(|p| p.message.contains("table of settings")).count() == 1);
}

#[test]
fn the_manual_names_the_keys_without_a_default() {
    // One that has a default and is not in the manual makes every configuration incomplete; the
    // others stand there commented out.
    for key in [
        "brokers",
        "group",
        "topics",
        "instance_id",
        "tombstone",
        "url",
        "url_file",
        "password_file",
        "format",
        "soft",
        "delete",
    ] {
        assert!(DEFAULT_TOML.contains(&format!("# {key}")), "{key}");
    }
}
