//! Folds the writes of a group's events into the one that is made: the same as if they had been
//! made one after the other, without the states between. Ledger effects fold, and rows fold by
//! their key.
//!
//! | ledger effects | folded |
//! | --- | --- |
//! | … then `Set` | the last state |
//! | … then `Clear` | `Clear` |
//! | `Set` or `Merge`, then `Merge` | their top-level members, the last of each name, digits untouched |
//! | `Clear`, then `Merge` | `Set`: nothing of the old state is left |
//! | `Keep`, then another, or another, then `Keep` | the other |
//! | `Clear`, then `Keep` | not one statement: [`Unfoldable`] |
//!
//! | rows with one key | folded |
//! | --- | --- |
//! | `Upsert`s, or `Mark`s | the last value that each column was given |
//! | `Upsert` or `Remove`, then `Remove` | `Remove` |
//! | any other | not one statement: [`Unfoldable`] |

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::route::Target;
use crate::route::fragment::RowShape;
use pgsluice_core::event::{Json, LedgerEffect, RowAction, RowWrite, Value, Write};

/// The write of a whole group; borrows from its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<'a> {
    /// The effect on the ledger's row.
    pub ledger: LedgerEffect<Cow<'a, str>>,
    /// The row of the route's target; `None` where the route has none.
    pub row: Option<FoldedRow<'a>>,
}

/// The row of the target.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedRow<'a> {
    /// What happens to it.
    pub action: RowAction,
    /// Values of the key columns.
    pub key: &'a [Value],
    /// Values of the other columns, in the target's order; `None` leaves a column alone.
    pub columns: Vec<Option<&'a Value>>,
}

impl FoldedRow<'_> {
    /// What the statement's text depends on.
    pub fn shape(&self) -> RowShape {
        let present = self.columns.iter().map(Option::is_some).collect();
        RowShape { action: self.action, present }
    }
}

/// The group cannot be written by one statement; its events are applied one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfoldable;

/// Folds `writes`, which all belong to one route that writes this target.
///
/// # Errors
///
/// [`Unfoldable`] when one statement cannot do it, also when a write has other rows than the one of
/// the target, or there is no write.
pub fn fold<'a>(
    target: Option<&Target>,
    writes: impl IntoIterator<Item = &'a Write>,
) -> Result<Folded<'a>, Unfoldable> {
    let mut writes = writes.into_iter();
    let Folded { mut ledger, mut row } = single(target, writes.next().ok_or(Unfoldable)?)?;
    for write in writes {
        let later = single(target, write)?;
        ledger = effects(ledger, later.ledger)?;
        row = rows(row, later.row)?;
    }
    Ok(Folded { ledger, row })
}

/// One write on its own.
fn single<'a>(target: Option<&Target>, write: &'a Write) -> Result<Folded<'a>, Unfoldable> {
    let row = match (target, write.rows.as_slice()) {
        (None, []) => None,
        (Some(target), [row]) if belongs(target, row) => {
            let RowWrite { action, key, columns } = row;
            let columns = columns.iter().map(Option::as_ref).collect();
            Some(FoldedRow { action: *action, key, columns })
        }
        _ => return Err(Unfoldable),
    };
    Ok(Folded { ledger: write.ledger.map(Json::text), row })
}

/// Whether the row has a value for each key column, and a place for each other one that is set.
fn belongs(target: &Target, row: &RowWrite) -> bool {
    let columns = match row.action {
        RowAction::Upsert | RowAction::Mark => target.columns.len(),
        RowAction::Remove => 0,
    };
    row.key.len() == target.key.len() && row.columns.len() == columns
}

/// `earlier`, then `later`.
fn effects<'a>(
    earlier: LedgerEffect<Cow<'a, str>>,
    later: LedgerEffect<Cow<'a, str>>,
) -> Result<LedgerEffect<Cow<'a, str>>, Unfoldable> {
    use LedgerEffect::{Clear, Keep, Merge, Set};
    match (earlier, later) {
        (_, later @ (Set(_) | Clear)) | (Keep, later) => Ok(later),
        (Clear, Keep) => Err(Unfoldable),
        (earlier, Keep) => Ok(earlier),
        (Clear, Merge(state)) => Ok(Set(state)),
        (Set(first), Merge(second)) if is_object(&first) && is_object(&second) => {
            merged(&first, &second).map(Set)
        }
        (Merge(first), Merge(second)) if is_object(&first) && is_object(&second) => {
            merged(&first, &second).map(Merge)
        }
        // An object after something that is no object replaces it, whatever was stored before.
        (Set(_) | Merge(_), Merge(second)) if is_object(&second) => Ok(Set(second)),
        (Set(_) | Merge(_), Merge(second)) => Ok(Merge(second)),
    }
}

