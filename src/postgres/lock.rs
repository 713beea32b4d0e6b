//! The session lock: proof that all connections of a session are on one running server.
//!
//! The lead takes an advisory lock on a random key and never gives it back. Advisory locks live
//! in the memory of one running server, so a connection that sees the lock held by the lead's
//! backend is on that server, and has been since the lead connected. After a crash, a failover, a
//! restore, or through a pooler that changes backends, nobody sees it any more, and the barrier
//! refuses to call anything durable that the lost server had acknowledged.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// The lock of one session: its key, and the backend that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLock {
    key: i64,
    holder: i32,
}

/// True where this very backend holds the lock of the parameters `$1` and `$2`
/// ([`SessionLock::parameters`]).
///
/// The lead's statements carry it in their WHERE. It asks for the current backend instead of the
/// remembered one: behind a transaction pooler the lead's next statement may run on another.
pub const HELD_HERE: &str = "exists (
    select from pg_catalog.pg_locks
    where locktype = 'advisory' and granted and pid = pg_catalog.pg_backend_pid()
      and classid = $1 and objid = $2 and objsubid = 1)";

const HELD_BY: &str = "select exists (
    select from pg_catalog.pg_locks
    where locktype = 'advisory' and granted and pid = $3
      and classid = $1 and objid = $2 and objsubid = 1)";

const TAKE: &str = "select pg_catalog.pg_try_advisory_lock($1), pg_catalog.pg_backend_pid()";

impl SessionLock {
    /// Takes a lock on a random key; `None` when the server gave none, which a random 64 bit key
    /// that nobody uses makes next to impossible.
    pub(super) async fn take(client: &Client) -> Result<Option<Self>, tokio_postgres::Error> {
        let key: i64 = rand::random();
        let row = client.query_typed_one(TAKE, &[(&key, Type::INT8)]).await?;
        let taken: bool = row.try_get(0)?;
        let holder = row.try_get(1)?;
        Ok(taken.then_some(Self { key, holder }))
    }

    /// Whether this connection sees the lock, held by the lead.
    pub(super) async fn seen_by(self, client: &Client) -> Result<bool, tokio_postgres::Error> {
        let [class, object] = self.parameters();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&class, Type::OID), (&object, Type::OID), (&self.holder, Type::INT4)];
        client.query_typed_one(HELD_BY, &parameters).await?.try_get(0)
    }

    /// `$1` and `$2` of [`HELD_HERE`], both of type `oid`: the halves of the key as `pg_locks`
    /// shows them.
    pub fn parameters(self) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = self.key.to_be_bytes();
        [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
    }

    /// Process id of the lead's backend.
    pub fn holder(self) -> i32 {
        self.holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_shown_in_two_halves_without_its_sign() {
        let lock = SessionLock { key: -2, holder: 1 };
        assert_eq!(lock.parameters(), [0xffff_ffff, 0xffff_fffe]);
        let lock = SessionLock { key: (7 << 32) | 9, holder: 1 };
        assert_eq!(lock.parameters(), [7, 9]);
    }
}
