//! The prepared statements of one connection: bounded, each prepared once.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use tokio::sync::OnceCell;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use pgsluice_core::fault::Fault;

/// Prepared statements that one connection keeps. Routes need a handful each; an upsert of
/// partial columns has one for every combination it meets.
const STATEMENTS_PER_CONNECTION: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(most) => most,
    None => NonZeroUsize::MIN,
};

/// From text to statement; a cell is filled by whoever asks first.
#[derive(Debug)]
pub(super) struct Statements(Mutex<LruCache<Box<str>, Arc<OnceCell<Statement>>>>);

impl Default for Statements {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(STATEMENTS_PER_CONNECTION)))
    }
}

impl Statements {
    /// A prepared statement of the connection that all of these belong to. Asked for the first time
    /// it is prepared, once, however many ask at the same time; the least recently used makes room
    /// when the bound is reached. `types` follow from the text: the same text always comes with the
    /// same types.
    ///
    /// # Errors
    /// What the server or the connection said; the next one who asks tries again.
    pub(super) async fn prepared(
        &self,
        client: &Client,
        text: &str,
        types: &[Type],
    ) -> Result<Statement, Fault> {
        let cell = self.cell(text);
        cell.get_or_try_init(|| client.prepare_typed(text, types))
            .await
            .cloned()
            .map_err(|error| crate::postgres::fault_of(&error))
    }

    /// Whoever still uses a statement that made room keeps it; it is closed on the server after the
    /// last one.
    fn cell(&self, text: &str) -> Arc<OnceCell<Statement>> {
        // Nothing below can panic half way, so a poisoned lock holds a whole map.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = kept.get(text) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(OnceCell::new());
        kept.put(text.into(), Arc::clone(&cell));
        cell
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
        for text in 2..STATEMENTS_PER_CONNECTION.get() {
            statements.cell(&text.to_string());
        }
        assert!(Arc::ptr_eq(&first, &statements.cell("0")), "used again, so it stays");
        statements.cell("one too many");
        assert!(Arc::ptr_eq(&first, &statements.cell("0")));
        assert!(!Arc::ptr_eq(&second, &statements.cell("1")), "was the oldest");
        assert_eq!(statements.0.lock().unwrap().len(), STATEMENTS_PER_CONNECTION.get());
    }
}
