//! Connections for looking: set up as a session's are, but nothing is created and no lane is kept.

use tokio_postgres::Client;

use crate::config::Config;
use pgsluice_core::fault::{Fault, FaultKind};

use super::connect::{Connector, Lifeline, Role};
use super::lock::SessionLock;
use super::session::{OpenError, within};
use super::slow::{SlowConnection, SlowPool};

/// Two connections and the proof whether both are on one server.
pub struct Probe {
    /// The one to look through, and a second one: when either ends, both do.
    clients: [Client; 2],
    same_server: bool,
    slow: SlowPool,
    lifeline: Lifeline,
}

impl Probe {
    /// Connects. Needs the privilege to connect and nothing else.
    ///
    /// # Errors
    /// [`OpenError::Config`] or [`OpenError::Database`]; nothing stays open.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        let (lifeline, _) = Lifeline::new();
        let opened = Self::connect(config, lifeline.clone()).await;
        if opened.is_err() {
            lifeline.close();
        }
        opened
    }

    async fn connect(config: &Config, lifeline: Lifeline) -> Result<Self, OpenError> {
        let postgres = &config.postgres;
        let target = postgres.connect_config().map_err(OpenError::Config)?;
        let driver = target.driver.clone();
        let connector = &Connector::new(target, postgres, &config.kafka.group, lifeline.clone());
        let limit = postgres.connect_timeout;
        let open = |role| within(limit, async move { Ok(connector.open(role).await?) });
        let first = open(Role::Lead).await?;
        let second = open(Role::Lane).await?;
        let lock = SessionLock::take(&first.client).await?;
        let lock = lock.ok_or_else(|| Fault::new(FaultKind::LockNotSeen))?;
        let same_server = lock.seen_by(&second.client).await?;
        let slow = SlowPool::new(driver, connector.clone(), lock, postgres)?;
        Ok(Self { clients: [first.client, second.client], same_server, slow, lifeline })
    }

    /// The connection to look through.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// A connection as the slow lane has them.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn slow(&self) -> Result<SlowConnection, Fault> {
        self.slow.get().await
    }

    /// Whether a second connection saw what only the first one's running server can know. If not,
    /// there are several servers behind the address, or a pooler that changes connections.
    pub fn same_server(&self) -> bool {
        self.same_server
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.lifeline.close();
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("same_server", &self.same_server).finish_non_exhaustive()
    }
}
