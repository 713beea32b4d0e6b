//! One connection: how it is opened, what is set on it, and who hears of its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;

use crate::config::{Durability, PostgresConfig, Target};
use pgsluice_core::fault::{Fault, FaultKind};

use super::error::sqlstate;
use super::tls::{self, Refused, Wire};

/// How long a transaction may stand still between two of our statements before the server ends
/// it: bounds what a stopped process (SIGSTOP) can keep locked.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// A dead peer is noticed within about this time even where nothing is sent.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How often a setting is tried that the very timeout it lifts may cancel.
const SETTING_ATTEMPTS: u32 = 20;

/// What a connection is for; decides what is set on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Holds the session lock, writes progress.
    Lead,
    /// Applies groups, pipelined.
    Lane,
    /// Decides one group at a time.
    Slow,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Lane => "lane",
            Self::Slow => "slow",
        }
    }
}

/// Ties the connections of a session together: the first that ends is reported, and all end.
#[derive(Debug, Clone)]
pub(super) struct Lifeline {
    closed: CancellationToken,
    ended: mpsc::Sender<Fault>,
}

/// Resolves as soon as any connection of its session ended, for whatever reason.
#[derive(Debug)]
pub struct SessionEnd {
    closed: CancellationToken,
    ended: mpsc::Receiver<Fault>,
}

impl SessionEnd {
    /// Waits for the end of the session and says what ended it; [`FaultKind::Connection`] when we
    /// closed it ourselves.
    pub async fn wait(mut self) -> Fault {
        tokio::select! {
            biased;
            Some(fault) = self.ended.recv() => fault,
            () = self.closed.cancelled() => {
                // A fault that is reported is reported before the session is closed.
                self.ended.try_recv().unwrap_or_else(|_| Fault::new(FaultKind::Connection))
            }
        }
    }
}

impl Lifeline {
    pub(super) fn new() -> (Self, SessionEnd) {
        let closed = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(1);
        let end = SessionEnd { closed: closed.clone(), ended: receiver };
        (Self { closed, ended: sender }, end)
    }

    /// Ends the session because of a fault. Only the first fault is kept: later ones follow
    /// from it.
    pub(super) fn fail(&self, fault: Fault) {
        if self.ended.try_send(fault).is_err() {
            tracing::trace!(event = "connection_ended", "the session has already ended");
        }
        self.close();
    }

    /// Drops every socket of the session; everything in flight then fails.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) task: JoinHandle<()>,
    /// Notices of severity WARNING that arrived so far. One that belongs to a statement is
    /// counted before the statement's answer is handed out.
    pub(super) warnings: Arc<AtomicU64>,
}

/// Opens the connections of one session.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    target: Target,
    settings: Settings,
    lifeline: Lifeline,
}

/// What is set on connections, whatever role or database say.
#[derive(Debug, Clone)]
struct Settings {
    sink: Box<str>,
    durability: Durability,
    lane_lock_timeout: Duration,
    slow_lock_timeout: Duration,
    statement_timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        mut target: Target,
        config: &PostgresConfig,
        sink: &str,
        lifeline: Lifeline,
    ) -> Self {
        // With several hosts the one that takes writes is meant; with one, the session looks for
        // itself and can say what is wrong.
        let driver = &mut target.driver;
        if driver.get_hosts().len().max(driver.get_hostaddrs().len()) > 1 {
            driver.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        driver.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 6).keepalives_retries(3);
        let settings = Settings {
            sink: sink.into(),
            durability: config.durability,
            lane_lock_timeout: config.lane_lock_timeout,
            slow_lock_timeout: config.slow_lock_timeout,
            statement_timeout: config.statement_timeout,
        };
        Self { target, settings, lifeline }
    }

    /// Opens a connection and sets it up. From here on its end is the end of the session.
    pub(super) async fn open(&self, role: Role) -> Result<Connected, Refused> {
        let (client, connection) = tls::connect(&self.target).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(drive(connection, self.lifeline.clone(), Arc::clone(&warnings)));
        self.settings.apply(&client, role).await?;
        Ok(Connected { client, task, warnings })
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> Pin<
        Box<
            dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>>
                + Send
                + '_,
        >,
    > {
        Box::pin(async {
            let connected = self.open(Role::Slow).await.map_err(Refused::into_error)?;
            Ok((connected.client, connected.task))
        })
    }
}

