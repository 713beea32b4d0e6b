//! Values, keys and tables that do not mean well: whatever a record holds, it is written exactly or
//! it is that record's own poison, and no table turns it into an outage.

use pgsluice_core::verdict::Verdict;

use crate::fixture::{done, group, incompressible};
use crate::routed::{Ending, Routed};

const APPLIED: Ending = Ending::Decided(Verdict::Applied);

/// A route of the `plain` format from key and members into `t(id, …)`.
fn route(columns: &str) -> String {
    format!(
        "[[route]]\n[route.upsert]\ntable = \"public.t\"\nkey = {{ id = \"key\" }}\n\
         columns = {{ {columns} }}\n"
    )
}

/// Every type that a column may have.
const TYPES: [&str; 20] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "text",
    "varchar(5)",
    "char(5)",
    "citext",
    "json",
    "jsonb",
    "bytea",
    "timestamp",
    "timestamptz",
    "date",
    "time",
    "uuid",
    "mood",
];

/// Texts at and beyond the edges of those types.
const TEXTS: &[&str] = &[
    "",
    " ",
    "abcde",
    "abcdef",
    "abcde ",
    "NaN",
    "Infinity",
    "-infinity",
    "now",
    "today",
    "epoch",
    "allballs",
    "t",
    "on",
    "so so",
    "SO SO",
    "0x10",
    "1_000",
    "１",
    "'; drop table t",
    "\\",
    "\"",
    "\u{1}",
    "\u{7f}",
    "\u{1f600}",
    "\u{fffe}",
    "e\u{301}",
    "0000-01-01",
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "-0001-01-01",
    "2026-02-29",
    "20260301",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59.9999999Z",
    "9999-12-31T23:59:59.9999999",
    "2024-02-29T23:59:60Z",
    "2026-01-01T00:00:00+25:59",
    "2026-01-01T00:00:00.123456789-15:59",
    "23:59:59.9999999",
    "24:00:00",
    "00:00:60",
    "{7d8e0000-0000-4000-8000-0000000000ff}",
    "7D8E0000-0000-4000-8000-0000000000FF",
];

/// JSON at and beyond them.
const JSON: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1e0",
    "1E+2",
    "1e400",
    "-1e400",
    "1e-400",
    "1e131071",
    "1e131072",
    "1e-16383",
    "1e-20000",
    "1e99999999999999999999",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "3.4028236e38",
    "1.7976931348623159e308",
    "[]",
    "{}",
    "[null,1]",
    r#"{"":{"":null},"":1}"#,
    r#""\ud83d\ude00""#,
    r#""\/""#,
];

/// All of them as JSON, and what is too long to be written down.
fn values() -> Vec<String> {
    let long = "9".repeat(131_072);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let fine = format!("0.{}1", "0".repeat(16_382));
    let quoted = TEXTS.iter().map(|text| serde_json::Value::from(*text).to_string());
    let plain = JSON.iter().map(|text| (*text).to_owned());
    quoted.chain(plain).chain([format!("{long}9"), long, fine, deep]).collect()
}

#[test]
fn any_value_for_any_type_is_written_or_is_poison_and_never_more_than_that() {
    let declared: Vec<String> =
        TYPES.iter().enumerate().map(|(n, ty)| format!("c{n} {ty}")).collect();
    let ddl = format!(
        "create extension citext; create type mood as enum ('so so'); \
         create table t (id text primary key, {})",
        declared.join(", ")
    );
    let columns: Vec<String> =
        (0..TYPES.len()).map(|n| format!("c{n} = \"payload:/c{n}\"")).collect();
    let routed = Routed::new("hostile_values", &ddl, &route(&columns.join(", ")));
    let mut refused = Vec::new();
    for (n, ty) in TYPES.iter().enumerate() {
        for value in values() {
            let shown: String = value.chars().take(40).collect();
            match routed.give(&format!("{n} {shown}"), &format!("{{\"c{n}\":{value}}}")) {
                APPLIED | Ending::Poison("column_value") => {}
                Ending::Refused => refused.push(format!("{ty}: {shown}")),
                other => panic!("{ty} {shown}: {other:?}"),
            }
        }
    }
    // What is left to the database: the numbers in a document that `jsonb` cannot hold.
    refused.retain(|refusal| !refusal.starts_with("jsonb: "));
    assert_eq!(refused, [""; 0]);
}

