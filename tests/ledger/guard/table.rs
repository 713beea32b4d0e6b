//! Gives many cases to the server at once: their rows in one round trip, their statements
//! pipelined, and one look at everything before and after.

use std::cell::Cell;
use std::fmt::Write as _;

use futures_util::future::join_all;
use pgsluice::lanes::group_move::{GroupMove, bind};
use pgsluice::lanes::statement::{Shape, Statements};
use pgsluice::route::fold::{FoldedRow, fold};
use pgsluice::route::{Column, Target};
use pgsluice::sql::binder::Extent;
use pgsluice::sql::column_type::ColumnType;
use pgsluice::sql::name::Schema;
use pgsluice::store::ledger::Guard;
use pgsluice::store::notification::Notify;
use pgsluice_core::event::{AggregateVersion, Event, LedgerEffect, RouteId, RowAction};
use pgsluice_core::record::{Offset, RecordId, StreamId};
use pgsluice_core::verdict::{GapPolicy, LedgerRow};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::case::{Case, Place, Route};
use crate::fixture::Fixture;

/// `aggregate_t.gap` before anything moves.
const GAP_BEFORE: i64 = 77;

/// What a group does to the ledger's row, and to the one of the target table.
type Effect = (LedgerEffect<()>, Option<RowAction>);

/// Those that a case can have.
const EFFECTS: [Effect; 4] = [
    (LedgerEffect::Set(()), None),
    (LedgerEffect::Clear, None),
    (LedgerEffect::Keep, Some(RowAction::Upsert)),
    (LedgerEffect::Clear, Some(RowAction::Remove)),
];

/// A case with its number, and where its row stood when somebody judged it.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) number: i64,
    pub(super) case: &'a Case,
    pub(super) events: Vec<Event>,
    pub(super) seen: Option<RecordId>,
}

/// Everything the statement could have touched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Image {
    pub(super) row: Option<LedgerRow>,
    pub(super) gap: Option<i64>,
    pub(super) document: Option<String>,
    /// `offset status` of the notifications in the group's stream.
    pub(super) notes: Option<String>,
    /// What the target table holds for the case.
    pub(super) target: Option<i64>,
    /// The dead letters, every column.
    pub(super) letters: String,
    /// Every column of every row.
    pub(super) all: String,
}

/// What became of a case.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) before: Image,
    pub(super) after: Image,
    /// The gap that the statement returned, if the row moved.
    pub(super) moved: Option<i64>,
}

/// A database whose fast lane takes the cases.
pub(super) struct Table {
    fixture: Fixture,
    statements: Statements,
    target: Target,
    next: Cell<i64>,
}

impl Table {
    pub(super) fn new(name: &str, gaps: GapPolicy) -> Self {
        let column = |name: &str| Column::new(name, ColumnType::Int8);
        let target = Target {
            schema: "public".into(),
            table: "target".into(),
            key: vec![column("id")],
            columns: vec![column("by")],
        };
        let fixture = Fixture::new(name, vec![]);
        fixture.database.execute("create table target (id bigint primary key, by bigint)");
        let statements = Statements::new(Schema::new("pgsluice"), gaps == GapPolicy::Park);
        Self { fixture, statements, target, next: Cell::new(1) }
    }

