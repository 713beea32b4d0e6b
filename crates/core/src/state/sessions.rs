//! Which database session is in use, and which one is asked for next.

use crate::guard::guard;
use crate::record::SessionId;

/// The session, as the coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Current {
    /// Asked for.
    Opening(SessionId),
    /// In use.
    Open(SessionId),
}

/// The sessions of this process, one after the other.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) current: Current,
    /// Sessions in a row that could not be opened or moved no progress: a full disk lets sessions
    /// open as well.
    failed: u32,
}

impl Sessions {
    /// The first one is asked for.
    pub(super) fn new(first: SessionId) -> Self {
        Self { current: Current::Opening(first), failed: 0 }
    }

    /// The session in use.
    pub(super) fn open(&self) -> Option<SessionId> {
        match self.current {
            Current::Open(id) => Some(id),
            Current::Opening(_) => None,
        }
    }

    /// The session in use or asked for.
    pub(super) fn id(&self) -> SessionId {
        match self.current {
            Current::Opening(id) | Current::Open(id) => id,
        }
    }

    /// An answer of that session counts.
    pub(super) fn is_current(&self, session: SessionId) -> bool {
        !guard!(SessionTag, self.current != Current::Open(session))
    }

    /// A session is ready. `false`: nobody asked for it, or not any more.
    pub(super) fn opened(&mut self, session: SessionId) -> bool {
        let wanted = self.current == Current::Opening(session);
        if wanted {
            self.current = Current::Open(session);
        }
        wanted
    }

    /// The session is over. Returns the one to open next, and how many failed in a row.
    pub(super) fn lost(&mut self) -> (SessionId, u32) {
        let next = SessionId(self.id().0 + 1);
        self.current = Current::Opening(next);
        self.failed += 1;
        (next, self.failed)
    }

    /// Progress became durable: this session is of use.
    pub(super) fn advanced(&mut self) {
        self.failed = 0;
    }
}