/// Proves INV-5.
#[test]
fn a_record_of_any_bytes_gets_an_outcome() {
    let routed = Routed::new(
        "hostile_records",
        "create table t (id text primary key, a jsonb)",
        &route("a = \"payload:/a\""),
    );
    let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let (shallow, too_deep) = (deep(127), deep(100_000));
    let long = "x".repeat(2_700);
    let cases: [(&[u8], &[u8], Ending); 14] = [
        (b"k1", shallow.as_bytes(), APPLIED),
        (b"k2", too_deep.as_bytes(), Ending::Poison("json_depth")),
        (b"k3", br#"{"a":1,"a":2}"#, APPLIED),
        (b"k4", br#"{"a":"\u0000"}"#, Ending::Poison("json_text")),
        (b"k5", br#"{"a":"\ud800"}"#, Ending::Poison("json_text")),
        (b"k6", br#"{"\udc00":1}"#, Ending::Poison("json_text")),
        (b"k7", b"\xef\xbb\xbf{}", Ending::Poison("json_syntax")),
        (b"k8", b"", Ending::Poison("json_syntax")),
        (b"k9", b"NaN", Ending::Poison("json_syntax")),
        (b"k10", b"{\"a\":\"\xff\"}", Ending::Poison("json_syntax")),
        (b"", br#"{"a":1}"#, APPLIED),
        (b"a\0b", b"{}", Ending::Poison("key_encoding")),
        (b"\xff", b"{}", Ending::Poison("key_encoding")),
        (long.as_bytes(), b"{}", Ending::Poison("field_invalid")),
    ];
    for (key, value, expected) in cases {
        let event = routed.event(key, Some(value));
        assert_eq!(routed.given(event), expected, "{}", String::from_utf8_lossy(key));
    }
    let kept = "select a from t where id = 'k3'";
    assert_eq!(routed.fixture.line(kept), "2", "the last of a name");
}

/// Tables whose keys are the same to their unique index where their texts differ.
#[test]
fn a_key_finds_its_row_as_its_unique_index_does() {
    let icu = "create collation nocase (provider = icu, locale = 'und-u-ks-level2', \
               deterministic = false); create table t (id text collate nocase";
    let tables = [
        (
            "citext",
            "create schema \"E x\"; create extension citext schema \"E x\"; \
          create table t (id \"E x\".citext",
            "Ada",
            "ADA",
        ),
        (
            "domain",
            "create schema e; create extension citext schema e; \
          create domain moniker as e.citext; create table t (id moniker",
            "Ada",
            "ADA",
        ),
        ("blanks", "create table t (id char(8)", "Ada", "Ada  "),
        ("collation", icu, "Ada", "ADA"),
    ];
    for (name, table, key, same) in tables {
        let ddl = format!("{table} primary key, name text not null, note text)");
        let columns = "name = \"payload:/name\", note = \"payload:/note\"";
        let routed = Routed::new(&format!("same_{name}"), &ddl, &route(columns));
        assert_eq!(routed.give(key, r#"{"name":"n","note":"first"}"#), APPLIED, "{name}");
        // An event that lacks a NOT NULL column can only update.
        assert_eq!(routed.give(same, r#"{"note":"second"}"#), APPLIED, "{name}");
        let row = "select name, note from t";
        assert_eq!(routed.fixture.line(row), "n|second", "{name}");
        // On the slow lane, too.
        let slowly = routed.event(same.as_bytes(), Some(br#"{"note":"third"}"#));
        assert_eq!(routed.slowly(slowly), APPLIED, "{name}");
        assert_eq!(routed.fixture.line(row), "n|third", "{name}");
        // And among others in one statement.
        assert_eq!(routed.give("Bob", r#"{"name":"b"}"#), APPLIED, "{name}");
        let chunk = [same, "Bob"]
            .map(|key| group(1, vec![routed.event(key.as_bytes(), Some(br#"{"note":"fourth"}"#))]));
        let applied = vec![done(&[Verdict::Applied]); 2];
        assert_eq!(routed.fixture.fast(chunk.into()), applied, "{name}");
        let rows = "select name, note from t order by name desc";
        assert_eq!(routed.fixture.lines(rows), ["n|fourth", "b|fourth"], "{name}");
        assert_eq!(routed.tombstone("Bob"), APPLIED, "{name}");
        assert_eq!(routed.tombstone(same), APPLIED, "{name}");
        assert_eq!(routed.fixture.lines(row), [""; 0], "{name}");
    }
}

#[test]
fn a_table_with_rewrite_rules_or_an_identity_of_its_own_is_refused_before_anything_is_read() {
    let ruled = "create table t (id text primary key, name text); \
                 create rule r as on insert to t where new.id = 'x' do also nothing";
    let refused = |name: &str, ddl: &str, columns: &str| {
        let problems = Routed::compiled(name, ddl, &route(columns)).err().unwrap();
        problems.to_string()
    };
    let name = "name = \"payload:/name\"";
    assert_eq!(
        refused("ruled", ruled, name),
        "route upsert public.t, table public.t: has rewrite rules (create rule); use triggers instead"
    );
    for computed in ["generated always as identity", "generated always as (1) stored"] {
        let ddl = format!("create table t (id text primary key, name integer {computed})");
        assert_eq!(
            refused("computed", &ddl, name),
            "route upsert public.t, table public.t, column name: the database computes it; remove \
             it from the route"
        );
    }
}

#[test]
fn a_trigger_that_drops_the_row_has_the_last_word() {
    let routed = Routed::new(
        "dropped",
        "create table t (id text primary key, name text not null); \
         create function nothing() returns trigger language plpgsql as \
         $$ begin if new.name = 'drop me' then return null; end if; return new; end $$; \
         create trigger nothing before insert or update on t \
         for each row execute function nothing()",
        &route("name = \"payload:/name\""),
    );
    assert_eq!(routed.give("a", r#"{"name":"drop me"}"#), APPLIED);
    assert_eq!(routed.fixture.lines("select 1 from t"), [""; 0]);
    assert_eq!(routed.give("a", r#"{"name":"kept"}"#), APPLIED);
    assert_eq!(routed.give("a", r#"{"name":"drop me"}"#), APPLIED);
    assert_eq!(routed.fixture.line("select name from t"), "kept");
}

/// Proves INV-7.
#[test]
fn a_policy_that_hides_the_row_is_a_missing_privilege_and_no_dead_letter() {
    use pgsluice_core::fault::Decision;
    use pgsluice_core::group::GroupReply;
    use pgsluice_core::verdict::Reason;

    let routed = Routed::new(
        "policy",
        "create table t (id text primary key, name text not null)",
        &route("name = \"payload:/name\""),
    );
    assert_eq!(routed.give("a", r#"{"name":"first"}"#), APPLIED);
    // The tests' role may do anything; forced, policies hold for the owner as well, but not for it.
    routed.fixture.database.execute(
        "create role limited; grant all on t to limited; grant all on schema pgsluice to limited; \
         grant all on all tables in schema pgsluice to limited; \
         alter table t enable row level security; \
         create policy none on t to limited using (false) with check (true)",
    );
    let event = routed.event(b"a", Some(br#"{"name":"second"}"#));
    let fixture = &routed.fixture;
    fixture.block_on(async {
        fixture.session.lane().client().batch_execute("set role limited").await.unwrap();
    });
    let reply = fixture.fast(vec![group(1, vec![event])]).remove(0);
    let GroupReply::Failed(fault) = reply else { panic!("{reply:?}") };
    let decision = fixture.context.faults.decide(&fault);
    assert_eq!(decision, Decision::Halt(Reason::PermissionDenied), "{fault}");
    assert_eq!(fixture.line("select name from t"), "first");
}

#[test]
fn what_an_index_or_a_domain_does_not_take_is_the_records_own_poison() {
    let routed = Routed::new(
        "limits",
        "create domain positive as integer check (value > 0) not null; \
         create table t (id text primary key, n positive)",
        "[[route]]\n[route.upsert]\ntable = \"public.t\"\nkey = { id = \"payload:/id\" }\n\
         columns = { n = \"payload:/n\" }\n",
    );
    let long = incompressible(3_000);
    for value in [
        format!(r#"{{"id":"{long}","n":1}}"#),
        r#"{"id":"a","n":0}"#.to_owned(),
        r#"{"id":"a","n":null}"#.to_owned(),
    ] {
        assert_eq!(routed.give("a", &value), Ending::Refused, "{}", &value[..20]);
    }
    assert_eq!(routed.give("a", r#"{"id":"","n":1}"#), APPLIED, "an empty key is a key");
    assert_eq!(routed.give("b", r#"{"n":1}"#), Ending::Poison("column_key_missing"));
    assert_eq!(routed.give("b", r#"{"id":null,"n":1}"#), Ending::Poison("column_key_missing"));
    assert_eq!(routed.give("b", r#"{"id":{},"n":1}"#), Ending::Poison("column_value"));
}

#[test]
fn numbers_and_times_are_rounded_to_what_the_column_declares_and_refused_where_they_do_not_fit() {
    let routed = Routed::new(
        "declared",
        "create table t (id text primary key, n numeric(6, 2), at timestamptz(3))",
        &route("n = \"payload:/n\", at = \"payload:/at\""),
    );
    let value = r#"{"n":1.005,"at":"2026-03-01T10:15:30.123556Z"}"#;
    assert_eq!(routed.give("a", value), APPLIED);
    let row = "set timezone = 'UTC'; select n, at from t";
    assert_eq!(routed.fixture.lines(row), ["1.01|2026-03-01 10:15:30.124+00"]);
    assert_eq!(routed.give("b", r#"{"n":10000}"#), Ending::Refused);
    let again = routed.event(b"c", Some(br#"{"n":10000}"#));
    assert_eq!(routed.slowly(again), Ending::Decided(Verdict::DeadLettered));
    assert_eq!(routed.fixture.letters(1), ["3|poison|data_exception"]);
}

#[test]
fn a_triggers_own_query_that_finds_too_much_is_the_records_own_poison() {
    let routed = Routed::new(
        "too_much",
        "create table t (id text primary key, name text); \
         create table other (name text, n integer); \
         insert into other values ('one', 1), ('two', 2), ('two', 22); \
         create function find() returns trigger language plpgsql as \
         $$ begin perform (select n from public.other where name = new.name); return new; end $$; \
         create trigger find before insert on t for each row execute function find()",
        &route("name = \"payload:/name\""),
    );
    assert_eq!(routed.give("a", r#"{"name":"one"}"#), APPLIED);
    assert_eq!(routed.give("b", r#"{"name":"two"}"#), Ending::Refused);
}
