//! What an operator can mend halts the partitions concerned, says what is wrong, makes no dead
//! letter, and goes on by itself once it is mended (INV-7).

use pgsluice_testkit::case::{CUSTOMER_ROUTE, CUSTOMER_TABLE, Case, SETTLING, renamed};
use pgsluice_testkit::daemon::Daemon;
use pgsluice_testkit::kafka::{self, Outgoing, Producer};

/// Waits until the only partition is halted, and looks for the words in all three places where an
/// operator looks: the metric, `/status`, the log.
#[track_caller]
pub(crate) fn until_halted(daemon: &Daemon, reason: &str, words: &[&str]) {
    let labels = [&*format!("reason=\"{reason}\"")];
    let told = || {
        let status = daemon.status();
        let partition = &status["partitions"][0];
        let error = partition["last_error"].as_str().unwrap_or_default();
        partition["phase"] == "halted"
            && partition["reason"] == reason
            && words.iter().all(|word| error.contains(word))
    };
    daemon.until("the partition is halted and /status says why", SETTLING, || {
        daemon.metric("pgsluice_partition_halted", &labels) > 0.5 && told()
    });
    daemon.until("a line tells of it", SETTLING, || {
        daemon.log().iter().any(|line| {
            line.contains("\"partition_halted\"") && words.iter().all(|word| line.contains(word))
        })
    });
}

/// Waits until everything is applied again and nothing tells of a halt any more.
#[track_caller]
fn until_resumed(case: &Case, daemon: &Daemon, applied: usize) {
    case.until_finished(daemon);
    assert_eq!(case.count("APPLIED"), applied);
    case.assert_no_letters();
    daemon.until("the halt is over", SETTLING, || {
        daemon.metric("pgsluice_partition_halted", &[]) < 0.5 && daemon.get("/ready").0 == 200
    });
    daemon.until("a line tells that it goes on", SETTLING, || {
        daemon.log().iter().any(|line| line.contains("\"partition_resumed\""))
    });
}

/// Breaks the customers' table under a running daemon, mends it, and expects the words in between.
#[track_caller]
fn breaks_and_mends(name: &str, broken: &str, mended: &str, words: &[&str]) {
    let case = Case::new(name, 1);
    case.expects(&["partition_halted"]);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    case.database.execute(broken);
    let held = producer.send(renamed("c", 2));
    producer.send(renamed("other", 1));
    until_halted(&daemon, "schema_mismatch", words);
    assert_eq!(case.progress(0), Some(held.offset), "nothing is passed over");

    case.database.execute(mended);
    until_resumed(&case, &daemon, 3);
    assert_eq!(case.database.count("select version from customer where id = 'c'"), 2);
    daemon.stop();
}

