//! INV-9 on every failure path: a marked password, key, payload and header go in, and the marks
//! come out nowhere but in the original record.

use base64::Engine as _;
use serde_json::json;

use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, SETTLING, customer_event};
use pgsluice_testkit::daemon::{Daemon, pgsluice};
use pgsluice_testkit::kafka::{self, Incoming, Outgoing, Place};
use pgsluice_testkit::postgres::Postgres;
use pgsluice_testkit::process::{next_number, scratch};
use pgsluice_testkit::wait;

pub(crate) const PASSWORD: &str = "PasswordCanary4711";
const KEY: &str = "KeyCanary4711";
const PAYLOAD: &str = "PayloadCanary4711";
const HEADER: &str = "HeaderCanary4711";
const MARKS: [&str; 4] = [PASSWORD, KEY, PAYLOAD, HEADER];

/// Everything may be logged: the filter is the operator's choice.
const TRACE: (&str, &str) = ("PGSLUICE__LOG__LEVEL", "trace");

/// The table refuses by a check, a unique index, a cast, a not-null column and a trigger that
/// writes the row's value into every text an error and a warning have.
const REFUSALS: &str = "alter table customer add constraint no_check check (name <> 'check' or length(note) < 3); \
     create unique index only_once on customer (note) where name = 'unique'; \
     insert into customer values ('taken', 'unique', 'PayloadCanary4711', 1); \
     create function refuse() returns trigger language plpgsql as $$ begin \
       raise warning 'warned of %', new.note; \
       if new.name = 'cast' then perform new.note::integer; end if; \
       if new.name = 'raise' then raise exception using \
         message = 'no ' || new.note, detail = new.note, hint = new.note; end if; \
       return new; end $$; \
     create trigger refuse before insert or update on customer \
       for each row execute function refuse()";

/// Records that each fail in another way, with the reason it must have.
fn failing_records() -> Vec<(Outgoing, &'static str)> {
    let refused = |how: &str| {
        let payload = json!({ "newName": how, "note": PAYLOAD });
        customer_event(how, 1, &format!("e-{how}"), &payload)
    };
    let event = |members: &str| {
        let value = format!(
            "{{\"eventId\":\"x\",\"timestamp\":\"2026-01-01T00:00:00Z\",\
             \"aggregateType\":\"Customer\",\"newName\":\"{PAYLOAD}\",{members}}}"
        );
        Outgoing::new("replaced", value)
    };
    let nested = json!({ "newName": { "nested": PAYLOAD } });
    let null = json!({ "newName": null, "note": PAYLOAD });
    let records = vec![
        (Outgoing::new("replaced", format!("{{\"{PAYLOAD}\"")), "json_syntax"),
        (event("\"aggregateId\":\"f\",\"sequenceNumber\":1"), "field_missing"),
        (
            event(&format!(
                "\"eventType\":\"T\",\"aggregateId\":\"v\",\"sequenceNumber\":\"{PAYLOAD}\""
            )),
            "version_invalid",
        ),
        (customer_event("nested", 1, "e-nested", &nested), "column_value"),
        (customer_event("null", 1, "e-null", &null), "constraint_violation"),
        (refused("check"), "constraint_violation"),
        (refused("unique"), "constraint_violation"),
        (refused("cast"), "data_exception"),
        (refused("raise"), "raised_exception"),
    ];
    let numbered = records.into_iter().enumerate();
    numbered.map(|(n, (record, reason))| (marked(record, n), reason)).collect()
}

/// A record that can be applied, marked all the same.
fn harmless(n: usize) -> Outgoing {
    let payload = json!({ "newName": "n", "note": PAYLOAD });
    marked(customer_event(&format!("harmless{n}"), 1, &format!("e{n}"), &payload), n)
}

fn marked(record: Outgoing, n: usize) -> Outgoing {
    record.keyed(&format!("{KEY}-{n}")).header("trace", Some(HEADER.as_bytes()))
}

/// A server that asks daemons for their password, and the test itself for nothing.
pub(crate) fn guarded_server() -> Postgres {
    let rules = scratch().join(format!("hba-{}.conf", next_number()));
    std::fs::write(
        &rules,
        "host all +guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
    )
    .expect("write pg_hba.conf");
    Postgres::with(&["fsync=off", &format!("hba_file={}", rules.display())])
}

pub(crate) fn guarded_case(server: &Postgres, name: &str) -> Case {
    let case = Case::on(server, name, 1);
    let role = &case.role;
    case.database.execute(&format!(
        "create role guarded; grant guarded to {role}; alter role {role} password '{PASSWORD}'"
    ));
    case
}

fn url_with_password(case: &Case, password: &str) -> String {
    case.database.url_as(&format!("{}:{password}", case.role))
}

