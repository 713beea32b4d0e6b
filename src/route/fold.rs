//! Folds the events of a group into the one change that is written: the same as if they had been
//! written one after the other, without the states between.
//!
//! | events | folded |
//! | --- | --- |
//! | documents, `replace` | the last one |
//! | documents, `merge` | their top-level members, the last of each name, digits untouched |
//! | upserts | the last value that each column was given |
//! | … then a delete | the delete |
//! | delete, then documents | the documents alone: nothing of the old state is left |
//! | delete, then upserts | not one statement: [`Unfoldable`] |

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::lanes::statement::Effect;
use crate::route::CompiledAction;
use pgsluice_core::event::{Change, Json, Value};

/// One change for a whole group; borrows from its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<'a> {
    /// What is done.
    pub effect: Effect,
    /// The document, for [`Effect::Replace`] and [`Effect::Merge`].
    pub state: Option<Cow<'a, str>>,
    /// Key of the target's row; empty without a target.
    pub key: &'a [Value],
    /// The target's columns in the route's order; `None` leaves a column alone.
    pub columns: Vec<Option<&'a Value>>,
}

impl Folded<'_> {
    /// Which of the target's columns are set.
    pub fn present(&self) -> Box<[bool]> {
        self.columns.iter().map(Option::is_some).collect()
    }
}

/// The group cannot be written by one statement; its events are applied one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfoldable;

/// Folds `changes`, which all belong to a route with this action.
///
/// # Errors
///
/// [`Unfoldable`] when one statement cannot do it, also when a change does not belong to the action
/// or there is none.
pub fn fold<'a>(
    action: &CompiledAction,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Result<Folded<'a>, Unfoldable> {
    let mut changes = changes.into_iter();
    let mut folded = single(action, changes.next().ok_or(Unfoldable)?)?;
    for change in changes {
        folded = then(folded, single(action, change)?)?;
    }
    Ok(folded)
}

/// What one change does on its own.
fn single<'a>(action: &CompiledAction, change: &'a Change) -> Result<Folded<'a>, Unfoldable> {
    let row = |effect, key: &'a [Value], columns: &'a [Option<Value>]| {
        let columns = columns.iter().map(Option::as_ref).collect();
        Ok(Folded { effect, state: None, key, columns })
    };
    match (action, change) {
        (CompiledAction::Document { merge }, Change::Document(Json(text))) => Ok(Folded {
            effect: if *merge { Effect::Merge } else { Effect::Replace },
            state: Some(Cow::Borrowed(text)),
            key: &[],
            columns: Vec::new(),
        }),
        (CompiledAction::Document { .. }, Change::Delete { .. }) => row(Effect::Erase, &[], &[]),
        (CompiledAction::Upsert(_), Change::Upsert { key, columns }) => {
            row(Effect::Upsert, key, columns)
        }
        (CompiledAction::Upsert(_), Change::Delete { key, .. }) => row(Effect::Remove, key, &[]),
        (CompiledAction::Delete(target), Change::Delete { key, columns }) => {
            if target.columns.is_empty() {
                row(Effect::Remove, key, &[])
            } else {
                row(Effect::Mark, key, columns)
            }
        }
        (CompiledAction::Skip | CompiledAction::Unusable, _)
        | (CompiledAction::Document { .. }, Change::Upsert { .. })
        | (CompiledAction::Upsert(_) | CompiledAction::Delete(_), Change::Document(_))
        | (CompiledAction::Delete(_), Change::Upsert { .. }) => Err(Unfoldable),
    }
}

