//! A plain connection outside of any session, for work that runs before there is one.

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::config::PostgresConfig;

use super::connect::lift_statement_timeout;
use super::session::{OpenError, within};
use super::tls;

/// One connection with the settings of role and database, without a `statement_timeout`. Dropping
/// it closes the connection, whatever runs on it.
#[derive(Debug)]
pub(crate) struct Administration {
    client: Client,
    task: JoinHandle<()>,
}

impl Administration {
    /// Connects within `postgres.connect_timeout`. `purpose` is a word for `application_name`.
    ///
    /// # Errors
    /// [`OpenError::Config`] or [`OpenError::Database`].
    pub(crate) async fn open(config: &PostgresConfig, purpose: &str) -> Result<Self, OpenError> {
        let mut target = config.connect_config().map_err(OpenError::Config)?;
        target.driver.application_name(format!("pgsluice/{purpose}"));
        let (client, connection) =
            within(config.connect_timeout, async { Ok(tls::connect(&target).await?) }).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                let fault = super::fault_of(&error);
                tracing::debug!(event = "connection_ended", error = %fault, "a connection outside of a session ended");
            }
        });
        let connected = Self { client, task };
        lift_statement_timeout(&connected.client).await?;
        Ok(connected)
    }

    /// The connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The connection, for transactions.
    pub(crate) fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Administration {
    fn drop(&mut self) {
        self.task.abort();
    }
}
