//! `[route.delete]`: a row of a user's table, deleted, or marked by columns that are set where it
//! exists.

use crate::config::DeleteRoute;
use crate::decode::Draft;
use crate::route::Target;
use crate::route::compile::Compiling;
use crate::route::kind::{Access, Kind};
use crate::route::problem::Privilege;
use pgsluice_core::event::{LedgerEffect, Poison, RouteId, RowAction, Write};

/// A route that deletes a row of a user's table, or sets its columns where the target has some.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete(pub Target);

impl Delete {
    fn is_soft(&self) -> bool {
        !self.0.columns.is_empty()
    }
}

impl Kind for Delete {
    type Section = DeleteRoute;

    fn access(section: &DeleteRoute, _: bool) -> Option<Access<'_>> {
        let soft = !section.soft.is_empty();
        Some(Access {
            table: &section.table,
            key: &[],
            columns: if soft { &[Privilege::Update] } else { &[] },
            deletes: !soft,
        })
    }

    fn compile(
        section: &DeleteRoute,
        tombstones: bool,
        compiling: &mut Compiling<'_>,
    ) -> Option<Self> {
        let access = Self::access(section, tombstones)?;
        compiling.target(&access, &section.key, Some(&section.soft)).map(Self)
    }

    fn write(&self, route: RouteId, draft: &Draft<'_>) -> Result<Option<Write>, Poison> {
        let action = if self.is_soft() { RowAction::Mark } else { RowAction::Remove };
        let rows = vec![self.0.row(action, draft)?];
        Ok(Some(Write { route, ledger: LedgerEffect::Clear, rows }))
    }

    fn holds_everything(_: &DeleteRoute) -> bool {
        true
    }

    fn target(&self) -> Option<&Target> {
        Some(&self.0)
    }

    fn word(&self) -> &'static str {
        if self.is_soft() { "soft delete" } else { "delete" }
    }

    fn operation(&self, _: &Write) -> &'static str {
        if self.is_soft() { "update" } else { "delete" }
    }
}
