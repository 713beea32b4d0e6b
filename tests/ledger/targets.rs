//! Rows of users' tables.

use pgsluice::route::kind::Delete;
use pgsluice::route::{Column, CompiledAction, Target};
use pgsluice::sql::column_type::ColumnType;
use pgsluice_core::event::{Event, RowAction, Value};
use pgsluice_core::group::GroupReply;
use pgsluice_core::verdict::Verdict;

use crate::fixture::{Fixture, Lane, done, failed_code, group, group_of, row, upsert, upserting};

fn column(name: &str, ty: ColumnType) -> Column {
    Column::new(name, ty)
}

/// `customer(id, name not null, "Balance", …)`, with a quoted name on purpose.
fn customer(columns: Vec<Column>) -> Target {
    let key = vec![column("id", ColumnType::Int8)];
    Target { schema: "public".into(), table: "customer".into(), key, columns }
}

fn route() -> CompiledAction {
    upserting(customer(vec![
        column("name", ColumnType::Text { max_chars: None }),
        column("Balance", ColumnType::Numeric),
    ]))
}

fn fixture(name: &str, action: CompiledAction) -> Fixture {
    let fixture = Fixture::new(name, vec![action]);
    fixture.database.execute(
        r#"create table customer (
             id bigint primary key,
             name text not null,
             "Balance" numeric,
             active boolean default true);
           create table touched (id bigint);
           create function touch() returns trigger language plpgsql as
             $$ begin insert into public.touched values (new.id); return new; end $$;
           create trigger touch before insert or update on customer
             for each row execute function touch()"#,
    );
    fixture
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.into()))
}

const CUSTOMER: &str = r#"select id, name, "Balance", active from customer order by id"#;

#[test]
fn absent_columns_are_left_alone_even_where_they_are_not_null() {
    for lane in [Lane::Fast, Lane::Slow] {
        let fixture = fixture("partial", route());
        let give = |columns: &[Option<Value>], offset| {
            assert_eq!(
                fixture.give(lane, group(1, vec![upsert(offset, columns)])),
                done(&[Verdict::Applied])
            );
        };
        give(&[text("Jane"), text("12345678901234567890.10")], 1);
        give(&[None, text("2.500")], 2);
        assert_eq!(fixture.line(CUSTOMER), "1|Jane|2.500|t");
        give(&[text("Joe"), None], 3);
        give(&[None, None], 4);
        assert_eq!(fixture.line(CUSTOMER), "1|Joe|2.500|t");
        give(&[None, Some(Value::Null)], 5);
        assert_eq!(fixture.line(CUSTOMER), "1|Joe|-|t");
    }
}

#[test]
fn a_partial_event_inserts_where_there_is_no_row() {
    let fixture = fixture("partial_insert", route());
    assert_eq!(
        fixture.fast(vec![group(1, vec![upsert(1, &[text("Jane"), None])])]),
        [done(&[Verdict::Applied])]
    );
    assert_eq!(fixture.line(CUSTOMER), "1|Jane|-|t");
    fixture.database.execute("delete from customer");
    // WHEN the row is missing and so is a column that must not be null
    let reply = fixture.fast(vec![group(1, vec![upsert(2, &[None, text("1")])])]).remove(0);
    assert_eq!(failed_code(&reply), "23502");
}

#[test]
fn partial_rows_of_a_chunk_are_updated_or_inserted_each_for_itself() {
    let fixture = fixture("partial_chunk", route());
    fixture.database.execute("insert into customer values (1, 'Jane', 1)");
    let of = |id: i64, offset| {
        let event = row(offset, None, RowAction::Upsert, id, &[text("new"), None]);
        group_of(&format!("c-{id}"), 1, vec![event])
    };
    let replies = fixture.fast(vec![of(1, 10), of(2, 11), of(3, 12)]);
    assert_eq!(replies, vec![done(&[Verdict::Applied]); 3]);
    assert_eq!(fixture.lines(CUSTOMER), ["1|new|1|t", "2|new|-|t", "3|new|-|t"]);
}

#[test]
fn events_of_a_group_fold_into_one_row_version() {
    let fixture = fixture("fold", route());
    let events = vec![
        upsert(1, &[text("a"), text("1")]),
        upsert(2, &[text("b"), None]),
        upsert(3, &[None, text("3")]),
    ];
    assert_eq!(fixture.fast(vec![group(1, events)]), [done(&[Verdict::Applied; 3])]);
    assert_eq!(fixture.line(CUSTOMER), "1|b|3|t");
    assert_eq!(fixture.line("select count(*) from touched"), "1");
    assert_eq!(fixture.notes(1).len(), 3);
}

