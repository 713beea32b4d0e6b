//! One transaction on a connection of the slow lane.
//!
//! Whatever belongs together goes out in one flight: the futures are polled in order before any
//! answer is awaited. Every answer is looked at before COMMIT's, because the driver reports a COMMIT
//! that the server turned into ROLLBACK as a success: that happens exactly when a statement before
//! it failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{OptionFuture, join, join3};
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

    /// Opens the transaction and reads a row (where there is one to read) and the letters.
    pub(super) async fn begin(
        &self,
        row: Option<Query<'_>>,
        letters: Query<'_>,
    ) -> Result<(Vec<Row>, Vec<Row>), Fault> {
        let connection = self.connection()?;
        within(self.deadline, async {
            let prepared_row = prepared(connection, row.as_ref()).await?;
            let prepared_letters = connection.prepared(&letters.text, &letters.types).await?;
            let row_parameters = row.as_ref().map(Query::parameters).unwrap_or_default();
            let letter_parameters = letters.parameters();
            let read_row: OptionFuture<_> = prepared_row
                .as_ref()
                .map(|prepared| connection.query(prepared, &row_parameters))
                .into();
            let (begun, row, letters) = join3(
                connection.batch_execute("begin"),
                read_row,
                connection.query(&prepared_letters, &letter_parameters),
            )
            .await;
            begun.map_err(fault)?;
            let row = row.transpose().map_err(fault)?.unwrap_or_default();
            Ok((row, letters.map_err(fault)?))
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
        within(self.deadline, async {
            let prepared = connection.prepared(&query.text, &query.types).await?;
            connection.query(&prepared, &query.parameters()).await.map_err(fault)
        })
        .await
    }

    /// Runs the last statements and commits, in one flight. The rows are those of `guarded`.
    pub(super) async fn commit(
        mut self,
        notes: Option<Query<'_>>,
        guarded: Option<Query<'_>>,
    ) -> Result<Vec<Row>, Fault> {
        let connection = self.connection()?;
        let rows = within(self.deadline, async {
            let prepared_notes = prepared(connection, notes.as_ref()).await?;
            let prepared_guarded = prepared(connection, guarded.as_ref()).await?;
            let note_parameters = notes.as_ref().map(Query::parameters).unwrap_or_default();
            let guarded_parameters = guarded.as_ref().map(Query::parameters).unwrap_or_default();
            let noted: OptionFuture<_> =
                prepared_notes.as_ref().map(|p| connection.query(p, &note_parameters)).into();
            let written: OptionFuture<_> =
                prepared_guarded.as_ref().map(|p| connection.query(p, &guarded_parameters)).into();
            let (noted, written, committed) =
                join3(noted, written, connection.batch_execute("commit")).await;
            noted.transpose().map_err(fault)?;
            let rows = written.transpose().map_err(fault)?.unwrap_or_default();
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

async fn prepared(
    connection: &SlowConnection,
    query: Option<&Query<'_>>,
) -> Result<Option<tokio_postgres::Statement>, Fault> {
    match query {
        Some(query) => Ok(Some(connection.prepared(&query.text, &query.types).await?)),
        None => Ok(None),
    }
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
