//! What the slow lane does with data that cannot be applied: dead letter, parking, ownership.

use pgsluice::route::{Column, CompiledAction, Target};
use pgsluice::sql::column_type::ColumnType;
use pgsluice_core::event::{AggregateKey, Value};
use pgsluice_core::fault::Decision;
use pgsluice_core::group::GroupReply;
use pgsluice_core::record::{OwnerEpoch, Raw};
use pgsluice_core::verdict::Verdict;

use crate::fixture::{
    DOCUMENT, Fixture, Lane, document, done, failed_before, failed_code, failed_with, group,
    group_of, incompressible, poison, upsert, upserting,
};

/// A table whose column `parent` has a deferred foreign key, and `amount` a check.
fn child_route() -> CompiledAction {
    let column = |name: &str, ty| Column::new(name, ty);
    upserting(Target {
        schema: "public".into(),
        table: "child".into(),
        key: vec![column("id", ColumnType::Int8)],
        columns: vec![column("parent", ColumnType::Int8), column("amount", ColumnType::Numeric)],
    })
}

fn with_child_table(name: &str) -> Fixture {
    let fixture = Fixture::new(name, vec![child_route()]);
    fixture.database.execute(
        "create table parent (id bigint primary key);
         insert into parent values (1);
         create table child (
             id bigint primary key,
             parent bigint references parent deferrable initially deferred,
             amount numeric constraint positive check (amount > 0))",
    );
    fixture
}

fn child(offset: i64, parent: i64, amount: &str) -> pgsluice_core::event::Event {
    upsert(offset, &[Some(Value::Int(parent)), Some(Value::Text(amount.into()))])
}

const ENDED_BY_POISON: [Verdict; 4] =
    [Verdict::Applied, Verdict::DeadLettered, Verdict::Parked, Verdict::Parked];

/// Proves INV-2 and INV-8.
#[test]
fn the_good_beginning_commits_with_the_letter_of_the_event_that_ended_it() {
    let fixture = with_child_table("poison_prefix");
    let events =
        || vec![child(5, 1, "1.50"), child(6, 1, "-1"), child(7, 1, "2"), child(8, 1, "3")];
    // WHEN the data fails for the first time, nothing is decided and nothing is left behind
    let first = fixture.slow(group(1, events()));
    assert_eq!(failed_code(&first), "23514");
    assert_eq!(fixture.lines("select 1 from pgsluice.aggregate_t"), [""; 0]);
    // WHEN it fails again
    assert_eq!(fixture.slow(failed_before(group(1, events()))), done(&ENDED_BY_POISON));
    assert_eq!(fixture.line("select id, parent, amount from child"), "1|1|1.50");
    assert_eq!(
        fixture.letters(1),
        ["6|poison|constraint_violation", "7|parked|aggregate_parked", "8|parked|aggregate_parked"]
    );
    assert_eq!(
        fixture.line(
            "select sqlstate, constraint_name, attempts, aggregate_type, aggregate_id, \
             aggregate_version, event_id, event_type, published_at from pgsluice.dead_letter_t \
             where \"offset\" = 6"
        ),
        "23514|positive|2|Customer|c-1|6|e6|Changed|-"
    );
    assert_eq!(fixture.ledger(), "5|e5|1|8|0|f|constraint_violation|-");
    assert_eq!(
        fixture.notes(1),
        [
            "5|APPLIED|-",
            "6|DEAD_LETTERED|constraint_violation",
            "7|PARKED|aggregate_parked",
            "8|PARKED|aggregate_parked"
        ]
    );
    assert_eq!(
        fixture.line("select sqlstate, error from pgsluice.notification_t where \"offset\" = 6"),
        "23514|constraint violation: sqlstate 23514, constraint positive, table public.child"
    );
}

#[test]
fn a_deferred_constraint_is_found_before_commit() {
    let fixture = with_child_table("poison_deferred");
    let events = || vec![child(5, 1, "1"), child(6, 404, "1"), child(7, 1, "2"), child(8, 1, "3")];
    let first = fixture.slow(group(1, events()));
    assert_eq!(failed_code(&first), "23503");
    assert_eq!(fixture.slow(failed_before(group(1, events()))), done(&ENDED_BY_POISON));
    assert_eq!(fixture.line("select parent from child"), "1");
    assert_eq!(
        fixture.line("select constraint_name from pgsluice.dead_letter_t where \"offset\" = 6"),
        "child_parent_fkey"
    );
}

/// Proves INV-7.
#[test]
fn a_second_failure_of_another_kind_is_no_verdict_yet() {
    let fixture = with_child_table("poison_kind");
    // GIVEN a group that failed before, but for want of a lock
    let locked = failed_with(group(1, vec![child(5, 1, "-1")]), *b"55P03");
    assert_eq!(failed_code(&fixture.slow(locked)), "23514");
    assert_eq!(fixture.letters(1), [""; 0]);
}