/// Proves INV-2.
#[test]
fn nothing_of_the_target_is_touched_where_the_ledger_refuses() {
    let fixture = fixture("refused", route());
    fixture.fast(vec![group(1, vec![upsert(5, &[text("a"), text("1")])])]);
    fixture.database.execute("truncate touched");
    // an old event that would violate NOT NULL, were it ever proposed
    let old = || upsert(4, &[Some(Value::Null), text("1")]);
    assert_eq!(fixture.fast(vec![group(1, vec![old()])]), [GroupReply::Refused]);
    assert_eq!(fixture.slow(group(1, vec![old()])), done(&[Verdict::Duplicate]));
    assert_eq!(fixture.line("select count(*) from touched"), "0");
    // a chunk writes the row of the group that moved, and no other
    let other = row(4, None, RowAction::Upsert, 2, &[text("b"), text("2")]);
    let replies = fixture.fast(vec![group(1, vec![old()]), group_of("c-2", 2, vec![other])]);
    assert_eq!(replies, [GroupReply::Refused, done(&[Verdict::Applied])]);
    assert_eq!(fixture.lines("select id from touched"), ["2"]);
    assert_eq!(fixture.lines(CUSTOMER), ["1|a|1|t", "2|b|2|t"]);
}

fn deletion(offset: i64) -> Event {
    row(offset, Some(offset), RowAction::Remove, 1, &[])
}

#[test]
fn a_delete_removes_the_row_and_a_soft_delete_marks_it() {
    let hard = CompiledAction::Delete(Delete(customer(vec![])));
    let soft = CompiledAction::Delete(Delete(customer(vec![column("active", ColumnType::Bool)])));
    for lane in [Lane::Fast, Lane::Slow] {
        let rows = "insert into customer values (1, 'Jane', 1), (2, 'Joe', 2)";
        let fixture = fixture("hard", hard.clone());
        fixture.database.execute(rows);
        assert_eq!(fixture.give(lane, group(1, vec![deletion(1)])), done(&[Verdict::Applied]));
        assert_eq!(fixture.lines(CUSTOMER), ["2|Joe|2|t"]);
        assert_eq!(fixture.ledger(), "1|e1|1|1|0|t|-|-");
    }
    let fixture = fixture("soft", soft);
    fixture.database.execute("insert into customer values (1, 'Jane', 1), (2, 'Joe', 2)");
    let marked = row(1, Some(1), RowAction::Mark, 1, &[Some(Value::Bool(false))]);
    assert_eq!(fixture.fast(vec![group(1, vec![marked])]), [done(&[Verdict::Applied])]);
    assert_eq!(fixture.lines(CUSTOMER), ["1|Jane|1|f", "2|Joe|2|t"]);
}

#[test]
fn a_row_deleted_and_written_again_in_one_group_goes_through_the_slow_lane() {
    let fixture = fixture("again", route());
    let events =
        || vec![upsert(1, &[text("old"), text("1")]), deletion(2), upsert(3, &[text("new"), None])];
    assert_eq!(fixture.fast(vec![group(1, events())]), [GroupReply::Refused]);
    assert_eq!(fixture.slow(group(1, events())), done(&[Verdict::Applied; 3]));
    assert_eq!(fixture.line(CUSTOMER), "1|new|-|t");
}

