//! The connections of the slow lane: a small pool, each with its prepared statements.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, ObjectId, Pool, RecyclingMethod, Runtime,
};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use crate::config::PostgresConfig;
use pgsluice_core::fault::{Fault, FaultKind};

use super::connect::Connector;
use super::lock::SessionLock;
use super::session::OpenError;
use super::statements::Statements;

/// The pool of a session. It opens connections when they are first needed.
pub(super) struct SlowPool {
    pool: Pool,
    /// By connection. One that ends has ended the session, so there are never more than the pool
    /// has.
    statements: Mutex<HashMap<ObjectId, Arc<Statements>>>,
}

/// A connection of the pool, which gets it back when this is dropped.
pub struct SlowConnection {
    connection: Object,
    statements: Arc<Statements>,
}

impl SlowPool {
    /// A pool without a connection yet. Each new one proves that it sees the lock.
    pub(super) fn new(
        target: tokio_postgres::Config,
        connector: Connector,
        lock: SessionLock,
        config: &PostgresConfig,
    ) -> Result<Self, OpenError> {
        // Nothing is run on return: an open transaction is rolled back by whoever opened it, and a
        // connection that ended has ended the session.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let prove_lock =
            Hook::async_fn(move |connection: &mut deadpool_postgres::ClientWrapper, _| {
                Box::pin(async move {
                    match lock.seen_by(connection).await {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(HookError::message("session lock not seen")),
                        Err(error) => Err(HookError::Backend(error)),
                    }
                })
            });
        let pool = Pool::builder(Manager::from_connect(target, connector, recycling))
            .max_size(config.slow_connections)
            .create_timeout(Some(config.connect_timeout))
            .runtime(Runtime::Tokio1)
            .post_create(prove_lock)
            .build()
            .map_err(|_| Fault::new(FaultKind::Bug("pool without a runtime")))?;
        Ok(Self { pool, statements: Mutex::default() })
    }

    /// Waits for a free connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn get(&self) -> Result<SlowConnection, Fault> {
        let connection = self.pool.get().await;
        let connection = connection.map_err(|error| super::error::fault_of_pool(&error))?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        let statements = Arc::clone(statements.entry(Object::id(&connection)).or_default());
        Ok(SlowConnection { connection, statements })
    }

    /// Gives out no more connections.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    /// Connections that are open now.
    pub(super) fn size(&self) -> usize {
        self.pool.status().size
    }
}

impl SlowConnection {
    /// A prepared statement of this connection; `types` follow from the text.
    ///
    /// # Errors
    /// What the server or the connection said; the next one who asks tries again.
    pub async fn prepared(&self, text: &str, types: &[Type]) -> Result<Statement, Fault> {
        self.statements.prepared(self, text, types).await
    }

    /// Takes the connection out of the pool and closes it, which ends the session.
    pub fn close(self) {
        drop(Object::take(self.connection));
    }
}

impl Deref for SlowConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.connection
    }
}

impl fmt::Debug for SlowConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowConnection").finish_non_exhaustive()
    }
}