    /// The cases with numbers that were never used before.
    pub(super) fn given<'c>(&self, cases: &'c [Case]) -> Vec<Given<'c>> {
        let first = self.next.get();
        let given: Vec<Given<'_>> = (first..)
            .zip(cases)
            .map(|(number, case)| Given { number, case, events: case.events(number), seen: None })
            .collect();
        self.next.set(first + i64::try_from(given.len()).unwrap());
        given
    }

    /// Runs the cases, which have consecutive numbers.
    ///
    /// # Errors
    /// What the server said to a statement: nothing of a case may make one fail.
    pub(super) fn run(
        &self,
        guard: Guard,
        extent: Extent,
        cases: &[Given<'_>],
    ) -> Result<Vec<Answer>, String> {
        self.fixture.block_on(async {
            let client = self.fixture.session.lane().client();
            client.batch_execute(&self.rows(cases)).await.unwrap();
            let before = self.look(cases).await;
            let moved = self.give(guard, extent, cases).await?;
            let after = self.look(cases).await;
            let images = before.into_iter().zip(after).zip(moved);
            Ok(images.map(|((before, after), moved)| Answer { before, after, moved }).collect())
        })
    }

    fn target(&self, route: Route) -> Option<&Target> {
        match route {
            Route::Document => None,
            Route::Table => Some(&self.target),
        }
    }

    /// The inserts that make the cases.
    fn rows(&self, cases: &[Given<'_>]) -> String {
        let sink = self.fixture.context.sink.0;
        let mut text = String::new();
        for Given { number, case, .. } in cases {
            let aggregate = Case::aggregate(*number);
            if let (Some(stored), Some(row)) = (&case.row, case.ledger_row(*number)) {
                let null = || "null".to_owned();
                writeln!(
                    text,
                    "insert into pgsluice.aggregate_t (sink, aggregate_type, aggregate_id, version,
                       event_id, stream, \"offset\", gap, deleted, parked_at, updated_at, state)
                     values ({sink}, '{}', '{}', {}, {}, {}, {}, {GAP_BEFORE}, {}, {},
                       '2020-01-01Z', {});",
                    aggregate.aggregate_type,
                    aggregate.id,
                    stored.version.map_or_else(null, |version| version.to_string()),
                    stored.event_id.map_or_else(null, |id| format!("'e{id}'")),
                    row.position.stream.0,
                    row.position.offset.0,
                    row.deleted,
                    if row.parked { "now()" } else { "null" },
                    if row.deleted { "null" } else { "'-1'" },
                )
                .unwrap();
            }
            for (place, offset) in &case.letters {
                writeln!(
                    text,
                    "insert into pgsluice.dead_letter_t (stream, sink, \"offset\", timestamp_type,
                       headers, disposition, reason)
                     values ({}, {sink}, {offset}, 'CreateTime', '[]', 'poison', 'field_invalid')
                     on conflict do nothing;",
                    Case::stream(*number, *place).0,
                )
                .unwrap();
            }
            if case.written_before {
                writeln!(text, "insert into target values ({number}, -1);").unwrap();
            }
        }
        text
    }

    /// The state of every case, in their order.
    async fn look(&self, cases: &[Given<'_>]) -> Vec<Image> {
        let client = self.fixture.session.lane().client();
        let numbers: Vec<i64> = cases.iter().map(|given| given.number).collect();
        let keys: Vec<_> = numbers.iter().map(|number| Case::aggregate(*number)).collect();
        let types: Vec<&str> = keys.iter().map(|key| &*key.aggregate_type).collect();
        let ids: Vec<&str> = keys.iter().map(|key| &*key.id).collect();
        let sink = self.fixture.context.sink.0;
        let rows = client
            .query(
                r#"select a.version, a.event_id, a.stream, a."offset", a.deleted,
                     a.parked_at is not null, a.gap, a.state::text,
                     (select string_agg(n."offset" || ' ' || n.status, ', ' order by n."offset")
                      from pgsluice.notification_t as n where n.stream = c.number * 3),
                     t.by, coalesce(l.letters, ''),
                     concat_ws('; ', to_jsonb(a), to_jsonb(t), l.letters,
                       (select jsonb_agg(n order by n.stream, n."offset")
                        from pgsluice.notification_t as n
                        where n.stream between c.number * 3 and c.number * 3 + 2))
                   from unnest($1::bigint[], $2::text[], $3::text[])
                     with ordinality as c(number, type, id, at)
                   left join lateral (
                     select * from pgsluice.aggregate_t as a where a.sink = $4
                     and a.aggregate_type = c.type and a.aggregate_id = c.id limit 1) as a on true
                   left join target as t on t.id = c.number
                   cross join lateral (
                     select jsonb_agg(d order by d.stream, d."offset")::text as letters
                     from pgsluice.dead_letter_t as d
                     where d.stream between c.number * 3 and c.number * 3 + 2) as l
                   order by c.at"#,
                &[&numbers, &types, &ids, &sink],
            )
            .await
            .unwrap();
        rows.iter().map(image).collect()
    }

    /// Gives every case to one statement, or all cases of an effect to one. The answers are those
    /// of the cases.
    async fn give(
        &self,
        guard: Guard,
        extent: Extent,
        cases: &[Given<'_>],
    ) -> Result<Vec<Option<i64>>, String> {
        let statements: Vec<Vec<&Given<'_>>> = match extent {
            Extent::Event | Extent::Group => cases.iter().map(|given| vec![given]).collect(),
            Extent::Chunk => EFFECTS
                .map(|effect| cases.iter().filter(|given| self.effect(given) == effect).collect())
                .into_iter()
                .filter(|chunk: &Vec<_>| !chunk.is_empty())
                .collect(),
        };
        let answers =
            join_all(statements.iter().map(|chunk| self.statement(guard, extent, chunk))).await;
        let mut moved = vec![None; cases.len()];
        for (chunk, gaps) in statements.iter().zip(answers) {
            for (given, gap) in chunk.iter().zip(gaps?) {
                moved[usize::try_from(given.number - cases[0].number).unwrap()] = gap;
            }
        }
        Ok(moved)
    }

    fn effect(&self, given: &Given<'_>) -> Effect {
        let folded = self.move_of(given).folded;
        (folded.ledger.kind(), folded.row.map(|row| row.action))
    }

    fn move_of<'g>(&self, given: &'g Given<'_>) -> GroupMove<'g> {
        let writes = given.events.iter().map(|event| event.write().unwrap());
        GroupMove {
            aggregate: given.events[0].envelope.aggregate.as_ref().unwrap(),
            stream: Case::stream(given.number, Place::Here),
            events: &given.events,
            folded: fold(self.target(given.case.route), writes).unwrap(),
            seen: given.seen,
        }
    }

    /// Runs one statement; the gap of each group that moved, in their order.
    async fn statement(
        &self,
        guard: Guard,
        extent: Extent,
        chunk: &[&Given<'_>],
    ) -> Result<Vec<Option<i64>>, String> {
        let moves: Vec<GroupMove<'_>> = chunk.iter().map(|given| self.move_of(given)).collect();
        let shape = Shape {
            route: RouteId(match chunk[0].case.route {
                Route::Document => 0,
                Route::Table => 1,
            }),
            ledger: moves[0].folded.ledger.kind(),
            row: moves[0].folded.row.as_ref().map(FoldedRow::shape),
            extent,
            guard,
            notify: Notify::Row { context: false, json: false },
        };
        let statement = self.statements.of(self.target(chunk[0].case.route), shape);
        let parameters = bind(&statement, self.fixture.context.sink, &moves);
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect();
        let lane = self.fixture.session.lane();
        let prepared = lane.prepared(&statement.text, &statement.types).await;
        let prepared = prepared.map_err(|fault| fault.to_string())?;
        let rows = lane.client().query(&prepared, &parameters).await;
        let rows = rows.map_err(|error| format!("the statement fails: {error:?}"))?;
        let mut gaps = vec![None; chunk.len()];
        for row in rows {
            let (at, gap) = match extent {
                Extent::Event | Extent::Group => (0, row.get(0)),
                Extent::Chunk => (usize::try_from(row.get::<_, i64>(0)).unwrap() - 1, row.get(1)),
            };
            assert_eq!(gaps[at].replace(gap), None, "a group is answered once");
        }
        Ok(gaps)
    }
}

fn image(row: &Row) -> Image {
    let position = row.get::<_, Option<i32>>(2).zip(row.get(3));
    Image {
        row: position.map(|(stream, offset)| LedgerRow {
            version: row.get::<_, Option<i64>>(0).map(AggregateVersion),
            event_id: row.get::<_, Option<String>>(1).map(String::into_boxed_str),
            position: RecordId { stream: StreamId(stream), offset: Offset(offset) },
            deleted: row.get(4),
            parked: row.get(5),
            earlier_log: false,
        }),
        gap: row.get(6),
        document: row.get(7),
        notes: row.get(8),
        target: row.get(9),
        letters: row.get(10),
        all: row.get(11),
    }
}
