//! A database session: one lead, N lanes and the pool of the slow lane, born and closed whole.
//!
//! What a session guarantees: every connection of it is on the one server that was running when
//! it was opened. So everything a lane committed before the barrier was sent is in the same
//! write-ahead log in front of it, and a barrier that succeeds makes all of it durable. Any
//! connection that ends, an answer that does not come, a lock that is not seen: the session is
//! over, and whoever used it starts again from the progress the database holds.

use std::fmt;
use std::time::Duration;

use futures_util::future::try_join_all;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::config::{Config, UrlError};
use crate::telemetry::Connections;
use pgsluice_core::fault::{Fault, FaultKind, SqlState};
use pgsluice_core::record::SessionId;

use super::connect::{Connector, Lifeline, Role, SessionEnd};
use super::lane::Lane;
use super::lead::Lead;
use super::lock::SessionLock;
use super::slow::{SlowConnection, SlowPool};
use super::tls::Refused;

/// The oldest server that has every setting a session needs.
pub(crate) const OLDEST_SERVER: i32 = 140_000;

/// `read_only_sql_transaction`: what a write on this server would be answered with.
const READ_ONLY: SqlState = SqlState(*b"25006");

/// All connections to the database that one reading of Kafka uses.
pub struct Session {
    /// Its name; replies of an older session are ignored.
    pub id: SessionId,
    /// Pipelined connections for first attempts; never empty.
    pub lanes: Vec<Lane>,
    lead: Lead,
    slow: SlowPool,
    schema: Box<str>,
    lifeline: Lifeline,
    deadline: Duration,
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection's configuration cannot be used, e.g. a password file that is gone.
    #[error("postgres.url {0}")]
    Config(UrlError),
    /// The server is too old or stores text in another encoding.
    #[error("PostgreSQL {0}")]
    Unsupported(&'static str),
    /// The database did not answer or refused.
    #[error("database session: {0}")]
    Database(Fault),
}

impl OpenError {
    /// The fault to report when a later session cannot be opened.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Database(fault) => fault,
            Self::Config(_) => Fault::new(FaultKind::Bug("postgres.url can no longer be used")),
            Self::Unsupported(what) => Fault::new(FaultKind::Bug(what)),
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        Self::Database(fault)
    }
}

impl From<Refused> for OpenError {
    fn from(refused: Refused) -> Self {
        Self::Database(refused.fault())
    }
}

impl From<tokio_postgres::Error> for OpenError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(crate::postgres::fault_of(&error))
    }
}

impl Session {
    /// Opens every connection and proves that all are on one server.
    ///
    /// Each connection has `postgres.connect_timeout`. Nothing is retried.
    ///
    /// # Errors
    /// [`OpenError`]; nothing stays open.
    pub async fn open(config: &Config, id: SessionId) -> Result<(Self, SessionEnd), OpenError> {
        let (lifeline, end) = Lifeline::new();
        let opened = Self::connect(config, id, &lifeline).await;
        if opened.is_err() {
            lifeline.close();
        }
        Ok((opened?, end))
    }

    async fn connect(
        config: &Config,
        id: SessionId,
        lifeline: &Lifeline,
    ) -> Result<Self, OpenError> {
        let postgres = &config.postgres;
        let target = postgres.connect_config().map_err(OpenError::Config)?;
        let connector =
            Connector::new(target.clone(), postgres, &config.kafka.group, lifeline.clone());
        let limit = postgres.connect_timeout;
        let schema = escape_identifier(&postgres.schema).into_boxed_str();

        let lead = within(limit, open_lead(&connector)).await?;
        let lock = lead.lock();
        let lanes =
            try_join_all((0..postgres.lanes).map(|_| within(limit, open_lane(&connector, lock))))
                .await?;
        let slow = SlowPool::new(target.driver, connector, lock, postgres)?;
        Ok(Self {
            id,
            lanes,
            lead,
            slow,
            schema,
            lifeline: lifeline.clone(),
            deadline: postgres.deadline,
        })
    }

    /// Drops all sockets at once. Whatever is in flight fails with [`FaultKind::Connection`].
    pub fn close(&self) {
        self.lifeline.close();
        self.slow.close();
    }

    /// Ends the session because of a fault, which [`SessionEnd`] then reports.
    pub fn fail(&self, fault: Fault) {
        self.lifeline.fail(fault);
        self.slow.close();
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.lifeline.is_closed()
    }

