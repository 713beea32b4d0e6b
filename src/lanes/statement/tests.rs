use super::*;
use crate::route::Column;
use crate::sql::column_type::ColumnType;
use pgsluice_core::event::RowAction;

fn column(name: &str, ty: ColumnType) -> Column {
    Column::new(name, ty)
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

const REPLACE: LedgerEffect<()> = LedgerEffect::Set(());
const MERGE: LedgerEffect<()> = LedgerEffect::Merge(());

fn shape(ledger: LedgerEffect<()>, extent: Extent) -> Shape {
    Shape { route: RouteId(0), ledger, row: None, extent, guard: Guard::First, notify: ROW }
}

fn row(action: RowAction, present: &[bool], extent: Extent) -> Shape {
    let ledger = match action {
        RowAction::Upsert => LedgerEffect::Keep,
        RowAction::Remove | RowAction::Mark => LedgerEffect::Clear,
    };
    Shape { row: Some(RowShape { action, present: present.into() }), ..shape(ledger, extent) }
}

fn upsert(present: &[bool], extent: Extent) -> Shape {
    row(RowAction::Upsert, present, extent)
}

fn text(shape: &Shape, park_gaps: bool) -> String {
    let schema = Schema::new("pgsluice");
    let layout = Layout { schema: &schema, park_gaps };
    let target = shape.row.is_some().then(customer);
    let statement = shape.statement(&layout, target.as_ref());
    let types: Vec<String> = statement.types.iter().map(ToString::to_string).collect();
    format!("{}\n-- {}", statement.text, types.join(", "))
}

#[test]
fn the_default_statement_moves_the_ledger_and_notes_the_event() {
    insta::assert_snapshot!(text(&shape(REPLACE, Extent::Event), false));
}

#[test]
fn a_group_of_merging_documents_notes_each_event() {
    let shape = Shape { notify: FULL_ROW, ..shape(MERGE, Extent::Group) };
    insta::assert_snapshot!(text(&shape, true));
}

#[test]
fn a_chunk_of_documents_is_set_based() {
    insta::assert_snapshot!(text(&shape(MERGE, Extent::Chunk), false));
}

#[test]
fn an_upsert_of_all_columns_is_one_insert() {
    insta::assert_snapshot!(text(&upsert(&[true; 3], Extent::Event), false));
}

#[test]
fn an_upsert_without_all_columns_updates_first() {
    let present = [false, true, true];
    insta::assert_snapshot!(text(&upsert(&present, Extent::Event), false));
}

#[test]
fn a_chunk_of_partial_upserts_inserts_only_the_rows_that_are_missing() {
    let present = [true, true, false];
    insta::assert_snapshot!(text(&upsert(&present, Extent::Chunk), true));
}

#[test]
fn an_upsert_that_brings_no_column_leaves_an_existing_row_alone() {
    let shape = Shape { notify: Notify::Nothing, ..upsert(&[false; 3], Extent::Event) };
    insta::assert_snapshot!(text(&shape, false));
}

#[test]
fn deletes_remove_or_mark_the_row() {
    let quiet = |shape| Shape { notify: Notify::Nothing, ..shape };
    insta::assert_snapshot!(
        "remove",
        text(&quiet(row(RowAction::Remove, &[], Extent::Event)), false)
    );
    let mark = quiet(row(RowAction::Mark, &[false, false, true], Extent::Chunk));
    insta::assert_snapshot!("mark", text(&mark, false));
    insta::assert_snapshot!(
        "erase",
        text(&quiet(shape(LedgerEffect::Clear, Extent::Event)), false)
    );
}

#[test]
fn the_slow_lane_compares_the_row_with_what_it_judged() {
    let shape = Shape { guard: Guard::Seen, ..shape(REPLACE, Extent::Event) };
    insta::assert_snapshot!(text(&shape, false));
}

/// Proves INV-11.
#[test]
fn a_text_is_written_once_and_the_number_kept_is_bounded() {
    let statements = Statements::new(Schema::new("pgsluice"), false);
    let of = |route| {
        let shape = Shape { route: RouteId(route), ..shape(REPLACE, Extent::Event) };
        statements.of(None, shape)
    };
    assert!(Arc::ptr_eq(&of(1), &of(1)));
    for route in 0..1000 {
        of(route);
    }
    assert!(statements.known.lock().unwrap().len() <= Statements::CAPACITY);
}
