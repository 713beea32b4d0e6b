//! `aggregate_t`, the ledger: one row for every aggregate, moved first.
//!
//! Every statement that applies something begins with [`moved`], and whatever else it does selects
//! from it. When the ledger refuses, nothing else runs: no trigger, no constraint, no write.

use crate::sql::binder::{Bind, Binder, Extent, Slot};
use crate::sql::name::Schema;
use pgsluice_core::event::LedgerEffect;

/// What an existing ledger row has to fulfil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// First attempt: position and version decide, in SQL.
    First,
    /// Slow lane: the row stands where it stood when it was judged.
    Seen,
}

/// The part of the configuration that texts depend on.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// Where pgsluice's own tables are.
    pub schema: &'a Schema,
    /// `on_gap = "park"`: a group after missing versions is refused.
    pub park_gaps: bool,
}

/// The first common table expression of every statement: moves the ledger row of each group, and
/// returns the rows that moved, with the versions that were missing.
pub fn moved(
    layout: &Layout<'_>,
    effect: LedgerEffect<()>,
    guard: Guard,
    b: &mut Binder,
) -> String {
    let table = layout.schema.table("aggregate_t");
    let row = Row::new(effect, b);
    let letters = letters(layout, guard, b);
    let from = if b.extent() == Extent::Chunk { " from input as i" } else { "" };
    let condition = condition(layout, guard, b);
    let gap = per_group("case when t.deleted then 0 else coalesce({} - t.version - 1, 0) end", b);
    let offset = match guard {
        Guard::First => r#"excluded."offset""#.to_owned(),
        // A re-drive stands before records of its stream that are decided already.
        Guard::Seen => {
            r#"case when t.stream = excluded.stream then greatest(t."offset", excluded."offset") else excluded."offset" end"#
                .to_owned()
        }
    };
    let state = match row.state {
        None => String::new(),
        Some(update) => format!(",\n    state = {update}"),
    };
    let returning = match b.extent() {
        Extent::Event | Extent::Group => "t.gap",
        Extent::Chunk => "t.aggregate_type, t.aggregate_id, t.gap",
    };
    format!(
        r#"moved as (
  insert into {table} as t ({columns})
  select {values}{from}{letters}
  on conflict (sink, aggregate_type, aggregate_id) do update set
    version = coalesce(excluded.version, t.version),
    event_id = excluded.event_id,
    stream = excluded.stream,
    "offset" = {offset},
    gap = {gap},
    deleted = excluded.deleted,
    updated_at = excluded.updated_at{state}
  where {condition}
  returning {returning}
)"#,
        columns = row.columns,
        values = row.values,
    )
}

/// The proposed ledger row.
struct Row {
    columns: String,
    values: String,
    /// What an existing row's `state` becomes; `None` leaves it alone.
    state: Option<&'static str>,
}

impl Row {
    fn new(effect: LedgerEffect<()>, b: &mut Binder) -> Self {
        let deleted = if effect.deletes() { "true" } else { "false" };
        let mut columns = String::from(
            r#"sink, aggregate_type, aggregate_id, version, event_id, stream, "offset", deleted"#,
        );
        let mut values = [
            b.shared(Slot::Sink, Bind::Int2),
            b.group(Slot::AggregateType, Bind::Text),
            b.group(Slot::AggregateId, Bind::Text),
            b.group(Slot::Version, Bind::Int8),
            b.group(Slot::LastEventId, Bind::Text),
            b.group(Slot::Stream, Bind::Int4),
            b.group(Slot::LastOffset, Bind::Int8),
            deleted.to_owned(),
        ]
        .join(", ");
        let state = match effect {
            LedgerEffect::Set(()) => Some("excluded.state"),
            // What `jsonb` concatenation means for two objects; anything else replaces. A
            // deleted row has no state, so there is nothing to merge with.
            LedgerEffect::Merge(()) => Some(
                "case when pg_catalog.jsonb_typeof(t.state) = 'object' \
                 and pg_catalog.jsonb_typeof(excluded.state) = 'object' \
                 then t.state || excluded.state else excluded.state end",
            ),
            LedgerEffect::Clear => Some("null"),
            LedgerEffect::Keep => None,
        };
        if effect.state().is_some() {
            columns.push_str(", state");
            values.push_str(", ");
            values.push_str(&b.group(Slot::State, Bind::Jsonb));
        }
        Self { columns, values, state }
    }
}

/// A record with a dead letter is never applied from Kafka again (INV-4). The subquery is scalar
/// on purpose: one written with `exists` may become a join over the whole table.
fn letters(layout: &Layout<'_>, guard: Guard, b: &mut Binder) -> String {
    if guard == Guard::Seen {
        return String::new();
    }
    let table = layout.schema.table("dead_letter_t");
    let stream = b.group(Slot::Stream, Bind::Int4);
    let range = match b.extent() {
        Extent::Event => format!(r#"d."offset" = {}"#, b.group(Slot::LastOffset, Bind::Int8)),
        Extent::Group | Extent::Chunk => format!(
            r#"d."offset" between {} and {}"#,
            b.group(Slot::FirstOffset, Bind::Int8),
            b.group(Slot::LastOffset, Bind::Int8)
        ),
    };
    format!(
        "\n  where (select true from {table} as d where d.stream = {stream} and {range} limit 1) is null"
    )
}

/// When an existing row may move: the rules of [`pgsluice_core::verdict::judge`] that need no more than
/// the row.
fn condition(layout: &Layout<'_>, guard: Guard, b: &mut Binder) -> String {
    if guard == Guard::Seen {
        let stream = b.group(Slot::SeenStream, Bind::Int4);
        let offset = b.group(Slot::SeenOffset, Bind::Int8);
        return format!(r#"t.stream = {stream} and t."offset" = {offset}"#);
    }
    let first_offset = b.group(Slot::FirstOffset, Bind::Int8);
    let first_version = b.group(Slot::FirstVersion, Bind::Int8);
    let higher = if layout.park_gaps {
        // The stored version may be the greatest there is, and one more would raise.
        format!("{first_version} - 1 = t.version")
    } else {
        format!("{first_version} > t.version")
    };
    let rules = format!(
        r#"(t.stream <> excluded.stream or t."offset" < {first_offset})
    and case when t.deleted then t.stream = excluded.stream
             else {first_version} is null or t.version is null or {higher} end"#
    );
    match b.extent() {
        Extent::Event | Extent::Group => format!("t.parked_at is null\n    and {rules}"),
        // What is not a column of the proposed row is looked up in the input.
        Extent::Chunk => format!(
            "t.parked_at is null\n    and exists (select 1 from input as i \
             where i.aggregate_type = t.aggregate_type and i.aggregate_id = t.aggregate_id\n    \
             and {rules})"
        ),
    }
}

/// An expression on the stored row `t` and the group's first version (`{}`), as it may stand in
/// the `set` list.
fn per_group(expression: &str, b: &mut Binder) -> String {
    let first_version = b.group(Slot::FirstVersion, Bind::Int8);
    let expression = expression.replace("{}", &first_version);
    match b.extent() {
        Extent::Event | Extent::Group => expression,
        Extent::Chunk => format!(
            "(select {expression} from input as i \
             where i.aggregate_type = t.aggregate_type and i.aggregate_id = t.aggregate_id)"
        ),
    }
}