impl Settings {
    /// Every setting that our statements or guarantees rest on: role and database may have others.
    async fn apply(&self, client: &Client, role: Role) -> Result<(), tokio_postgres::Error> {
        lift_statement_timeout(client).await?;
        let synchronous = role != Role::Lane || self.durability == Durability::Transaction;
        let lock_timeout = match role {
            // A locked row on a pipelined connection delays everything behind it.
            Role::Lane => self.lane_lock_timeout,
            Role::Lead | Role::Slow => self.slow_lock_timeout,
        };
        let settings: [(&str, String); 18] = [
            ("application_name", format!("pgsluice/{}/{}", self.sink, role.as_str())),
            ("synchronous_commit", if synchronous { "on" } else { "off" }.into()),
            ("lock_timeout", milliseconds(lock_timeout)),
            ("statement_timeout", milliseconds(self.statement_timeout)),
            ("idle_in_transaction_session_timeout", milliseconds(IDLE_IN_TRANSACTION)),
            // A session may rest for hours on a quiet topic.
            ("idle_session_timeout", "0".into()),
            // PostgreSQL 17 and newer.
            ("transaction_timeout", "0".into()),
            ("default_transaction_isolation", "read committed".into()),
            ("default_transaction_deferrable", "off".into()),
            // A wait for a synchronous standby that is cancelled succeeds with a WARNING: the
            // lead must hear it.
            ("client_min_messages", "warning".into()),
            ("standard_conforming_strings", "on".into()),
            ("bytea_output", "hex".into()),
            ("extra_float_digits", "1".into()),
            // `off` turns a policy on a user's table into an error.
            ("row_security", "on".into()),
            ("TimeZone", "UTC".into()),
            ("DateStyle", "ISO, YMD".into()),
            ("IntervalStyle", "postgres".into()),
            // Statements take well under a millisecond; compiling one takes hundreds.
            ("jit", "off".into()),
        ];
        let (names, values): (Vec<&str>, Vec<&str>) =
            settings.iter().map(|(name, value)| (*name, value.as_str())).unzip();
        client
            .query_typed(
                "select pg_catalog.set_config(s.name, s.value, false)
                 from unnest($1, $2) as s(name, value)
                 where pg_catalog.current_setting(s.name, true) is not null",
                &[(&names, Type::TEXT_ARRAY), (&values, Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(())
    }
}

/// Lifts a `statement_timeout` of role or database, which may be too short for any statement but
/// this one, and now and then for this one as well.
pub(crate) async fn lift_statement_timeout(client: &Client) -> Result<(), tokio_postgres::Error> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match client.batch_execute("set statement_timeout = 0").await {
            Err(error)
                if error.code() == Some(&SqlState::QUERY_CANCELED)
                    && attempts < SETTING_ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Moves a connection's bytes until it ends or the session is closed.
///
/// A session that we close drops the socket here, in the middle of whatever the server was
/// answering: everything in flight fails at once and its outcome is unknown.
async fn drive(mut connection: Wire, lifeline: Lifeline, warnings: Arc<AtomicU64>) {
    tokio::select! {
        biased;
        () = lifeline.closed.cancelled() => {}
        fault = until_end(&mut connection, &warnings) => lifeline.fail(fault),
    }
}

async fn until_end(connection: &mut Wire, warnings: &AtomicU64) -> Fault {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                // The text of a notice may hold row values: only its code is printed.
                tracing::debug!(event = "notice", sqlstate = %sqlstate(&notice), "notice from the server");
                warnings.fetch_add(1, Ordering::Relaxed);
            }
            Some(Ok(_)) => {}
            // The reason of a server that ends the connection (57P01, 25P03, ...) is seen only
            // here when nothing was in flight.
            Some(Err(error)) => return crate::postgres::fault_of(&error),
            None => return Fault::new(FaultKind::Connection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsluice_core::fault;

    #[tokio::test]
    async fn the_first_fault_is_the_one_reported() {
        let (lifeline, end) = Lifeline::new();
        let shutdown = Fault::new(FaultKind::Server(fault::SqlState(*b"57P01")));
        lifeline.fail(shutdown.clone());
        lifeline.fail(Fault::new(FaultKind::Connection));
        assert_eq!(end.wait().await, shutdown);
        assert!(lifeline.is_closed());
    }

    #[tokio::test]
    async fn a_session_we_close_ends_as_a_closed_connection() {
        let (lifeline, end) = Lifeline::new();
        lifeline.close();
        assert_eq!(end.wait().await, Fault::new(FaultKind::Connection));
    }
}
