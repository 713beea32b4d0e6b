//! The part of a statement that writes a user's table. Everything selects from the ledger's move,
//! so nothing here runs for a group that was refused.

use crate::route::{Column, Target};
use crate::sql::binder::{Binder, Extent, Slot, column_list};
use crate::sql::name::quoted;
use pgsluice_core::event::RowAction;

/// What the text of a row's write depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowShape {
    /// What happens to the row.
    pub action: RowAction,
    /// Which of the target's columns the events bring.
    pub present: Box<[bool]>,
}

/// The common table expressions that write a row of `target`.
pub fn write(target: &Target, row: &RowShape, b: &mut Binder) -> Vec<String> {
    match row.action {
        RowAction::Upsert => upsert(target, &row.present, b),
        RowAction::Remove => vec![delete(target, b)],
        RowAction::Mark => update(target, &row.present, b).into_iter().collect(),
    }
}

/// `insert … on conflict` where the event brings every column. Where it lacks some, the row is
/// updated first and inserted only when there is none: a proposed row is checked for NOT NULL even
/// when the row exists.
fn upsert(target: &Target, present: &[bool], b: &mut Binder) -> Vec<String> {
    let partial = present.contains(&false);
    let first = partial.then(|| match update(target, present, b) {
        Some(update) => update,
        None => existing(target, b),
    });
    let set = columns(target, present);
    let names = column_list(target.key.iter().chain(set.iter().map(|(_, c)| *c)).map(name));
    let mut values = key_values(target, b);
    values.extend(set.iter().map(|(i, column)| b.target(Slot::Column(*i), &column.ty)));
    let missing = match (partial, b.extent()) {
        (false, _) => "",
        (true, Extent::Event | Extent::Group) => "\n  where not exists (select 1 from written)",
        (true, Extent::Chunk) => {
            "\n  where not exists (select 1 from written where written.n = i.n)"
        }
    };
    let conflict = if set.is_empty() {
        "do nothing".to_owned()
    } else {
        let assignments: Vec<String> = set
            .iter()
            .map(|(_, column)| format!("{name} = excluded.{name}", name = quoted(&column.name)))
            .collect();
        format!("do update set {}", assignments.join(", "))
    };
    let insert = format!(
        "inserted as (\n  insert into {} ({names})\n  select {} from {}{missing}\n  on conflict ({}) {conflict}\n)",
        table(target),
        values.join(", "),
        b.moved_groups(),
        column_list(target.key.iter().map(name)),
    );
    first.into_iter().chain([insert]).collect()
}

/// Sets the present columns of the row where it exists; `None` when there is nothing to set.
fn update(target: &Target, present: &[bool], b: &mut Binder) -> Option<String> {
    let assignments: Vec<String> = columns(target, present)
        .into_iter()
        .map(|(i, column)| {
            format!("{} = {}", quoted(&column.name), b.target(Slot::Column(i), &column.ty))
        })
        .collect();
    if assignments.is_empty() {
        return None;
    }
    Some(format!(
        "written as (\n  update {} as x set {}\n  from {}\n  where {}\n  returning {}\n)",
        table(target),
        assignments.join(", "),
        b.moved_groups(),
        same_key(target, b),
        row_number(b),
    ))
}

/// The rows that exist, where there is nothing to set on them.
fn existing(target: &Target, b: &mut Binder) -> String {
    format!(
        "written as (\n  select {} from {}, {} as x\n  where {}\n)",
        row_number(b),
        b.moved_groups(),
        table(target),
        same_key(target, b),
    )
}

fn delete(target: &Target, b: &mut Binder) -> String {
    format!(
        "deleted as (\n  delete from {} as x using {}\n  where {}\n)",
        table(target),
        b.moved_groups(),
        same_key(target, b),
    )
}

fn row_number(b: &Binder) -> &'static str {
    match b.extent() {
        Extent::Event | Extent::Group => "1",
        Extent::Chunk => "i.n",
    }
}

fn columns<'a>(target: &'a Target, present: &[bool]) -> Vec<(usize, &'a Column)> {
    let brought = |index: usize| present.get(index).copied().unwrap_or(false);
    target.columns.iter().enumerate().filter(|(index, _)| brought(*index)).collect()
}

fn key_values(target: &Target, b: &mut Binder) -> Vec<String> {
    target.key.iter().enumerate().map(|(i, k)| b.target(Slot::Key(i), &k.ty)).collect()
}

fn same_key(target: &Target, b: &mut Binder) -> String {
    let values = key_values(target, b);
    let pairs = target.key.iter().zip(values);
    let same = pairs.map(|(k, v)| format!("x.{} {} {v}", quoted(&k.name), k.ty.same()));
    same.collect::<Vec<_>>().join(" and ")
}

fn table(target: &Target) -> String {
    format!("{}.{}", quoted(&target.schema), quoted(&target.table))
}

fn name(column: &Column) -> &str {
    &column.name
}