    /// Connections that are open now.
    pub fn connections(&self) -> Connections {
        if self.is_closed() {
            return Connections::default();
        }
        Connections { lead: 1, lanes: self.lanes.len(), slow: self.slow.size() }
    }

    /// The quoted schema of pgsluice's own tables.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Process id of the lead's backend, for messages and tests.
    pub fn lead_backend(&self) -> i32 {
        self.lead.lock().holder()
    }

    /// The lane with the least work in flight.
    pub fn lane(&self) -> &Lane {
        self.lanes.iter().min_by_key(|lane| lane.in_flight()).unwrap_or(&self.lanes[0])
    }

    /// A connection of the slow lane: synchronous commits, longer lock waits, one group at a
    /// time. Waits for a free one; a new one proves that it sees the session's lock.
    ///
    /// # Errors
    /// The fault; the session is over when a connection could not be opened in time.
    pub async fn slow(&self) -> Result<SlowConnection, Fault> {
        let connection = self.slow.get().await;
        if let Err(fault) = &connection
            && !matches!(fault.kind, FaultKind::Server(_))
        {
            self.fail(fault.clone());
        }
        connection
    }

    /// Waits for database work at most `postgres.deadline`. An answer that does not come in time
    /// ends the session: no statement is ever abandoned while its connection lives.
    ///
    /// # Errors
    /// The work's own fault, or [`FaultKind::Deadline`].
    pub async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let fault = Fault::new(FaultKind::Deadline);
                self.fail(fault.clone());
                Err(fault)
            }
        }
    }

    /// Runs one statement on the lead and returns its rows once it is durable, together with
    /// everything the session committed before it was sent.
    ///
    /// The statement's `$1` and `$2` are the session lock's and belong to
    /// [`super::lock::HELD_HERE`]; `types` and `parameters` are those from `$3` on. It returns at
    /// least one row, whose first column says whether the lock is held.
    ///
    /// # Errors
    /// A fault; unless the server merely refused the statement, the session is over.
    pub async fn durable(
        &self,
        text: &str,
        types: &[Type],
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let outcome = self.within(self.lead.write(text, types, parameters)).await;
        if let Err(fault) = &outcome
            && !matches!(fault.kind, FaultKind::Server(_))
        {
            self.fail(fault.clone());
        }
        outcome
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("lanes", &self.lanes.len())
            .finish_non_exhaustive()
    }
}

/// Bounds a step of opening.
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    tokio::time::timeout(limit, step)
        .await
        .unwrap_or_else(|_| Err(Fault::new(FaultKind::Deadline).into()))
}

async fn open_lead(connector: &Connector) -> Result<Lead, OpenError> {
    let connected = connector.open(Role::Lead).await?;
    check_server(&connected.client).await?;
    match SessionLock::take(&connected.client).await? {
        Some(lock) => Ok(Lead::new(connected, lock)),
        None => Err(Fault::new(FaultKind::LockNotSeen).into()),
    }
}

async fn check_server(client: &Client) -> Result<(), OpenError> {
    let row = client
        .query_typed_one(
            "select pg_catalog.current_setting('server_version_num')::integer,
                    pg_catalog.current_setting('server_encoding'),
                    pg_catalog.current_setting('transaction_read_only')::boolean",
            &[],
        )
        .await?;
    let (version, encoding, read_only): (i32, &str, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if version < OLDEST_SERVER {
        return Err(OpenError::Unsupported("14 is the oldest supported version"));
    }
    if encoding != "UTF8" {
        return Err(OpenError::Unsupported("must store the database in encoding UTF8"));
    }
    if read_only {
        return Err(Fault::new(FaultKind::Server(READ_ONLY)).into());
    }
    Ok(())
}

async fn open_lane(connector: &Connector, lock: SessionLock) -> Result<Lane, OpenError> {
    let connected = connector.open(Role::Lane).await?;
    if lock.seen_by(&connected.client).await? {
        Ok(Lane::new(connected.client))
    } else {
        tracing::error!(
            event = "lock_not_seen",
            "a connection does not see the session's lock: the address reaches several servers, or \
             a pooler in transaction mode; connect to PostgreSQL directly or through a pooler in \
             session mode"
        );
        Err(Fault::new(FaultKind::LockNotSeen).into())
    }
}