/// Proves INV-7.
#[test]
fn what_an_operator_can_mend_is_never_a_letter() {
    let fixture = with_child_table("poison_halt");
    fixture.database.execute("drop table child");
    let reply = fixture.slow(failed_before(group(1, vec![child(5, 1, "1")])));
    assert_eq!(failed_code(&reply), "42P01");
    assert_eq!(fixture.letters(1), [""; 0]);
    // the connection is usable again
    assert_eq!(
        failed_code(&fixture.slow(failed_before(group(1, vec![child(5, 1, "1")])))),
        "42P01"
    );
}

/// Proves INV-10.
#[test]
fn who_lost_the_stream_writes_no_letter_and_parks_nothing() {
    let fixture = with_child_table("poison_owner");
    fixture.database.execute("update pgsluice.stream_t set owner_epoch = owner_epoch + 1");
    let events = vec![child(5, 1, "1"), child(6, 1, "-1"), child(7, 1, "1")];
    assert_eq!(fixture.slow(failed_before(group(1, events))), GroupReply::NotOwner);
    assert_eq!(fixture.letters(1), [""; 0]);
    // what the new owner would have applied all the same is applied
    assert_eq!(fixture.ledger(), "5|e5|1|5|0|f|-|-");
    assert_eq!(fixture.notes(1), ["5|APPLIED|-"]);
    let mut older = group(2, vec![poison(5, None)]);
    older.origin.epoch = OwnerEpoch(6);
    assert_eq!(fixture.slow(older), GroupReply::NotOwner);
}

/// Proves INV-2.
#[test]
fn a_commit_that_the_server_turned_into_a_rollback_is_a_failure() {
    let fixture = with_child_table("poison_rollback");
    // GIVEN a letter that cannot be written, which the driver reports with a COMMIT that succeeds
    fixture.database.execute(
        "create function refuse() returns trigger language plpgsql as
         $$ begin raise exception using errcode = 'P0001'; end $$;
         create trigger refuse before insert on pgsluice.dead_letter_t
         for each row execute function refuse()",
    );
    let events = vec![child(5, 1, "1"), child(6, 1, "-1")];
    assert_eq!(failed_code(&fixture.slow(failed_before(group(1, events)))), "P0001");
    assert_eq!(fixture.lines("select 1 from child"), [""; 0]);
    assert_eq!(fixture.lines("select 1 from pgsluice.aggregate_t"), [""; 0]);
}

#[test]
fn a_first_event_that_cannot_be_read_parks_an_aggregate_without_version() {
    let fixture = Fixture::new("poison_first", vec![DOCUMENT]);
    let verdicts = [Verdict::DeadLettered];
    assert_eq!(fixture.slow(group(1, vec![poison(5, Some(1))])), done(&verdicts));
    assert_eq!(fixture.ledger(), "-|-|1|5|0|f|field_invalid|-");
    assert_eq!(
        fixture.line("select error from pgsluice.notification_t"),
        "field invalid: value:/total"
    );
    assert_eq!(fixture.slow(group(1, vec![poison(5, Some(1))])), done(&[Verdict::Duplicate]));
    assert_eq!(fixture.slow(group(1, vec![document(6, Some(2))])), done(&[Verdict::Parked]));
    assert_eq!(fixture.letters(1), ["5|poison|field_invalid", "6|parked|aggregate_parked"]);
}

#[test]
fn poison_without_an_aggregate_is_a_letter_and_nothing_else() {
    let fixture = Fixture::new("poison_alone", vec![DOCUMENT]);
    let mut unknown = poison(5, None);
    unknown.envelope.aggregate = None;
    assert_eq!(fixture.slow(group(1, vec![unknown.clone()])), done(&[Verdict::DeadLettered]));
    assert_eq!(fixture.slow(group(1, vec![unknown])), done(&[Verdict::Duplicate]));
    assert_eq!(fixture.letters(1), ["5|poison|field_invalid"]);
    assert_eq!(fixture.lines("select 1 from pgsluice.aggregate_t"), [""; 0]);
}

#[test]
fn an_aggregate_id_that_no_index_takes_is_a_letter_all_the_same() {
    let fixture = Fixture::new("poison_id", vec![DOCUMENT]);
    for (offset, id) in [(5, "a\0b".to_owned()), (6, "x".repeat(5_000))] {
        let mut event = poison(offset, None);
        let mut key = event.envelope.aggregate.clone().unwrap();
        key.id = id.into();
        event.envelope.aggregate = Some(key);
        assert_eq!(fixture.slow(group(1, vec![event])), done(&[Verdict::DeadLettered]));
    }
    assert_eq!(fixture.letters(1), ["5|poison|field_invalid", "6|poison|field_invalid"]);
}

