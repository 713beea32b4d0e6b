use super::*;
use crate::route::{Column, ColumnType};

fn column(name: &str, ty: ColumnType) -> Column {
    Column { name: name.into(), ty }
}

fn customer() -> Target {
    let mood = ColumnType::Enum { sql: r#""public"."mood""#.into(), labels: vec!["ok".into()] };
    Target {
        schema: "public".into(),
        table: "Customer".into(),
        key: vec![column("id", ColumnType::Text { max_chars: None })],
        columns: vec![
            column("name", ColumnType::Text { max_chars: Some(40) }),
            column("balance", ColumnType::Numeric),
            column("mood", mood),
        ],
    }
}

const ROW: Notify = Notify::Row { context: false, json: false };
const FULL_ROW: Notify = Notify::Row { context: true, json: true };

fn shape(effect: Effect, present: &[bool], extent: Extent) -> Shape {
    Shape {
        route: RouteId(0),
        effect,
        present: present.into(),
        extent,
        guard: Guard::First,
        notify: ROW,
    }
}

fn action(effect: Effect) -> CompiledAction {
    match effect {
        Effect::Replace | Effect::Erase => CompiledAction::Document { merge: false },
        Effect::Merge => CompiledAction::Document { merge: true },
        Effect::Upsert => CompiledAction::Upsert(customer()),
        Effect::Remove => CompiledAction::Delete(Target { columns: vec![], ..customer() }),
        Effect::Mark => CompiledAction::Delete(customer()),
    }
}

fn text(shape: &Shape, park_gaps: bool) -> String {
    let schema = Schema::new("pgsluice");
    let layout = Layout { schema: &schema, park_gaps };
    let statement = Statement::apply(&layout, &action(shape.effect), shape);
    let types: Vec<String> = statement.types.iter().map(ToString::to_string).collect();
    format!("{}\n-- {}", statement.text, types.join(", "))
}

#[test]
fn the_default_statement_moves_the_ledger_and_notes_the_event() {
    insta::assert_snapshot!(text(&shape(Effect::Replace, &[], Extent::Event), false));
}

#[test]
fn a_group_of_merging_documents_notes_each_event() {
    let shape = Shape { notify: FULL_ROW, ..shape(Effect::Merge, &[], Extent::Group) };
    insta::assert_snapshot!(text(&shape, true));
}

#[test]
fn a_chunk_of_documents_is_set_based() {
    insta::assert_snapshot!(text(&shape(Effect::Merge, &[], Extent::Chunk), false));
}

#[test]
fn an_upsert_of_all_columns_is_one_insert() {
    insta::assert_snapshot!(text(&shape(Effect::Upsert, &[true; 3], Extent::Event), false));
}

#[test]
fn an_upsert_without_all_columns_updates_first() {
    let present = [false, true, true];
    insta::assert_snapshot!(text(&shape(Effect::Upsert, &present, Extent::Event), false));
}

#[test]
fn a_chunk_of_partial_upserts_inserts_only_the_rows_that_are_missing() {
    let present = [true, true, false];
    insta::assert_snapshot!(text(&shape(Effect::Upsert, &present, Extent::Chunk), true));
}

#[test]
fn an_upsert_that_brings_no_column_leaves_an_existing_row_alone() {
    let shape =
        Shape { notify: Notify::Nothing, ..shape(Effect::Upsert, &[false; 3], Extent::Event) };
    insta::assert_snapshot!(text(&shape, false));
}

#[test]
fn deletes_remove_or_mark_the_row() {
    let quiet = |shape| Shape { notify: Notify::Nothing, ..shape };
    insta::assert_snapshot!(
        "remove",
        text(&quiet(shape(Effect::Remove, &[], Extent::Event)), false)
    );
    let mark = quiet(shape(Effect::Mark, &[false, false, true], Extent::Chunk));
    insta::assert_snapshot!("mark", text(&mark, false));
    insta::assert_snapshot!("erase", text(&quiet(shape(Effect::Erase, &[], Extent::Event)), false));
}

#[test]
fn the_slow_lane_compares_the_row_with_what_it_judged() {
    let shape = Shape { guard: Guard::Seen, ..shape(Effect::Replace, &[], Extent::Event) };
    insta::assert_snapshot!(text(&shape, false));
}

/// Proves INV-11.
#[test]
fn a_text_is_written_once_and_the_number_kept_is_bounded() {
    let statements = Statements::new(Schema::new("pgsluice"), false);
    let action = action(Effect::Replace);
    let of = |route| {
        let shape = Shape { route: RouteId(route), ..shape(Effect::Replace, &[], Extent::Event) };
        statements.of(&action, shape)
    };
    assert!(Arc::ptr_eq(&of(1), &of(1)));
    for route in 0..1000 {
        of(route);
    }
    assert!(statements.known.lock().unwrap().len() <= Statements::CAPACITY);
}
