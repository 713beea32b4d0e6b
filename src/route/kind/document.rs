//! `[route.document]`: the payload becomes the state of the aggregate's ledger row, or part of it.
//! Needs no table beside the ledger.

use crate::config::{DocumentRoute, DocumentState};
use crate::decode::Draft;
use crate::route::compile::Compiling;
use crate::route::kind::Kind;
use pgsluice_core::event::{Json, LedgerEffect, Poison, RouteId, Write};
use pgsluice_core::verdict::Reason;

/// A route that writes the ledger row's state. A tombstone deletes it whatever the route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The payload replaces the state.
    Replace,
    /// The payload's top-level members replace those of the state.
    Merge,
    /// The state is deleted.
    Delete,
}

impl From<DocumentRoute> for Document {
    fn from(section: DocumentRoute) -> Self {
        match section {
            DocumentRoute { delete: true, .. } => Self::Delete,
            DocumentRoute { state: DocumentState::Merge, .. } => Self::Merge,
            DocumentRoute { state: DocumentState::Replace, .. } => Self::Replace,
        }
    }
}

impl Kind for Document {
    type Section = DocumentRoute;

    fn compile(section: &DocumentRoute, _: bool, _: &mut Compiling<'_>) -> Option<Self> {
        Some(Self::from(*section))
    }

    fn write(&self, route: RouteId, draft: &Draft<'_>) -> Result<Option<Write>, Poison> {
        let ledger = match self {
            _ if draft.tombstone => LedgerEffect::Clear,
            Self::Delete => LedgerEffect::Clear,
            Self::Replace => LedgerEffect::Set(payload(draft)?),
            Self::Merge => {
                let members = payload(draft)?;
                // Of anything but objects `jsonb ||` would make an array.
                if !draft.payload_is_object() {
                    return Err(poison(Reason::JsonShape));
                }
                LedgerEffect::Merge(members)
            }
        };
        Ok(Some(Write { route, ledger, rows: Vec::new() }))
    }

    fn holds_everything(section: &DocumentRoute) -> bool {
        Self::from(*section) != Self::Merge
    }

    fn word(&self) -> &'static str {
        "document"
    }

    fn operation(&self, write: &Write) -> &'static str {
        match write.ledger {
            LedgerEffect::Merge(_) => "merge document",
            LedgerEffect::Clear => "delete document",
            LedgerEffect::Set(_) | LedgerEffect::Keep => "replace document",
        }
    }
}

fn payload(draft: &Draft<'_>) -> Result<Json, Poison> {
    draft.payload().ok_or_else(|| poison(Reason::FieldMissing))
}

fn poison(reason: Reason) -> Poison {
    Poison::new(reason, Some("payload".into()))
}
