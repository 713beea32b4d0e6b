//! `[route.upsert]`: a row of a user's table, inserted or updated; a tombstone deletes it by its key.

use crate::config::{ColumnSources, UpsertRoute};
use crate::decode::Draft;
use crate::route::Target;
use crate::route::compile::Compiling;
use crate::route::kind::{Access, Kind};
use crate::route::problem::Privilege;
use pgsluice_core::event::{LedgerEffect, Poison, RouteId, RowAction, Write};

/// A route that writes a row of a user's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Upsert(pub Target);

impl Kind for Upsert {
    type Section = UpsertRoute;

    fn access(section: &UpsertRoute, tombstones: bool) -> Option<Access<'_>> {
        Some(Access {
            table: &section.table,
            key: &[Privilege::Insert],
            columns: &[Privilege::Insert, Privilege::Update],
            deletes: tombstones,
        })
    }

    fn compile(
        section: &UpsertRoute,
        tombstones: bool,
        compiling: &mut Compiling<'_>,
    ) -> Option<Self> {
        let access = Self::access(section, tombstones)?;
        compiling.target(&access, &section.key, section.columns.as_ref()).map(Self)
    }

    fn write(&self, route: RouteId, draft: &Draft<'_>) -> Result<Option<Write>, Poison> {
        let (ledger, action) = if draft.tombstone {
            (LedgerEffect::Clear, RowAction::Remove)
        } else {
            (LedgerEffect::Keep, RowAction::Upsert)
        };
        Ok(Some(Write { route, ledger, rows: vec![self.0.row(action, draft)?] }))
    }

    /// An event may leave columns alone.
    fn holds_everything(_: &UpsertRoute) -> bool {
        false
    }

    /// With `"auto"` the columns are the table's, and any event may have few of them.
    fn expected(section: &UpsertRoute) -> Option<&ColumnSources> {
        section.columns.as_ref()
    }

    fn target(&self) -> Option<&Target> {
        Some(&self.0)
    }

    fn word(&self) -> &'static str {
        "upsert"
    }

    fn operation(&self, write: &Write) -> &'static str {
        if write.ledger.deletes() { "delete" } else { "upsert" }
    }
}