#[test]
fn an_aggregate_id_of_the_greatest_length_is_as_good_as_any_other() {
    let fixture = Fixture::new("poison_longest_id", vec![DOCUMENT]);
    let id = incompressible(AggregateKey::MAX_BYTES - "Customer".len());
    let give = |event| fixture.give(Lane::Fast, group_of(&id, 1, vec![event]));
    assert_eq!(give(document(5, Some(1))), done(&[Verdict::Applied]));
    // WHEN it comes again, THEN its row is found
    assert_eq!(give(document(5, Some(1))), GroupReply::Refused);
    let again = || group_of(&id, 1, vec![document(5, Some(1))]);
    assert_eq!(fixture.look(vec![again()]), [done(&[Verdict::Duplicate])]);
    assert_eq!(fixture.slow(again()), done(&[Verdict::Duplicate]));
    let bad = group_of(&id, 1, vec![poison(6, Some(2)), document(7, Some(3))]);
    assert_eq!(fixture.slow(bad), done(&[Verdict::DeadLettered, Verdict::Parked]));
    let stored = "select length(aggregate_id) from pgsluice.dead_letter_t limit 1";
    assert_eq!(fixture.line(stored), id.len().to_string());
}

/// Proves INV-6.
#[test]
fn a_letter_keeps_the_record_byte_for_byte() {
    let fixture = Fixture::new("poison_bytes", vec![DOCUMENT]);
    let mut nothing = poison(5, None);
    nothing.record.raw = Raw::default();
    nothing.record.timestamp = None;
    let mut empty = poison(6, None);
    let headers = [("a", Some(&b"\xff\x00"[..])), ("b", None), ("a", Some(b""))];
    empty.record.raw = Raw::new(Some(b""), Some(b""), headers);
    let verdicts = [Verdict::DeadLettered, Verdict::Parked];
    assert_eq!(fixture.slow(group(1, vec![nothing, empty])), done(&verdicts));
    assert_eq!(
        fixture.lines(
            "select key, value, record_ts, timestamp_type, headers from pgsluice.dead_letter_t \
             order by \"offset\""
        ),
        [
            r"-|-|-|CreateTime|[]",
            r#"\x|\x|1700000000123|CreateTime|[["a", "/wA="], ["b", null], ["a", ""]]"#
        ]
    );
}

/// Proves INV-9.
#[test]
fn a_constraint_named_by_the_server_shows_no_value_anywhere() {
    let fixture = with_child_table("poison_leak");
    let canary = "-77712345";
    let events = vec![child(5, 1, canary)];
    assert_eq!(fixture.slow(failed_before(group(1, events))), done(&[Verdict::DeadLettered]));
    let shown = fixture.line("select n::text from pgsluice.notification_t as n");
    assert!(!shown.contains("77712345"), "{shown}");
}

/// Proves INV-9.
#[test]
fn names_that_a_trigger_made_up_are_not_kept() {
    let fixture = with_child_table("poison_raised_names");
    fixture.database.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
           raise exception using errcode = '23514', constraint = new.amount::text,
             column = new.amount::text, table = new.amount::text, schema = new.amount::text;
         end $$;
         create trigger refuse before insert on child for each row execute function refuse()",
    );
    let events = vec![child(5, 1, "77712345")];
    assert_eq!(fixture.slow(failed_before(group(1, events))), done(&[Verdict::DeadLettered]));
    let letter = "select sqlstate, constraint_name from pgsluice.dead_letter_t";
    assert_eq!(fixture.line(letter), "23514|raised");
    let error = fixture.line("select error from pgsluice.notification_t");
    assert_eq!(
        error,
        "constraint violation: sqlstate 23514 (raised by a trigger or function), constraint raised"
    );
}

#[test]
fn what_a_trigger_raises_ends_neither_the_session_nor_the_process() {
    let fixture = with_child_table("poison_raised_codes");
    for code in ["0A000", "57P01", "XX001", "53100", "08006"] {
        fixture.database.execute(&format!(
            "create or replace function refuse() returns trigger language plpgsql as \
             $$ begin raise exception using errcode = '{code}'; end $$; \
             create or replace trigger refuse before insert on child \
             for each row execute function refuse()"
        ));
        for lane in [Lane::Fast, Lane::Slow] {
            let reply = fixture.give(lane, group(1, vec![child(5, 1, "1")]));
            let GroupReply::Failed(fault) = reply else { panic!("{reply:?}") };
            assert_eq!(fault.sqlstate().unwrap().as_str(), code);
            let decision = fixture.context.faults.decide(&fault);
            // The table knows the one code as something that an operator mends.
            let halts = code == "0A000" && matches!(decision, Decision::Halt(_));
            assert!(halts || decision == Decision::RetryAfter, "{code}: {decision:?}");
        }
        assert!(!fixture.session.is_closed(), "{code}");
    }
}
