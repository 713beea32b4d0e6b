//! Every statement that the builder can write is accepted by the server.

use pgsluice::lanes::statement::{Effect, Guard, Layout, Notify, Shape, Statement};
use pgsluice::route::{Column, ColumnType, CompiledAction, Target};
use pgsluice::sql::binder::Extent;
use pgsluice::sql::name::Schema;
use pgsluice_core::event::RouteId;

use crate::fixture::{DOCUMENT, Fixture, MERGE};

fn target(columns: usize) -> Target {
    let column = |name: String, ty| Column { name, ty };
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

/// Each effect with an action it belongs to and the columns it may bring.
fn effects() -> Vec<(Effect, CompiledAction, Vec<bool>)> {
    let upsert = |present: &[bool]| {
        (Effect::Upsert, CompiledAction::Upsert(target(present.len())), present.to_vec())
    };
    vec![
        (Effect::Replace, DOCUMENT, vec![]),
        (Effect::Merge, MERGE, vec![]),
        (Effect::Erase, DOCUMENT, vec![]),
        upsert(&[]),
        upsert(&[true, true]),
        upsert(&[false, true]),
        upsert(&[false, false]),
        (Effect::Remove, CompiledAction::Delete(target(0)), vec![]),
        (Effect::Remove, CompiledAction::Upsert(target(2)), vec![]),
        (Effect::Mark, CompiledAction::Delete(target(2)), vec![true, false]),
        (Effect::Mark, CompiledAction::Delete(target(2)), vec![false, false]),
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
        for (effect, action, present) in effects() {
            for (guard, extent) in guards {
                for notify in notify {
                    let present = present.as_slice().into();
                    let shape = Shape { route: RouteId(0), effect, present, extent, guard, notify };
                    let statement = Statement::apply(&layout, &action, &shape);
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