#[test]
fn a_table_that_is_missing_at_start_is_waited_for() {
    let case = Case::new("no_table", 1);
    // The session is opened anew for the table as it is now.
    case.expects(&["partition_halted", "session_lost"]);
    case.producer().send(renamed("c", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    until_halted(
        &daemon,
        "schema_mismatch",
        &["route upsert public.customer", "public.customer", "no such table"],
    );
    assert_eq!(daemon.get("/ready").0, 503, "every partition stands still");

    case.database.execute(CUSTOMER_TABLE);
    // And granted, as an operator would: the configuration is the same.
    case.config(CUSTOMER_ROUTE);
    until_resumed(&case, &daemon, 1);
    daemon.stop();
}

/// Proves INV-7.
#[test]
fn a_renamed_table_halts_until_it_has_its_name_again() {
    breaks_and_mends(
        "renamed_table",
        "alter table customer rename to client",
        "alter table client rename to customer",
        &["route upsert public.customer", "public.customer", "no such table"],
    );
}

#[test]
fn a_renamed_column_halts_until_it_has_its_name_again() {
    breaks_and_mends(
        "renamed_column",
        "alter table customer rename column name to title",
        "alter table customer rename column title to name",
        &["route upsert public.customer", "public.customer", "column name", "no such column"],
    );
}

#[test]
fn a_missing_unique_index_halts_until_there_is_one() {
    breaks_and_mends(
        "no_index",
        "alter table customer drop constraint customer_pkey",
        "alter table customer add primary key (id)",
        &["route upsert public.customer", "public.customer", "unique index", "(id)"],
    );
}

#[test]
fn a_column_of_another_type_is_taken_up_as_it_is_now() {
    let case = Case::new("changed_type", 1);
    // The session is opened anew for the table as it is now.
    case.expects(&["partition_halted", "session_lost"]);
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    case.database
        .execute("alter table customer alter column version type jsonb using to_jsonb(version)");
    producer.send(renamed("c", 2));
    until_resumed(&case, &daemon, 2);
    let version = case.database.text("select version from customer where id = 'c'");
    assert_eq!(version.as_deref(), Some("2"));
}

/// Proves INV-13.
#[test]
fn a_value_that_its_column_can_hold_by_now_is_no_dead_letter() {
    let case = Case::new("widened", 1);
    // The session is opened anew for the table as it is now.
    case.expects(&["session_lost"]);
    case.database.execute(
        "create type mood as enum ('calm'); \
         create table n (id text primary key, code varchar(3), feeling mood)",
    );
    let route = "[[route]]\n[route.upsert]\ntable = \"public.n\"\n\
                 key = { id = \"key\" }\n\
                 columns = { code = \"payload:/code\", feeling = \"payload:/feeling\" }\n";
    let producer = case.producer();
    producer.send(Outgoing::new("a", r#"{"code":"abc"}"#));
    let daemon = case.daemon(route);
    case.until_finished(&daemon);

    case.database.execute("alter table n alter column code type varchar(20)");
    case.database.execute("alter type mood add value 'merry'");
    producer.send(Outgoing::new("a", r#"{"code":"abcdef","feeling":"merry"}"#));
    case.until_finished(&daemon);
    assert_eq!(case.count("APPLIED"), 2);
    let row = case.database.text("select code || ' ' || feeling from n");
    assert_eq!(row.as_deref(), Some("abcdef merry"));
    daemon.stop();
}

#[test]
fn a_missing_partition_of_the_target_halts_until_it_is_added() {
    let case = Case::new("no_partition", 1);
    case.expects(&["partition_halted"]);
    case.database.execute(
        "create table customer (id text primary key, name text not null, note text, \
           version bigint not null) partition by range (id); \
         create table customer_a partition of customer for values from ('a') to ('n')",
    );
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.producer().send_all([renamed("a", 1), renamed("z", 1)]);
    until_halted(
        &daemon,
        "schema_mismatch",
        &["route upsert public.customer", "23514", "public.customer"],
    );

    case.database
        .execute("create table customer_n partition of customer for values from ('n') to ('zz')");
    until_resumed(&case, &daemon, 2);
}

/// Proves INV-7.
#[test]
fn a_revoked_grant_halts_until_it_is_granted() {
    let case = Case::new("revoked", 1);
    case.expects(&["partition_halted"]);
    let role = &case.role;
    case.database.execute(CUSTOMER_TABLE);
    let producer = case.producer();
    producer.send(renamed("c", 1));
    let daemon = case.daemon(CUSTOMER_ROUTE);
    case.until_finished(&daemon);

    case.database.execute(&format!("revoke insert on customer from {role}"));
    producer.send(renamed("c", 2));
    let words = ["route upsert public.customer", "public.customer", "grant insert"];
    until_halted(&daemon, "permission_denied", &words);

    case.database.execute(&format!("grant insert on customer to {role}"));
    until_resumed(&case, &daemon, 2);
}

#[test]
fn dead_letters_wait_in_their_table_for_a_topic_that_is_not_there() {
    let case = Case::new("no_dlq", 1);
    case.expects(&["dead_letters", "letters_stuck"]);
    case.producer().send_all([Outgoing::new("sick", "{"), Outgoing::new("well", "{}")]);
    let daemon = case.daemon("[dead_letter]\ncreate_topic = false\n");
    case.until_finished(&daemon);
    let unpublished = "select count(*) from pgsluice.dead_letter_t where published_at is null";
    assert_eq!(case.database.count(unpublished), 1);

    let topic = format!("{}-dlq", case.topic);
    assert_eq!(kafka::partition_count(&topic), None, "nobody created it");
    kafka::create_topic(&topic, 1);
    daemon.until("the letter is published", SETTLING, || kafka::read_all(&topic).len() == 1);
    daemon.until("the letter is marked", SETTLING, || case.database.count(unpublished) == 0);
}

#[test]
fn a_database_that_refuses_to_give_out_dead_letters_is_told_of_once() {
    let case = Case::new("no_claim", 1);
    case.expects(&["dead_letters", "letters_unclaimed"]);
    let role = &case.role;
    let daemon = case.daemon_with("", &[("PGSLUICE__LOG__LEVEL", "debug")]);
    daemon.until_ready();

    // The publisher reads the sink's row beside the letters, and nobody else does any more.
    case.database.execute(&format!("revoke select on pgsluice.sink_t from {role}"));
    let told = |level: &str, event: &str| {
        let lines = daemon.log().into_iter();
        let of = |line: &String| line.contains(&format!("\"{event}\"")) && line.contains(level);
        lines.filter(of).count()
    };
    case.producer().send(Outgoing::new("sick", "{"));
    daemon.until("the next rounds fail as well", SETTLING, || {
        told("DEBUG", "letters_unclaimed") >= 2
    });
    assert_eq!(told("WARN", "letters_unclaimed"), 1);
    assert_eq!(told("INFO", "letters_claimed"), 0);

    case.database.execute(&format!("grant select on pgsluice.sink_t to {role}"));
    let topic = format!("{}-dlq", case.topic);
    daemon.until("the letter is published", SETTLING, || kafka::read_all(&topic).len() == 1);
    assert_eq!(told("INFO", "letters_claimed"), 1);
    assert_eq!(told("WARN", "letters_unclaimed"), 1);
}

#[test]
fn a_code_of_the_users_own_halts_where_the_configuration_says_so() {
    let case = Case::new("own_code", 1);
    case.expects(&["partition_halted"]);
    case.database.execute(CUSTOMER_TABLE);
    case.database.execute(
        "create function closed() returns trigger language plpgsql as $$ begin \
           raise exception 'closed' using errcode = 'CL001'; end $$; \
         create trigger closed before insert on customer for each row execute function closed()",
    );
    let daemon =
        case.daemon(&format!("{CUSTOMER_ROUTE}\n[retry]\nsqlstate = {{ \"CL001\" = \"halt\" }}\n"));
    case.producer().send(renamed("c", 1));
    until_halted(&daemon, "raised_exception", &["route upsert public.customer", "CL001"]);

    case.database.execute("drop trigger closed on customer");
    until_resumed(&case, &daemon, 1);
}

#[test]
fn a_missing_table_halts_the_topics_of_its_route_and_no_others() {
    let case = Case::new("other_topic", 1);
    // The session is opened anew for the table as it is now, and because it is ended here.
    case.expects(&["partition_halted", "session_lost"]);
    let other = kafka::topic("other-topic", 1);
    let routes = format!(
        "[[route]]\ntopic = \"{}\"\n[route.upsert]\ntable = \"public.customer\"\n\
         key = {{ id = \"aggregate_id\" }}\n\
         columns = {{ name = \"payload:/newName\", version = \"version\" }}\n\
         [[route]]\n[route.document]\n[decode]\nformat = \"envelope\"\n",
        case.topic
    );
    let topics = format!("{},{other}", case.topic);
    case.producer().send(renamed("c", 1));
    let elsewhere = Producer::new(&other);
    elsewhere.send(renamed("d", 1));
    let daemon = case.daemon_with(&routes, &[("PGSLUICE__KAFKA__TOPICS", topics.as_str())]);
    let halted = || daemon.metric("pgsluice_partition_halted", &["reason=\"schema_mismatch\""]);
    daemon.until("one is halted", SETTLING, || halted() > 0.5);
    daemon.until("the other is read", SETTLING, || case.version("d") == Some(1));

    // WHEN the session is lost meanwhile
    case.database.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and application_name like 'pgsluice%' limit 1",
    );
    elsewhere.send(renamed("d", 2));
    daemon.until("the other is read on", SETTLING, || case.version("d") == Some(2));
    assert_eq!(daemon.get("/ready").0, 200, "only one partition stands still");
    assert!(halted() > 0.5 && halted() < 1.5);
    assert_eq!(case.progress(0), None, "not taken before it can be read");

    case.database.execute(CUSTOMER_TABLE);
    case.config(&routes);
    case.until_finished(&daemon);
    daemon.until("the halt is over", SETTLING, || halted() < 0.5);
    assert_eq!(case.database.count("select version from customer where id = 'c'"), 1);
    daemon.stop();
}

#[test]
fn an_event_that_no_route_matches_halts_at_its_offset_where_that_is_asked_for() {
    let case = Case::new("unmatched", 1);
    case.expects(&["partition_halted"]);
    case.database.execute(CUSTOMER_TABLE);
    let order = Outgoing::new(
        "o",
        r#"{"aggregateId":"o","aggregateType":"Order","eventType":"Placed","eventId":"1","sequenceNumber":1}"#,
    );
    let places = case.producer().send_all([renamed("c", 1), order, renamed("c", 2)]);
    let asked = |routes: &str| format!("on_unmatched = \"halt\"\n{}", case.config(routes));
    let daemon = case.daemon_of(Some(&asked(CUSTOMER_ROUTE)), &[]);
    until_halted(&daemon, "unmatched_halt", &[]);
    let told = daemon.log().into_iter().find(|line| line.contains("\"partition_halted\""));
    assert!(told.as_ref().is_some_and(|line| line.contains("\"offset\":1")), "{told:?}");
    daemon.until("what came before is durable", SETTLING, || case.progress(0) == Some(1));
    daemon.stop();

    let skip = format!("{CUSTOMER_ROUTE}[[route]]\nskip = true\n");
    let daemon = case.daemon_of(Some(&asked(&skip)), &[]);
    case.until_finished(&daemon);
    case.assert_outcomes(places.into_iter().zip(["APPLIED", "SKIPPED", "APPLIED"]));
    daemon.stop();
}
