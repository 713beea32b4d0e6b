//! Mistakes that new users make, with the whole message that each of them gets: the place, the key,
//! what is wrong and what to write instead.

use std::io::Write;

use super::{AnyProperty, load};

const REQUIRED: &str = "[kafka]\nbrokers = \"localhost:9092\"\ngroup = \"customer-views\"\n\
     topics = [\"customer-events\"]\n[postgres]\nurl = \"postgres://pgsluice@localhost/app\"\n";

/// What is printed for a file and variables; `FILE` stands for the file's name.
fn messages(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut on_disk = tempfile::NamedTempFile::new().expect("temporary file");
    on_disk.write_all(file.as_bytes()).expect("temporary file");
    let name = on_disk.path().display().to_string();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let problems = load(Some(on_disk.path()), variables, &AnyProperty).expect_err("has a mistake");
    problems.to_string().lines().map(|line| line.replace(&name, "FILE")).collect()
}

/// The messages for what stands behind the required settings.
fn after_required(more: &str) -> Vec<String> {
    messages(&format!("{REQUIRED}{more}"), &[])
}

#[test]
fn a_misspelled_key_is_named_with_the_nearest_one_and_its_variable_alike() {
    assert_eq!(
        messages(&REQUIRED.replace("brokers", "broker"), &[]),
        [
            "FILE:2: kafka.broker: unknown key, did you mean \"brokers\"?",
            "kafka.brokers: is missing; set it in the file or as PGSLUICE__KAFKA__BROKERS",
        ]
    );
    assert_eq!(
        after_required("[dead_leter]\ntopic = 'x'\n"),
        ["FILE:8: dead_leter: unknown section, did you mean \"dead_letter\"?"]
    );
    let variables = [
        ("PGSLUICE__POSTGRES__LANE", "8"),
        ("PGSLUICE__POSTGRES_LANES", "8"),
        ("PGSLUICE__KAFAK__GROUP", "x"),
        ("PGSLUICE_KAFKA__GROUP", "x"),
        // Injected for a service named pgsluice-kafka, or somebody else's.
        ("PGSLUICE_KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ("PGSLUICE_KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("PGSLUICE_HOME__DIR", "/"),
    ];
    let mut found = messages(REQUIRED, &variables);
    found.sort();
    assert_eq!(
        found,
        [
            "PGSLUICE_KAFKA__GROUP: is ignored: two underscores must follow PGSLUICE, did you mean \
             PGSLUICE__KAFKA__GROUP?",
            "PGSLUICE__KAFAK__GROUP: kafak: unknown section, did you mean \"kafka\"?",
            "PGSLUICE__POSTGRES_LANES: postgres_lanes: unknown key, did you mean \
             PGSLUICE__POSTGRES__LANES?",
            "PGSLUICE__POSTGRES__LANE: postgres.lane: unknown key, did you mean \
             PGSLUICE__POSTGRES__LANES?",
        ]
    );
}

#[test]
fn a_wrong_type_or_a_missing_unit_is_one_problem_and_nothing_follows_from_it() {
    let file = "lanes = \"4\"\nstatement_timeout = 30\n[limits]\nin_flight_bytes = 12\n\
                [retry]\nmax = \"30\"\n[dead_letter]\ncreate_topic = \"yes\"\n";
    assert_eq!(
        after_required(file),
        [
            "FILE:7: postgres.lanes: expected a whole number from 1 to 64, without quotes",
            "FILE:8: postgres.statement_timeout: expected a duration with its unit, such as \
             \"5ms\", \"30s\" or \"15m\"",
            "FILE:10: limits.in_flight_bytes: expected a size with its unit, such as \"8MiB\" or \
             \"512KiB\"",
            "FILE:12: retry.max: expected a duration with its unit, such as \"5ms\", \"30s\" or \
             \"15m\"",
            "FILE:14: dead_letter.create_topic: expected true or false, without quotes",
        ]
    );
}

#[test]
fn what_is_missing_is_named_with_every_way_to_give_it() {
    assert_eq!(
        messages(&REQUIRED.replace("url", "# url"), &[]),
        ["postgres.url: is missing; set it in the file or as PGSLUICE__POSTGRES__URL, or name a \
             file that holds it: postgres.url_file",]
    );
    assert_eq!(
        after_required("password_file = \"/nowhere/password\"\n"),
        ["FILE:7: postgres.password_file: cannot read /nowhere/password: no such file"]
    );
    // What stands in the place of a whole section is one mistake, not one for each key.
    assert_eq!(
        messages(REQUIRED, &[("PGSLUICE__KAFKA", "localhost:9092")]),
        ["PGSLUICE__KAFKA: kafka: expected a table of settings"]
    );
    let nowhere =
        load(Some("nowhere.toml".as_ref()), std::iter::empty(), &AnyProperty).expect_err("no file");
    assert_eq!(nowhere.to_string(), "cannot read nowhere.toml: no such file");
}

#[test]
fn settings_that_contradict_each_other_are_named_with_the_others_value() {
    assert_eq!(
        after_required(
            "statement_timeout = \"2s\"\nslow_lock_timeout = \"5s\"\ndeadline = \"1s\"\n"
        ),
        [
            "FILE:8: postgres.slow_lock_timeout: must be below postgres.statement_timeout (2s), \
             which would end the wait first",
            "FILE:9: postgres.deadline: must be above postgres.statement_timeout (2s)",
        ]
    );
    assert_eq!(
        after_required("[dead_letter]\ntopic = \"customer-events\"\n"),
        [
            "FILE:8: dead_letter.topic: dead letters of customer-events would go to customer-events, \
          which kafka.topics reads; choose another topic, or remove customer-events from \
          kafka.topics",
        ]
    );
}

#[test]
fn a_route_that_cannot_be_meant_is_told_what_to_write() {
    let file = "[[route]]\ntopics = \"customer-events\"\n[route.upsert]\n\
                tabel = \"public.customer\"\nkey = \"id\"\n\
                columns = { name = \"payload.name\", mail = \"agregate_id\", city = \"town\" }\n\
                [[route]]\ntopic = \"customer-events\"\n";
    assert_eq!(
        after_required(file),
        [
            "FILE:8: route[0].topics: unknown key, did you mean \"topic\"?",
            "FILE:9: route[0].upsert.table: is missing",
            "FILE:10: route[0].upsert.tabel: unknown key, did you mean \"table\"?",
            "FILE:11: route[0].upsert.key: expected { column = \"source\" }, such as { id = \
             \"aggregate_id\" }",
            "FILE:12: route[0].upsert.columns.city: \"town\" is not a field source: expected key, \
             key:/pointer, value, value:/pointer, payload, payload:/pointer, header:name, \
             const:text, topic, partition, offset, timestamp, or in a route aggregate_id, \
             aggregate_type, event_id, event_type, version, time, tenant, user, transaction_id, \
             correlation_id, causation_id",
            "FILE:12: route[0].upsert.columns.mail: \"agregate_id\" is not a field source, did you \
             mean \"aggregate_id\"?",
            "FILE:12: route[0].upsert.columns.name: \"payload.name\" is not a field source, did \
             you mean \"payload:/name\"?",
            "FILE:13: route[1]: does nothing: give it [route.document], [route.upsert], \
             [route.delete] or skip = true",
        ]
    );
    let key = "[[route]]\n[route.delete]\ntable = \"public.customer\"\n\
               key = { id = \"agregate_id\" }\n";
    assert_eq!(
        after_required(key),
        ["FILE:10: route[0].delete.key.id: \"agregate_id\" is not a field source, did you mean \
          \"aggregate_id\"?"]
    );
    assert_eq!(
        messages(REQUIRED, &[("PGSLUICE__ROUTE__0__SKIP", "true")]),
        ["PGSLUICE__ROUTE__0__SKIP: route: cannot be set by a variable; set it in a file"]
    );
    assert_eq!(
        after_required("[decode.fields]\nid = \"key\"\n"),
        ["FILE:8: decode.fields.id: unknown key; known keys are aggregate_id, aggregate_type, \
          causation_id, correlation_id, event_id, event_type, nonce, payload, tenant, time, \
          transaction_id, user, version"]
    );
    assert_eq!(
        after_required("[route]\ntopic = \"x\"\n"),
        ["FILE:8: route: expected a list of tables: write [[route]], with two brackets"]
    );
}

#[test]
fn an_at_sign_that_stands_as_it_is_in_the_urls_password_is_told_of_and_not_shown() {
    let file = REQUIRED.replace("pgsluice@", "pgsluice:s3@cret@");
    assert_eq!(
        messages(&file, &[]),
        [
            "FILE:6: postgres.url: contains an @ that does not end user and password: percent-encode \
          special characters there and in everything that follows, @ as %40, / as %2F, ? as %3F, # \
          as %23, % as %25"
        ]
    );
}

#[test]
fn two_passwords_are_one_too_many() {
    let mut secret = tempfile::NamedTempFile::new().expect("temporary file");
    secret.write_all(b"s3cret").expect("temporary file");
    let file = REQUIRED.replace("pgsluice@", "pgsluice:other@");
    let path = secret.path().to_str().expect("utf-8");
    assert_eq!(
        messages(&file, &[("PGSLUICE__POSTGRES__PASSWORD_FILE", path)]),
        [
            "FILE:6: postgres.url: contains a password, and postgres.password_file names one as well: \
          give only one of them"
        ]
    );
}

#[test]
fn each_setting_that_cannot_be_meant_has_its_sentence() {
    let long = "x".repeat(250);
    for (file, expected) in [
        (
            "schema = 'pg_sluice'",
            "postgres.schema: names that start with pg_ are reserved for PostgreSQL",
        ),
        ("schema = \"a\\tb\"", "postgres.schema: expected a name of at most 63 bytes"),
        ("[dead_letter]\nreplication_factor = 0", "replication_factor: expected -1 (the broker's"),
        ("[dead_letter]\ntopic = 'a b'", "dead_letter.topic: expected a topic name, in which"),
        ("[dead_letter]\nflood = { share = 1.5 }", "flood.share: expected a share from 0.0 to 1.0"),
        ("[admin]\nlisten = 'localhost:9187'", "admin.listen: expected an address and port"),
        ("[retry]\ninitial = '0s'", "retry.initial: expected 1ms to 1h"),
        (
            "[notification]\nwrite = 'none'\nevent_json = 'all'",
            "FILE:9: notification.event_json: has no effect: notification.write is \"none\"",
        ),
        (
            "[[route]]\n[route.upsert]\ntable = 't'\nkey = { id = 'key' }\ncolumns = ['a']",
            "FILE:11: route[0].upsert.columns: expected { column = \"source\" } or \"auto\"",
        ),
        (
            "[[route]]\nname = ''\nskip = true",
            "FILE:8: route[0].name: must not be empty; remove it",
        ),
        (
            "[[route]]\nname = \"a\\u0007\"\nskip = true",
            "FILE:8: route[0].name: contains a control character",
        ),
        (
            &format!("[[route]]\nname = '{long}'\nskip = true"),
            "FILE:8: route[0].name: is 250 bytes long, but at most 63 are allowed",
        ),
        (
            "[[route]]\nname = 'route[3]'\nskip = true",
            "FILE:8: route[0].name: is reserved for rows written before routes had names",
        ),
        (
            "[[route]]\nname = 'a'\nskip = true\n[[route]]\nskip = true\nname = 'a'",
            "FILE:12: route[1].name: is already the name of route[0]",
        ),
        (
            "[[route]]\ntopic = '^orders-.*'\nskip = true",
            "FILE:8: route[0].topic: \"^orders-.*\" is not a topic name; a \"^pattern\" is allowed \
             only in",
        ),
        ("[batch]\nmax_bytes = '1B'", "batch.max_bytes: expected 1KiB to 1024GiB"),
        ("[[route]]\nskip = false", "route[0].skip: expected true; otherwise remove the route"),
        ("[[route]]\n[route.document]\ndelete = true\nstate = 'merge'", "state: has no meaning"),
        ("[[route]]\n[route.upsert]\ntable = 't'\nkey = { id = 'key' }", "columns: is missing;"),
        (
            "[[route]]\n[route.upsert]\ntable = 't'\nkey = { id = 'key' }\n\
             columns = { id = 'key' }",
            "route[0].upsert.columns: \"id\" is already a key column",
        ),
        (
            "[[route]]\n[route.delete]\ntable = 't'\nkey = { id = 'key' }\nsoft = {}",
            "route[0].delete.soft: needs at least one column; remove it to delete the row",
        ),
        (
            "[[route]]\n[route.delete]\ntable = 't'\nkey = { id = [] }",
            "route[0].delete.key.id: needs at least one field source",
        ),
        (
            &format!("[[route]]\n[route.delete]\ntable = 't'\nkey = {{ {long} = 'key' }}"),
            "is not a column name",
        ),
    ] {
        let found = after_required(&format!("{file}\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{file}: {found:#?}");
    }
}

#[test]
fn each_setting_of_kafka_that_cannot_be_meant_has_its_sentence() {
    let long = "x".repeat(250);
    for (variable, value, expected) in [
        ("BROKERS", "b:9092;c:9092", "expected host:port, separated by commas, such as"),
        // As YAML's block texts end.
        ("START_FROM", "latest\n", "has leading or trailing spaces or line breaks"),
        ("GROUP", "views\n", "has leading or trailing spaces or line breaks"),
        ("GROUP", long.as_str(), "is longer than 249 bytes"),
        ("INSTANCE_ID", "", "must not be empty; remove it for a dynamic member"),
        ("TOPICS", " , ", "needs at least one topic name"),
        ("TOPICS", r"^orders-\d+$", r"has \d, which POSIX regular expressions do not support"),
        ("TOPICS", "^(?:a|b)$", "has (?, which POSIX regular expressions do not support"),
        ("TOPICS", "^a+?b$", "has +?, which POSIX regular expressions do not support"),
        ("TOPICS", "a b", "is neither a topic name nor a"),
        ("START_FROM", "yesterday", "expected earliest | latest | error | a time such as"),
        ("PROPERTIES__TRANSACTIONAL_ID", "x", "cannot be set, because the guarantees depend on it"),
        (
            "PROPERTIES__REQUEST_REQUIRED_ACKS",
            "1",
            "cannot be set, because the guarantees depend on it",
        ),
    ] {
        let name = format!("PGSLUICE__KAFKA__{variable}");
        let found = messages(REQUIRED, &[(&name, value)]);
        assert!(found.len() == 1 && found[0].contains(expected), "{name}: {found:#?}");
    }
}
