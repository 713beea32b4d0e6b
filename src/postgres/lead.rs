//! The lead connection: the only one whose answers mean "durable".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use pgsluice_core::fault::{Fault, FaultKind};

use super::connect::Connected;
use super::lane::Lane;
use super::lock::SessionLock;

/// Holds the session lock and writes synchronously, one statement at a time.
#[derive(Debug)]
pub(super) struct Lead {
    connection: Lane,
    warnings: Arc<AtomicU64>,
    lock: SessionLock,
    turn: Mutex<()>,
}

impl Lead {
    pub(super) fn new(connected: Connected, lock: SessionLock) -> Self {
        Self {
            connection: Lane::new(connected.client),
            warnings: connected.warnings,
            lock,
            turn: Mutex::new(()),
        }
    }

    pub(super) fn lock(&self) -> SessionLock {
        self.lock
    }

    /// Runs one statement that is durable when this returns `Ok`.
    ///
    /// The statement takes the lock's parameters as `$1` and `$2` and the given ones from `$3`
    /// on, and its first column says in every row, and in at least one row, whether the lock is
    /// held ([`super::lock::HELD_HERE`]).
    ///
    /// A WARNING while it runs means it is not durable: a wait for a synchronous standby that was
    /// cancelled or timed out answers with success and a WARNING.
    pub(super) async fn write(
        &self,
        text: &str,
        types: &[Type],
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        // One at a time, so that a warning belongs to the statement that runs.
        let _turn = self.turn.lock().await;
        let warnings = self.warnings.load(Ordering::Relaxed);
        let all_types: Vec<Type> =
            [Type::OID, Type::OID].into_iter().chain(types.iter().cloned()).collect();
        let statement = self.connection.prepared(text, &all_types).await?;
        let [class, object] = self.lock.parameters();
        let mut all_parameters: Vec<&(dyn ToSql + Sync)> = vec![&class, &object];
        all_parameters.extend_from_slice(parameters);
        let rows = self
            .connection
            .client()
            .query(&statement, &all_parameters)
            .await
            .map_err(|error| crate::postgres::fault_of(&error))?;
        if self.warnings.load(Ordering::Relaxed) != warnings {
            tracing::warn!(
                event = "durability_warning",
                "the server sent a warning about a write that must be durable"
            );
            return Err(Fault::new(FaultKind::Connection));
        }
        let Some(first) = rows.first() else {
            return Err(Fault::new(FaultKind::Bug("lead statement without a row")));
        };
        let held: bool = first.try_get(0).map_err(|error| crate::postgres::fault_of(&error))?;
        if held { Ok(rows) } else { Err(Fault::new(FaultKind::LockNotSeen)) }
    }
}