/// `earlier`, then `later`. One row has one key: a group that writes two rows is written row by row.
fn rows<'a>(
    earlier: Option<FoldedRow<'a>>,
    later: Option<FoldedRow<'a>>,
) -> Result<Option<FoldedRow<'a>>, Unfoldable> {
    let (earlier, later) = match (earlier, later) {
        (None, None) => return Ok(None),
        (Some(earlier), Some(later)) if earlier.key == later.key => (earlier, later),
        _ => return Err(Unfoldable),
    };
    match (earlier.action, later.action) {
        (RowAction::Upsert, RowAction::Upsert) | (RowAction::Mark, RowAction::Mark) => {
            let columns = later.columns.iter().zip(&earlier.columns);
            let columns = columns.map(|(later, earlier)| later.or(*earlier)).collect();
            Ok(Some(FoldedRow { columns, ..later }))
        }
        (RowAction::Upsert | RowAction::Remove, RowAction::Remove) => Ok(Some(later)),
        _ => Err(Unfoldable),
    }
}

/// The members of two objects, the later of each name.
fn merged<'a>(first: &str, second: &str) -> Result<Cow<'a, str>, Unfoldable> {
    let mut members: BTreeMap<String, &RawValue> =
        serde_json::from_str(first).map_err(|_| Unfoldable)?;
    let newer: BTreeMap<String, &RawValue> =
        serde_json::from_str(second).map_err(|_| Unfoldable)?;
    members.extend(newer);
    serde_json::to_string(&members).map(Cow::Owned).map_err(|_| Unfoldable)
}

fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Column;
    use crate::sql::column_type::ColumnType;
    use pgsluice_core::event::RouteId;

    fn write(ledger: LedgerEffect, rows: Vec<RowWrite>) -> Write {
        Write { route: RouteId(0), ledger, rows }
    }

    fn merge(text: &str) -> Write {
        write(LedgerEffect::Merge(Json::Value(text.into())), Vec::new())
    }

    fn replace(text: &str) -> Write {
        write(LedgerEffect::Set(Json::Value(text.into())), Vec::new())
    }

    fn erase() -> Write {
        write(LedgerEffect::Clear, Vec::new())
    }

    fn target(columns: usize) -> Target {
        let column = |name: String| Column::new(&name, ColumnType::Int8);
        Target {
            schema: "public".into(),
            table: "customer".into(),
            key: vec![column("id".into())],
            columns: (0..columns).map(|i| column(format!("c{i}"))).collect(),
        }
    }

    fn row(ledger: LedgerEffect, action: RowAction, key: i64, columns: &[Option<i64>]) -> Write {
        let columns = columns.iter().map(|c| c.map(Value::Int)).collect();
        write(ledger, vec![RowWrite { action, key: Box::new([Value::Int(key)]), columns }])
    }

    fn upsert(key: i64, columns: &[Option<i64>]) -> Write {
        row(LedgerEffect::Keep, RowAction::Upsert, key, columns)
    }

    fn remove(key: i64) -> Write {
        row(LedgerEffect::Clear, RowAction::Remove, key, &[])
    }

    fn mark(key: i64, columns: &[Option<i64>]) -> Write {
        row(LedgerEffect::Clear, RowAction::Mark, key, columns)
    }

    fn folded_documents(writes: &[Write]) -> LedgerEffect<String> {
        fold(None, writes).unwrap().ledger.map(|state| state.clone().into_owned())
    }

    fn folded_row<'a>(target: &Target, writes: &'a [Write]) -> FoldedRow<'a> {
        fold(Some(target), writes).unwrap().row.unwrap()
    }

    #[test]
    fn merging_takes_the_last_of_each_member_and_keeps_every_digit() {
        let writes = [
            merge(r#"{"a":12345678901234567890.10,"b":1e-9,"a":12345678901234567890.20}"#),
            merge(r#" {"b":2.50, "c":{"x":1}}"#),
            merge(r#"{"c":{"y":2}}"#),
        ];
        let expected = r#"{"a":12345678901234567890.20,"b":2.50,"c":{"y":2}}"#;
        assert_eq!(folded_documents(&writes), LedgerEffect::Merge(expected.into()));
    }

    #[test]
    fn a_member_spelled_with_an_escape_is_the_same_member() {
        let writes = [merge(r#"{"\u0061":1}"#), merge(r#"{"a":2}"#)];
        assert_eq!(folded_documents(&writes), LedgerEffect::Merge(r#"{"a":2}"#.into()));
    }

    #[test]
    fn replacing_takes_the_last_document() {
        let writes = [replace(r#"{"a":1}"#), replace(r#"{"b":2}"#)];
        assert_eq!(folded_documents(&writes), LedgerEffect::Set(r#"{"b":2}"#.into()));
    }

    #[test]
    fn a_document_after_a_delete_merges_with_nothing() {
        let writes = [merge(r#"{"a":1}"#), erase(), merge(r#"{"b":2}"#)];
        assert_eq!(folded_documents(&writes), LedgerEffect::Set(r#"{"b":2}"#.into()));
        let more = [erase(), merge(r#"{"b":2}"#), merge(r#"{"c":3}"#)];
        assert_eq!(folded_documents(&more), LedgerEffect::Set(r#"{"b":2,"c":3}"#.into()));
    }

    #[test]
    fn a_delete_at_the_end_is_all_that_is_left() {
        let writes = [merge(r#"{"a":1}"#), erase()];
        assert_eq!(folded_documents(&writes), LedgerEffect::Clear);
    }

    #[test]
    fn what_is_no_object_replaces_and_is_replaced() {
        let to_scalar = [merge(r#"{"a":1}"#), merge("5")];
        assert_eq!(folded_documents(&to_scalar), LedgerEffect::Merge("5".into()));
        // GIVEN a stored object, the 5 replaces it: the object after it must not merge with it
        let over_scalar = [merge(r#"{"a":1}"#), merge("5"), merge(r#"{"b":2}"#)];
        assert_eq!(folded_documents(&over_scalar), LedgerEffect::Set(r#"{"b":2}"#.into()));
    }

    #[test]
    fn an_effect_that_keeps_the_state_gives_way_but_never_revives_what_a_delete_left() {
        let keep = || write(LedgerEffect::Keep, Vec::new());
        for other in [replace("1"), merge("1")] {
            let alone = folded_documents(std::slice::from_ref(&other));
            assert_eq!(folded_documents(&[keep(), other.clone()]), alone);
            assert_eq!(folded_documents(&[other, keep()]), alone);
        }
        assert_eq!(folded_documents(&[keep(), erase()]), LedgerEffect::Clear);
        assert_eq!(fold(None, &[erase(), keep()]), Err(Unfoldable));
    }

    #[test]
    fn each_column_takes_the_last_value_it_was_given() {
        let writes = [upsert(1, &[Some(1), Some(2), None]), upsert(1, &[None, Some(3), None])];
        let row = folded_row(&target(3), &writes);
        assert_eq!(row.columns, [Some(&Value::Int(1)), Some(&Value::Int(3)), None]);
        assert_eq!(&*row.shape().present, [true, true, false]);
    }

    #[test]
    fn an_explicit_null_is_a_value() {
        let mut null = upsert(1, &[Some(1)]);
        null.rows[0].columns[0] = Some(Value::Null);
        let writes = [upsert(1, &[Some(1)]), null];
        assert_eq!(folded_row(&target(1), &writes).columns, [Some(&Value::Null)]);
    }

    #[test]
    fn a_row_deleted_and_written_again_is_not_one_statement() {
        let target = Some(&target(1));
        assert!(fold(target, &[upsert(1, &[Some(1)]), remove(1)]).is_ok());
        assert_eq!(fold(target, &[remove(1), upsert(1, &[Some(1)])]), Err(Unfoldable));
    }

    #[test]
    fn events_of_two_rows_are_not_one_statement() {
        let writes = [upsert(1, &[Some(1)]), upsert(2, &[Some(1)])];
        assert_eq!(fold(Some(&target(1)), &writes), Err(Unfoldable));
    }

    #[test]
    fn a_soft_delete_sets_columns_and_a_hard_one_sets_none() {
        let soft = [mark(1, &[Some(0)])];
        let marked = folded_row(&target(1), &soft);
        assert_eq!((marked.action, marked.columns.len()), (RowAction::Mark, 1));
        let hard = [remove(1)];
        let removed = folded_row(&target(0), &hard);
        assert_eq!((removed.action, removed.columns.len()), (RowAction::Remove, 0));
    }

    #[test]
    fn nothing_and_what_the_route_does_not_write_do_not_fold() {
        assert_eq!(fold(None, []), Err(Unfoldable));
        assert_eq!(fold(None, &[upsert(1, &[])]), Err(Unfoldable), "a row without a table");
        assert_eq!(fold(Some(&target(1)), &[merge("{}")]), Err(Unfoldable), "no row");
        assert_eq!(fold(Some(&target(1)), &[upsert(1, &[])]), Err(Unfoldable), "other columns");
        let mut two = upsert(1, &[Some(1)]);
        two.rows.extend(upsert(2, &[Some(1)]).rows);
        assert_eq!(fold(Some(&target(1)), &[two]), Err(Unfoldable), "more than one row");
    }
}
