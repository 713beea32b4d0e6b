//! One transaction on a connection of the slow lane.
//!
//! Whatever belongs together goes out in one flight: the futures are polled in order before any
//! answer is awaited. Every answer is looked at before COMMIT's, because the driver reports a COMMIT
//! that the server turned into ROLLBACK as a success: that happens exactly when a statement before
//! it failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all, join3};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::postgres::SlowConnection;
use crate::sql::parameter::Parameter;
use crate::sql::query::Query;
use crate::sql::statement::Statement;
use pgsluice_core::fault::{Fault, FaultKind};

/// A connection whose transaction may be open. Dropped without an end it closes the connection,
/// and so the session: nobody else may ever find a half-done transaction on it.
pub(super) struct Transaction {
    connection: Option<SlowConnection>,
    deadline: Duration,
    /// The savepoint before the latest event is still there.
    savepoint: AtomicBool,
}

impl Transaction {
    /// Takes a connection; no transaction is open yet.
    pub(super) fn new(connection: SlowConnection, deadline: Duration) -> Self {
        Self { connection: Some(connection), deadline, savepoint: AtomicBool::new(false) }
    }

    fn connection(&self) -> Result<&SlowConnection, Fault> {
        self.connection.as_ref().ok_or(Fault::new(FaultKind::Connection))
    }

    /// Opens the transaction, runs the locks in their order, and reads the letters. The rows are those
    /// of each lock, and the letters.
    pub(super) async fn begin(
        &self,
        locks: Vec<Query<'_>>,
        letters: Query<'_>,
    ) -> Result<(Vec<Vec<Row>>, Vec<Row>), Fault> {
        let connection = self.connection()?;
        within(self.deadline, async {
            let locks = prepared(connection, &locks).await?;
            let letters = Ready::new(connection, &letters).await?;
            let (begun, locked, letters) = join3(
                connection.batch_execute("begin"),
                join_all(locks.iter().map(|lock| lock.run(connection))),
                letters.run(connection),
            )
            .await;
            begun.map_err(fault)?;
            let locked = locked.into_iter().collect::<Result<_, _>>()?;
            Ok((locked, letters?))
        })
        .await
    }

    /// Runs the statement of one event under a savepoint, and checks every deferred constraint.
    /// `false` when the ledger refused it. The savepoint stays for [`Self::undo_event`].
    pub(super) async fn apply(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<bool, Fault> {
        let connection = self.connection()?;
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect();
        within(self.deadline, async {
            // The last event's savepoint goes only now, when nothing can make it necessary any more.
            let again = self.savepoint.swap(true, Ordering::Relaxed);
            let open =
                if again { "release savepoint event; savepoint event" } else { "savepoint event" };
            // Preparing can fail (a table is gone) and must then be undone like the statement.
            connection.batch_execute(open).await.map_err(fault)?;
            let prepared = connection.prepared(&statement.text, &statement.types).await?;
            let (rows, checked) = join(
                connection.query(&prepared, &parameters),
                connection.batch_execute("set constraints all immediate"),
            )
            .await;
            let moved = !rows.map_err(fault)?.is_empty();
            checked.map_err(fault)?;
            Ok(moved)
        })
        .await
    }

    /// Takes back what the last event's statement did, and goes on.
    pub(super) async fn undo_event(&self) -> Result<(), Fault> {
        self.execute("rollback to savepoint event").await
    }

    /// Runs statements that give no rows.
    pub(super) async fn execute(&self, text: &str) -> Result<(), Fault> {
        let connection = self.connection()?;
        within(self.deadline, async { connection.batch_execute(text).await.map_err(fault) }).await
    }

    /// Runs one statement.
    pub(super) async fn query(&self, query: &Query<'_>) -> Result<Vec<Row>, Fault> {
        let connection = self.connection()?;
        within(self.deadline, async { Ready::new(connection, query).await?.run(connection).await })
            .await
    }

    /// Runs the last statements in their order and commits, in one flight. The rows are those of
    /// each.
    pub(super) async fn commit(mut self, last: Vec<Query<'_>>) -> Result<Vec<Vec<Row>>, Fault> {
        let connection = self.connection()?;
        let rows = within(self.deadline, async {
            let last = prepared(connection, &last).await?;
            let (rows, committed) = join(
                join_all(last.iter().map(|query| query.run(connection))),
                connection.batch_execute("commit"),
            )
            .await;
            let rows = rows.into_iter().collect::<Result<_, _>>()?;
            committed.map_err(fault)?;
            Ok(rows)
        })
        .await;
        match rows {
            Ok(rows) => {
                self.connection = None;
                Ok(rows)
            }
            Err(fault) => Err(self.give_up(fault).await),
        }
    }

    /// Runs one statement in a transaction of its own.
    pub(super) async fn alone(mut self, query: &Query<'_>) -> Result<Vec<Row>, Fault> {
        match self.query(query).await {
            Ok(rows) => {
                self.connection = None;
                Ok(rows)
            }
            Err(fault) => Err(self.give_up(fault).await),
        }
    }

    /// Rolls back; gives the fault back that is the reason. When even that fails, or the connection
    /// does not answer any more, it is closed.
    pub(super) async fn give_up(mut self, reason: Fault) -> Fault {
        let answers = !matches!(reason.kind, FaultKind::Deadline | FaultKind::Connection);
        if answers && self.execute("rollback").await.is_ok() {
            self.connection = None;
        }
        reason
    }

    /// Gives the connection back unused.
    pub(super) fn release(mut self) -> Result<(), Fault> {
        self.connection = None;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }
}

/// A query whose statement is prepared: it is sent by the first poll of [`Self::run`].
struct Ready<'q> {
    statement: tokio_postgres::Statement,
    parameters: Vec<&'q (dyn ToSql + Sync)>,
}

impl<'q> Ready<'q> {
    async fn new(connection: &SlowConnection, query: &'q Query<'_>) -> Result<Self, Fault> {
        let statement = connection.prepared(&query.text, &query.types).await?;
        Ok(Self { statement, parameters: query.parameters() })
    }

    async fn run(&self, connection: &SlowConnection) -> Result<Vec<Row>, Fault> {
        connection.query(&self.statement, &self.parameters).await.map_err(fault)
    }
}

async fn prepared<'q>(
    connection: &SlowConnection,
    queries: &'q [Query<'_>],
) -> Result<Vec<Ready<'q>>, Fault> {
    let mut ready = Vec::with_capacity(queries.len());
    for query in queries {
        ready.push(Ready::new(connection, query).await?);
    }
    Ok(ready)
}

fn fault(error: Error) -> Fault {
    crate::postgres::fault_of(&error)
}

/// Waits for an answer, but not for ever: without one nobody knows what happened, and the session
/// is given up.
async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::new(FaultKind::Deadline)),
    }
}
