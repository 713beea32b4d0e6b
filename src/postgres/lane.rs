//! A pipelined connection of a session, and its prepared statements.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use pgsluice_core::fault::{Fault, FaultKind};

use super::statements::Statements;

/// One connection that carries many statements in flight, each its own transaction.
#[derive(Debug)]
pub struct Lane {
    client: Client,
    statements: Statements,
    in_flight: AtomicUsize,
    /// When it answered last.
    answered: Mutex<Instant>,
}

/// Counts a piece of work against its lane for as long as it lives.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Lane);

impl Lane {
    pub(super) fn new(client: Client) -> Self {
        let answered = Mutex::new(Instant::now());
        Self { client, statements: Statements::default(), in_flight: AtomicUsize::new(0), answered }
    }

    /// The connection. Statements are sent in the order in which their futures are first polled.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A prepared statement of this connection; `types` follow from the text.
    ///
    /// # Errors
    /// What the server or the connection said; the next one who asks tries again.
    pub async fn prepared(&self, text: &str, types: &[Type]) -> Result<Statement, Fault> {
        self.statements.prepared(&self.client, text, types).await
    }

    /// Waits for an answer of this connection, at most `deadline` after the answer before it: a
    /// statement waits for all that were sent before it, and only silence means that nobody knows
    /// what happened.
    ///
    /// # Errors
    /// The work's own fault, or [`FaultKind::Deadline`].
    pub async fn within<T>(
        &self,
        deadline: Duration,
        answer: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let mut answer = pin!(answer);
        let mut by = Instant::now() + deadline;
        loop {
            if let Ok(answer) = timeout_at(by, &mut answer).await {
                *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                return answer;
            }
            let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
            if answered + deadline <= by {
                return Err(Fault::new(FaultKind::Deadline));
            }
            by = answered + deadline;
        }
    }

    /// Counts one more piece of work until the returned guard is dropped.
    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Pieces of work in flight: the least loaded lane takes the next.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