/// `earlier`, then `later`.
fn then<'a>(earlier: Folded<'a>, later: Folded<'a>) -> Result<Folded<'a>, Unfoldable> {
    match (earlier.effect, later.effect) {
        (_, Effect::Replace | Effect::Erase) => Ok(later),
        (Effect::Erase, Effect::Merge) => Ok(Folded { effect: Effect::Replace, ..later }),
        (Effect::Replace | Effect::Merge, Effect::Merge) => merged(earlier, later),
        // One row has one key: a group that writes two rows is written row by row.
        _ if earlier.key != later.key => Err(Unfoldable),
        (Effect::Upsert, Effect::Upsert) | (Effect::Mark, Effect::Mark) => {
            let columns = later.columns.iter().zip(&earlier.columns);
            let columns = columns.map(|(later, earlier)| later.or(*earlier)).collect();
            Ok(Folded { columns, ..later })
        }
        (Effect::Upsert | Effect::Remove, Effect::Remove) => Ok(later),
        _ => Err(Unfoldable),
    }
}

/// Two documents, the later one merged into the earlier one as `jsonb` concatenation does: members
/// of objects are set, anything else replaces.
fn merged<'a>(earlier: Folded<'a>, later: Folded<'a>) -> Result<Folded<'a>, Unfoldable> {
    let (Some(first), Some(second)) = (&earlier.state, &later.state) else {
        return Err(Unfoldable);
    };
    if !(is_object(first) && is_object(second)) {
        // An object after something that is no object replaces it, whatever was stored before.
        let effect = if is_object(second) { Effect::Replace } else { later.effect };
        return Ok(Folded { effect, ..later });
    }
    let mut members: BTreeMap<String, &RawValue> =
        serde_json::from_str(first).map_err(|_| Unfoldable)?;
    let newer: BTreeMap<String, &RawValue> =
        serde_json::from_str(second).map_err(|_| Unfoldable)?;
    members.extend(newer);
    let text = serde_json::to_string(&members).map_err(|_| Unfoldable)?;
    Ok(Folded { effect: earlier.effect, state: Some(Cow::Owned(text)), ..later })
}

fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Column, ColumnType, Target};

    const MERGE: CompiledAction = CompiledAction::Document { merge: true };

    fn document(text: &str) -> Change {
        Change::Document(Json(text.into()))
    }

    fn erase() -> Change {
        Change::Delete { key: Box::default(), columns: Box::default() }
    }

    fn target(columns: usize) -> Target {
        let column = |name: String| Column { name, ty: ColumnType::Int8 };
        Target {
            schema: "public".into(),
            table: "customer".into(),
            key: vec![column("id".into())],
            columns: (0..columns).map(|i| column(format!("c{i}"))).collect(),
        }
    }

    fn upsert(key: i64, columns: &[Option<i64>]) -> Change {
        Change::Upsert {
            key: Box::new([Value::Int(key)]),
            columns: columns.iter().map(|c| c.map(Value::Int)).collect(),
        }
    }

    fn remove(key: i64) -> Change {
        Change::Delete { key: Box::new([Value::Int(key)]), columns: Box::default() }
    }

    fn folded_documents(changes: &[Change]) -> (Effect, Option<String>) {
        let folded = fold(&MERGE, changes).unwrap();
        (folded.effect, folded.state.map(Cow::into_owned))
    }

    #[test]
    fn merging_takes_the_last_of_each_member_and_keeps_every_digit() {
        let changes = [
            document(r#"{"a":12345678901234567890.10,"b":1e-9,"a":12345678901234567890.20}"#),
            document(r#" {"b":2.50, "c":{"x":1}}"#),
            document(r#"{"c":{"y":2}}"#),
        ];
        let (effect, state) = folded_documents(&changes);
        assert_eq!(effect, Effect::Merge);
        assert_eq!(state.unwrap(), r#"{"a":12345678901234567890.20,"b":2.50,"c":{"y":2}}"#);
    }

    #[test]
    fn a_member_spelled_with_an_escape_is_the_same_member() {
        let changes = [document(r#"{"\u0061":1}"#), document(r#"{"a":2}"#)];
        assert_eq!(folded_documents(&changes).1.unwrap(), r#"{"a":2}"#);
    }

    #[test]
    fn replacing_takes_the_last_document() {
        let changes = [document(r#"{"a":1}"#), document(r#"{"b":2}"#)];
        let folded = fold(&CompiledAction::Document { merge: false }, &changes).unwrap();
        assert_eq!(
            (folded.effect, folded.state.unwrap().as_ref()),
            (Effect::Replace, r#"{"b":2}"#)
        );
    }

    #[test]
    fn a_document_after_a_delete_merges_with_nothing() {
        let changes = [document(r#"{"a":1}"#), erase(), document(r#"{"b":2}"#)];
        assert_eq!(folded_documents(&changes), (Effect::Replace, Some(r#"{"b":2}"#.into())));
        let more = [erase(), document(r#"{"b":2}"#), document(r#"{"c":3}"#)];
        assert_eq!(folded_documents(&more), (Effect::Replace, Some(r#"{"b":2,"c":3}"#.into())));
    }

    #[test]
    fn a_delete_at_the_end_is_all_that_is_left() {
        let changes = [document(r#"{"a":1}"#), erase()];
        assert_eq!(folded_documents(&changes), (Effect::Erase, None));
    }

    #[test]
    fn what_is_no_object_replaces_and_is_replaced() {
        let to_scalar = [document(r#"{"a":1}"#), document("5")];
        assert_eq!(folded_documents(&to_scalar), (Effect::Merge, Some("5".into())));
        // GIVEN a stored object, the 5 replaces it: the object after it must not merge with it
        let over_scalar = [document(r#"{"a":1}"#), document("5"), document(r#"{"b":2}"#)];
        assert_eq!(folded_documents(&over_scalar), (Effect::Replace, Some(r#"{"b":2}"#.into())));
    }

    #[test]
    fn each_column_takes_the_last_value_it_was_given() {
        let action = CompiledAction::Upsert(target(3));
        let changes = [upsert(1, &[Some(1), Some(2), None]), upsert(1, &[None, Some(3), None])];
        let folded = fold(&action, &changes).unwrap();
        assert_eq!(folded.columns, [Some(&Value::Int(1)), Some(&Value::Int(3)), None]);
        assert_eq!(&*folded.present(), [true, true, false]);
    }

    #[test]
    fn an_explicit_null_is_a_value() {
        let action = CompiledAction::Upsert(target(1));
        let null = Change::Upsert {
            key: Box::new([Value::Int(1)]),
            columns: Box::new([Some(Value::Null)]),
        };
        let changes = [upsert(1, &[Some(1)]), null];
        assert_eq!(fold(&action, &changes).unwrap().columns, [Some(&Value::Null)]);
    }

    #[test]
    fn a_row_deleted_and_written_again_is_not_one_statement() {
        let action = CompiledAction::Upsert(target(1));
        assert!(fold(&action, &[upsert(1, &[Some(1)]), remove(1)]).is_ok());
        assert_eq!(fold(&action, &[remove(1), upsert(1, &[Some(1)])]), Err(Unfoldable));
    }

    #[test]
    fn events_of_two_rows_are_not_one_statement() {
        let action = CompiledAction::Upsert(target(1));
        let changes = [upsert(1, &[Some(1)]), upsert(2, &[Some(1)])];
        assert_eq!(fold(&action, &changes), Err(Unfoldable));
    }

    #[test]
    fn a_soft_delete_sets_columns_and_a_hard_one_sets_none() {
        let soft = Change::Delete {
            key: Box::new([Value::Int(1)]),
            columns: Box::new([Some(Value::Int(0))]),
        };
        let marked = fold(&CompiledAction::Delete(target(1)), [&soft]).unwrap();
        assert_eq!(marked.effect, Effect::Mark);
        let hard = remove(1);
        let removed = fold(&CompiledAction::Delete(target(0)), [&hard]).unwrap();
        assert_eq!(removed.effect, Effect::Remove);
    }

    #[test]
    fn nothing_and_foreign_changes_do_not_fold() {
        assert_eq!(fold(&MERGE, []), Err(Unfoldable));
        assert_eq!(fold(&MERGE, [&upsert(1, &[])]), Err(Unfoldable));
        assert_eq!(fold(&CompiledAction::Skip, [&erase()]), Err(Unfoldable));
    }
}