/// The forms in which a value could slip into a text: as it is, in hex, as Rust prints bytes, and
/// in base64 at each of its three alignments.
fn forms(mark: &str) -> Vec<String> {
    let bytes = mark.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let base64 = (0..3).map(|skipped| {
        let whole = (bytes.len() - skipped) / 3 * 3;
        base64::engine::general_purpose::STANDARD.encode(&bytes[skipped..skipped + whole])
    });
    [mark.to_owned(), hex, decimal.join(", "), decimal.join(",")]
        .into_iter()
        .chain(base64)
        .collect()
}

#[track_caller]
fn assert_unmarked(place: &str, text: &str, marks: &[&str]) {
    let lower = text.to_ascii_lowercase();
    for form in marks.iter().flat_map(|mark| forms(mark)) {
        let found = lower.find(&form.to_ascii_lowercase());
        let around = found.map(|at| {
            let from = at.saturating_sub(200);
            String::from_utf8_lossy(&lower.as_bytes()[from..(at + 200).min(lower.len())])
        });
        assert!(around.is_none(), "{form:?} in {place}: …{}…", around.unwrap_or_default());
    }
}

/// Looks through what a running daemon shows.
#[track_caller]
fn assert_daemon_unmarked(daemon: &Daemon) {
    for page in ["/metrics", "/status", "/ready", "/live"] {
        assert_unmarked(page, &daemon.get(page).1, &MARKS);
    }
    assert_log_unmarked(daemon);
}

#[track_caller]
fn assert_log_unmarked(daemon: &Daemon) {
    let log = daemon.log();
    assert!(!log.is_empty(), "there is a log to look at");
    assert_unmarked("the log", &log.join("\n"), &MARKS);
}

/// Looks through every column that is text of ours. A record whose envelope cannot be read goes by
/// its key, so the aggregate's id may be the key, but nothing else.
#[track_caller]
fn assert_tables_unmarked(case: &Case) {
    let ours = "select (to_jsonb(n) - 'aggregate_id')::text from pgsluice.notification_t n \
         union all select (to_jsonb(d) - '{aggregate_id,key,value,headers}'::text[])::text \
           from pgsluice.dead_letter_t d \
         union all select coalesce(parked_reason, '') from pgsluice.aggregate_t \
         union all select to_jsonb(s)::text from pgsluice.stream_t s";
    let rows = case.database.rows(ours);
    assert!(rows.len() > failing_records().len(), "there are rows to look at");
    assert_unmarked("the tables", &format!("{rows:?}"), &MARKS);
    let ids = case.database.rows("select aggregate_id from pgsluice.notification_t");
    assert_unmarked("aggregate ids", &format!("{ids:?}"), &[PASSWORD, PAYLOAD, HEADER]);
}

/// Looks through the context headers; the record's own header is the original's.
#[track_caller]
fn assert_letters_unmarked(letters: &[Incoming]) {
    for letter in letters {
        let (own, context) = letter.headers.split_at(1);
        assert_eq!(own[0], ("trace".to_owned(), Some(HEADER.as_bytes().to_vec())));
        assert!(context.len() > 10, "there are context headers: {context:?}");
        for (name, value) in context {
            let text = String::from_utf8_lossy(value.as_deref().unwrap_or_default());
            let id = name == "pgsluice.aggregate.id";
            let marks = if id { &[PASSWORD, PAYLOAD, HEADER][..] } else { &MARKS[..] };
            assert_unmarked(name, &text, marks);
        }
    }
}

