//! Every statement that the builder can write is accepted by the server.

use pgsluice::lanes::statement::Shape;
use pgsluice::route::fragment::RowShape;
use pgsluice::route::{Column, Target};
use pgsluice::sql::binder::Extent;
use pgsluice::sql::column_type::ColumnType;
use pgsluice::sql::name::Schema;
use pgsluice::store::ledger::{Guard, Layout};
use pgsluice::store::notification::Notify;
use pgsluice_core::event::{LedgerEffect, RouteId, RowAction};

use crate::fixture::{DOCUMENT, Fixture};

fn target(columns: usize) -> Target {
    let column = |name: String, ty| Column::new(&name, ty);
    Target {
        schema: "public".into(),
        table: "Wide Table".into(),
        key: vec![
            column("id".into(), ColumnType::Uuid),
            column("select".into(), ColumnType::Text { max_chars: None }),
        ],
        columns: [ColumnType::Int4, ColumnType::Numeric]
            .into_iter()
            .zip(1..)
            .map(|(ty, i)| column(format!("c{i}"), ty))
            .take(columns)
            .collect(),
    }
}

/// Each ledger effect with a row that it is written with, and the target of its route.
fn writes() -> Vec<(LedgerEffect<()>, Option<RowShape>, Option<Target>)> {
    let row = |action, present: &[bool], columns| {
        let ledger = match action {
            RowAction::Upsert => LedgerEffect::Keep,
            RowAction::Remove | RowAction::Mark => LedgerEffect::Clear,
        };
        (ledger, Some(RowShape { action, present: present.into() }), Some(target(columns)))
    };
    vec![
        (LedgerEffect::Set(()), None, None),
        (LedgerEffect::Merge(()), None, None),
        (LedgerEffect::Clear, None, None),
        row(RowAction::Upsert, &[], 0),
        row(RowAction::Upsert, &[true, true], 2),
        row(RowAction::Upsert, &[false, true], 2),
        row(RowAction::Upsert, &[false, false], 2),
        row(RowAction::Remove, &[], 0),
        row(RowAction::Remove, &[], 2),
        row(RowAction::Mark, &[true, false], 2),
        row(RowAction::Mark, &[false, false], 2),
    ]
}

#[test]
fn every_shape_can_be_prepared() {
    let fixture = Fixture::new("prepare", vec![DOCUMENT]);
    fixture.database.execute(
        r#"create table "Wide Table" (
             id uuid, "select" text, c1 integer not null, c2 numeric,
             primary key (id, "select"))"#,
    );
    let schema = Schema::new("pgsluice");
    let notify = [
        Notify::Nothing,
        Notify::Row { context: false, json: false },
        Notify::Row { context: true, json: true },
    ];
    let guards = [
        (Guard::First, Extent::Event),
        (Guard::First, Extent::Group),
        (Guard::First, Extent::Chunk),
        (Guard::Seen, Extent::Event),
    ];
    let mut prepared = 0;
    for park_gaps in [false, true] {
        let layout = Layout { schema: &schema, park_gaps };
        for (ledger, row, target) in writes() {
            for (guard, extent) in guards {
                for notify in notify {
                    let (route, row) = (RouteId(0), row.clone());
                    let shape = Shape { route, ledger, row, extent, guard, notify };
                    let statement = shape.statement(&layout, target.as_ref());
                    let lane = fixture.session.lane().client();
                    let answer =
                        fixture.block_on(lane.prepare_typed(&statement.text, &statement.types));
                    if let Err(error) = answer {
                        panic!("{shape:?}: {error:?}\n{}", statement.text);
                    }
                    prepared += 1;
                }
            }
        }
    }
    assert_eq!(prepared, 2 * 11 * 4 * 3);
}
