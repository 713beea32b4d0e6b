//! A pipelined connection of a session, and its prepared statements.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use pgsluice_core::fault::{Fault, FaultKind};

/// Prepared statements that one connection keeps. Routes need a handful each; an upsert of
/// partial columns has one for every combination it meets.
pub(super) const STATEMENTS_PER_CONNECTION: usize = 256;

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

    /// A prepared statement of this connection. Asked for the first time it is prepared, once,
    /// however many ask at the same time; the least recently used makes room when the bound is
    /// reached. `types` follow from the text: the same text always comes with the same types.
    ///
    /// # Errors
    /// What the server or the connection said; the next one who asks tries again.
    pub async fn prepared(&self, text: &str, types: &[Type]) -> Result<Statement, Fault> {
        let cell = self.statements.cell(text);
        cell.get_or_try_init(|| self.client.prepare_typed(text, types))
            .await
            .cloned()
            .map_err(|error| crate::postgres::fault_of(&error))
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

/// A statement of a slow connection, from its cache. The cache is emptied when it reaches the
/// same bound as a lane's.
///
/// # Errors
/// What the server or the connection said.
pub async fn prepared_on(
    connection: &deadpool_postgres::Object,
    text: &str,
    types: &[Type],
) -> Result<Statement, Fault> {
    if connection.statement_cache.size() >= STATEMENTS_PER_CONNECTION {
        connection.statement_cache.clear();
    }
    connection
        .prepare_typed_cached(text, types)
        .await
        .map_err(|error| crate::postgres::fault_of(&error))
}

/// A bounded cache from text to statement; a cell is filled by whoever asks first.
#[derive(Debug, Default)]
struct Statements {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Box<str>, Entry>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    cell: Arc<OnceCell<Statement>>,
    last_use: u64,
}

impl Statements {
    fn cell(&self, text: &str) -> Arc<OnceCell<Statement>> {
        // Nothing below can panic half way, so a poisoned lock holds a whole map.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let last_use = kept.uses;
        if let Some(entry) = kept.entries.get_mut(text) {
            entry.last_use = last_use;
            return Arc::clone(&entry.cell);
        }
        if kept.entries.len() >= STATEMENTS_PER_CONNECTION {
            kept.forget_oldest();
        }
        let cell = Arc::new(OnceCell::new());
        kept.entries.insert(text.into(), Entry { cell: Arc::clone(&cell), last_use });
        cell
    }
}

impl Kept {
    /// Whoever still uses the statement keeps it; it is closed on the server after the last one.
    fn forget_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
        if let Some(text) = oldest.map(|(text, _)| text.clone()) {
            self.entries.remove(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_shares_one_cell_so_that_it_is_prepared_once() {
        let statements = Statements::default();
        assert!(Arc::ptr_eq(&statements.cell("a"), &statements.cell("a")));
        assert!(!Arc::ptr_eq(&statements.cell("a"), &statements.cell("b")));
    }

    /// Proves INV-11.
    #[test]
    fn the_cache_is_bounded_and_forgets_what_was_not_used_longest() {
        let statements = Statements::default();
        let first = statements.cell("0");
        let second = statements.cell("1");
        for text in 2..STATEMENTS_PER_CONNECTION {
            statements.cell(&text.to_string());
        }
        assert!(Arc::ptr_eq(&first, &statements.cell("0")), "used again, so it stays");
        statements.cell("one too many");
        assert!(Arc::ptr_eq(&first, &statements.cell("0")));
        assert!(!Arc::ptr_eq(&second, &statements.cell("1")), "was the oldest");
        assert_eq!(statements.kept.lock().unwrap().entries.len(), STATEMENTS_PER_CONNECTION);
    }
}