/// Proves INV-9.
#[test]
fn nothing_marked_gets_out_of_records_that_fail_and_of_an_outage_between_them() {
    let server = guarded_server();
    let case = guarded_case(&server, "canary");
    case.expects(&["dead_letters", "letters_stuck", "session_lost", "partition_halted"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(REFUSALS);
    let (records, reasons): (Vec<_>, Vec<_>) = failing_records().into_iter().unzip();
    let places = case.producer().send_all(records);
    let url = url_with_password(&case, PASSWORD);
    // Nobody creates the dead letter topic yet: publishing fails, too.
    let config = format!("{CUSTOMER_ROUTE}[dead_letter]\ncreate_topic = false\n");
    let daemon = case.daemon_with(&config, &[("PGSLUICE__POSTGRES__URL", &url), TRACE]);
    case.until_finished(&daemon);
    daemon.until("publishing is stuck", SETTLING, || {
        daemon.metric("pgsluice_letters_stuck_seconds", &[]) > 0.0
    });
    assert_daemon_unmarked(&daemon);

    let dead_letter_topic = format!("{}-dlq", case.topic);
    kafka::create_topic(&dead_letter_topic, 1);
    daemon.until("the letters are published", SETTLING, || {
        kafka::read_all(&dead_letter_topic).len() == places.len()
    });

    // WHEN the database is down while a record waits, and later a table is missing
    server.stop();
    daemon.until("the outage is noticed", SETTLING, || daemon.get("/ready").0 == 503);
    let waiting = case.producer().send(harmless(100));
    assert_daemon_unmarked(&daemon);
    server.start();
    case.until_finished(&daemon);
    case.database.execute("alter table customer rename to mislaid");
    let halted = case.producer().send(harmless(101));
    daemon.until("the partition halts", SETTLING, || {
        daemon.metric("pgsluice_halts_total", &[]) > 0.0
    });
    assert_daemon_unmarked(&daemon);
    case.database.execute("alter table mislaid rename to customer");
    case.until_finished(&daemon);

    // THEN every failure was met, each is explained, and no mark got out on the way
    assert_reasons(&case, &places, &reasons, [waiting, halted]);
    assert_letters_unmarked(&kafka::read_all(&dead_letter_topic));
    assert_tables_unmarked(&case);
    assert_daemon_unmarked(&daemon);
    daemon.stop();
    assert_log_unmarked(&daemon);
}

#[track_caller]
fn assert_reasons(case: &Case, places: &[Place], reasons: &[&str], applied: [Place; 2]) {
    let dead = places.iter().map(|place| (*place, "DEAD_LETTERED"));
    case.assert_outcomes(dead.chain(applied.map(|place| (place, "APPLIED"))));
    for (place, reason) in places.iter().zip(reasons) {
        assert_eq!(case.reason(*place).as_deref(), Some(*reason), "{place:?}");
    }
}

/// Proves INV-9.
#[test]
fn a_refused_database_password_is_not_told_again() {
    let server = guarded_server();
    let case = guarded_case(&server, "canary_password");
    case.expects(&["session_lost", "startup_timeout"]);
    // The right one is marked as well; the wrong one holds it.
    let url = url_with_password(&case, &format!("{PASSWORD}wrong"));
    let variables =
        [("PGSLUICE__POSTGRES__URL", &*url), ("PGSLUICE__POSTGRES__STARTUP_TIMEOUT", "3s"), TRACE];

    let daemon = case.daemon_with("", &variables);
    let code = daemon.wait_exit(SETTLING);

    assert!(code.is_some_and(|code| code != 0), "it started with a wrong password: {code:?}");
    let log = daemon.log().join("\n");
    assert!(log.contains("28P01"), "the log tells the server's code: {log}");
    assert_log_unmarked(&daemon);
}

#[test]
fn a_password_that_the_server_wants_and_nobody_gave_is_asked_for() {
    let server = guarded_server();
    let case = guarded_case(&server, "canary_no_password");
    let url = case.database.url_as(&case.role);
    let variables = [("PGSLUICE__POSTGRES__URL", &*url)];

    let (code, output, errors) =
        pgsluice(&["check", "--connect"], Some(&case.config("")), &variables);

    assert_eq!(code, Some(2), "{output}{errors}");
    assert!(output.contains("28000 (user or password rejected, or no password given)"), "{output}");
    assert!(output.contains("postgres.password_file"), "{output}");
}

/// Proves INV-9.
#[test]
fn a_kafka_password_that_is_of_no_use_is_not_told_again() {
    let case = Case::new("canary_sasl", 1);
    case.expects(&["librdkafka", "kafka_trouble", "kafka_unreachable"]);
    let variables = [
        ("PGSLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_MECHANISMS", "PLAIN"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_USERNAME", "canary"),
        ("PGSLUICE__KAFKA__PROPERTIES__SASL_PASSWORD", PASSWORD),
        ("PGSLUICE__KAFKA__PROPERTIES__DEBUG", "all"),
        TRACE,
    ];

    let daemon = case.daemon_with("", &variables);
    // The test's broker speaks no SASL.
    wait::until("the log tells that Kafka is of no use", SETTLING, || {
        daemon.log().iter().any(|line| line.contains("\"event\":\"kafka_"))
    });

    assert_daemon_unmarked(&daemon);
}

/// Proves INV-9.
#[test]
fn a_configuration_that_is_refused_is_explained_without_its_secrets() {
    for url in [
        format!("postgres://canary:{PASSWORD}@127.0.0.1:port/db"),
        format!("postgres://canary:a@{PASSWORD}@127.0.0.1/db"),
        format!("postgres://canary:{PASSWORD}@127.0.0.1/db?no_such_setting=1"),
        format!("host=127.0.0.1 password={PASSWORD} no_such_setting=1"),
        format!("mysql://canary:{PASSWORD}@127.0.0.1/db"),
    ] {
        let config = format!(
            "[kafka]\nbrokers = \"127.0.0.1:9092\"\ngroup = \"g\"\ntopics = [\"t\"]\n\
             [kafka.properties]\n\"sasl.pasword\" = \"{PASSWORD}\"\n\
             [postgres]\nurl = \"{url}\"\npasword = \"{PASSWORD}\"\n"
        );
        let (code, printed, errors) = pgsluice(&["check"], Some(&config), &[]);
        assert_eq!(code, Some(2), "{printed}{errors}");
        assert_unmarked("what check prints", &format!("{printed}{errors}"), &MARKS);
    }
    // The search itself finds what it is made for.
    for form in forms(PASSWORD) {
        let found = std::panic::catch_unwind(|| assert_unmarked("here", &form, &[PASSWORD]));
        assert!(found.is_err(), "{form}");
    }
}