/// Every column type with a value, and how Postgres shows it.
fn types() -> Vec<(&'static str, ColumnType, Value, &'static str)> {
    let mood = ColumnType::Enum { sql: r#""public"."mood""#.into(), labels: vec!["so so".into()] };
    let uuid = [0x11; 16];
    vec![
        ("boolean", ColumnType::Bool, Value::Bool(true), "t"),
        ("smallint", ColumnType::Int2, Value::Int(-7), "-7"),
        ("integer", ColumnType::Int4, Value::Int(70_000), "70000"),
        ("bigint", ColumnType::Int8, Value::Int(i64::MAX), "9223372036854775807"),
        ("real", ColumnType::Float4, Value::Float(1.5), "1.5"),
        ("double precision", ColumnType::Float8, Value::Float(1e300), "1e+300"),
        ("numeric", ColumnType::Numeric, Value::Text("0.10".into()), "0.10"),
        ("varchar(5)", ColumnType::Text { max_chars: Some(5) }, Value::Text("now".into()), "now"),
        ("json", ColumnType::Json, Value::Json(r#"{"a" : 1.0}"#.into()), r#"{"a" : 1.0}"#),
        ("jsonb", ColumnType::Jsonb, Value::Json(r#"{"a" : 1.0}"#.into()), r#"{"a": 1.0}"#),
        ("bytea", ColumnType::Bytea, Value::Bytes((&[0, 255][..]).into()), r"\x00ff"),
        ("timestamp", ColumnType::Timestamp, Value::Timestamp(1_500_000), "1970-01-01 00:00:01.5"),
        (
            "timestamptz",
            ColumnType::Timestamptz,
            Value::Timestamp(-1),
            "1969-12-31 23:59:59.999999+00",
        ),
        ("date", ColumnType::Date, Value::Date(0), "1970-01-01"),
        ("time", ColumnType::Time, Value::Time(1), "00:00:00.000001"),
        ("uuid", ColumnType::Uuid, Value::Uuid(uuid), "11111111-1111-1111-1111-111111111111"),
        ("mood", mood, Value::Text("so so".into()), "so so"),
    ]
}

#[test]
fn every_column_type_is_bound_as_a_scalar_and_as_an_array() {
    let types = types();
    let columns: Vec<Column> = types
        .iter()
        .enumerate()
        .map(|(i, (_, ty, ..))| column(&format!("c{i}"), ty.clone()))
        .collect();
    let target = Target { table: "typed".into(), ..customer(columns) };
    let fixture = Fixture::new("types", vec![upserting(target)]);
    let declared: Vec<String> =
        types.iter().enumerate().map(|(i, (name, ..))| format!("c{i} {name}")).collect();
    fixture.database.execute(&format!(
        "create type mood as enum ('so so'); create table typed (id bigint primary key, {})",
        declared.join(", ")
    ));
    let values: Vec<Option<Value>> = types.iter().map(|(_, _, v, _)| Some(v.clone())).collect();
    let nulls: Vec<Option<Value>> = types.iter().map(|_| Some(Value::Null)).collect();
    let written = |id: i64, values: &[Option<Value>]| {
        let event = row(id, None, RowAction::Upsert, id, values);
        group_of(&format!("t-{id}"), 1, vec![event])
    };
    let one = [done(&[Verdict::Applied])];
    assert_eq!(fixture.fast(vec![written(1, &values)]), one);
    assert_eq!(
        fixture.fast(vec![written(2, &values), written(3, &nulls)]),
        vec![one[0].clone(); 2]
    );
    let shown: Vec<&str> = types.iter().map(|(.., shown)| *shown).collect();
    let shown = shown.join("|");
    let list: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
    let rows = fixture
        .lines(&format!("set timezone = 'UTC'; select {} from typed order by id", list.join(", ")));
    assert_eq!(rows[..2], [shown.clone(), shown]);
    assert!(rows[2].split('|').all(|value| value == "-"), "{}", rows[2]);
}

/// Proves INV-2.
#[test]
fn groups_of_a_chunk_that_failed_are_each_tried_alone() {
    let fixture = fixture("chunk_split", route());
    let of = |id: &str, key: i64, offset, name: &str| {
        let event = row(offset, None, RowAction::Upsert, key, &[text(name), text("1")]);
        group_of(id, 1, vec![event])
    };
    // WHEN two aggregates of one statement write one row, which the server does not do
    let both = || vec![of("a", 1, 1, "Jane"), of("b", 1, 2, "Joe")];
    assert_eq!(fixture.fast(both()), vec![GroupReply::Unsettled; 2]);
    for group in both() {
        assert_eq!(fixture.slow(group), done(&[Verdict::Applied]));
    }
    assert_eq!(fixture.line(CUSTOMER), "1|Joe|1|t");
    // WHEN one of them cannot be written, THEN nothing is held against the other
    fixture.database.execute("alter table customer add check (name <> 'bad')");
    let one_bad = vec![of("c", 3, 3, "bad"), of("d", 4, 4, "good")];
    assert_eq!(fixture.fast(one_bad), vec![GroupReply::Unsettled; 2]);
    let alone = fixture.fast(vec![of("c", 3, 3, "bad")]).remove(0);
    assert_eq!(failed_code(&alone), "23514");
}
