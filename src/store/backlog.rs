//! What waits for somebody: parked aggregates, and letters that their topic does not have.
//!
//! Both are counted for the whole sink, through indexes that hold nothing else, and no further
//! than [`MOST`]. The numbers are read on the slow lane and shown on the admin port, so a
//! synchronous, WAL-writing commit is made on the lead in between (INV-14); numbers that were shown
//! before need none.

use tokio_postgres::types::{ToSql, Type};

use crate::postgres::lock::HELD_HERE;
use crate::postgres::session::Session;
use pgsluice_core::fault::{Fault, FaultKind};

/// Where counting ends: more than this is as bad as this.
pub const MOST: i64 = 10_000;

/// Numbers of a sink, each at most [`MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Aggregates whose events are parked.
    pub parked: i64,
    /// Letters that are not published.
    pub unpublished: i64,
}

/// Counts what waits for the sink of that name. `shown` is what was shown last.
///
/// # Errors
/// The fault. The numbers must not be shown then.
pub async fn count(
    session: &Session,
    sink: &str,
    shown: Option<Waiting>,
) -> Result<Waiting, Fault> {
    let found = session.within(read(session, sink)).await?;
    if shown != Some(found) {
        prove(session, sink).await?;
    }
    Ok(found)
}

async fn read(session: &Session, sink: &str) -> Result<Waiting, Fault> {
    let schema = session.schema();
    let text = format!(
        "select
           (select pg_catalog.count(*) from (
              select from {schema}.aggregate_t a
              where a.sink = (select sink from {schema}.sink_t where name = $1) and a.parked_at is not null limit $2) parked),
           (select pg_catalog.count(*) from (
              select from {schema}.dead_letter_t l
              where l.sink = (select sink from {schema}.sink_t where name = $1) and l.published_at is null limit $2) unpublished)"
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&sink, Type::TEXT), (&MOST, Type::INT8)];
    let connection = session.slow().await?;
    let rows = connection.query_typed(&text, &parameters).await;
    let rows = rows.map_err(|error| crate::postgres::fault_of(&error))?;
    let number = |index: usize| rows.first().and_then(|row| row.try_get(index).ok());
    match (number(0), number(1)) {
        (Some(parked), Some(unpublished)) => Ok(Waiting { parked, unpublished }),
        _ => Err(Fault::new(FaultKind::Bug("numbers of what waits"))),
    }
}

/// Makes everything durable that was read: a write of the sink's own row, which changes nothing.
async fn prove(session: &Session, sink: &str) -> Result<(), Fault> {
    let text = format!(
        "with lock as (select {HELD_HERE} as held),
         touched as (
           update {}.sink_t set name = name where name = $3 and (select held from lock)
           returning sink)
         select lock.held, touched.sink from lock left join touched on true",
        session.schema()
    );
    session.durable(&text, &[Type::TEXT], &[&sink]).await.map(|_| ())
}
