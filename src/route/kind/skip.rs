//! `skip = true`: events that end as SKIPPED. They move no ledger row and touch no table.

use crate::decode::Draft;
use crate::route::compile::Compiling;
use crate::route::kind::Kind;
use pgsluice_core::event::{Poison, RouteId, Write};

/// A route that does nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Skip;

impl Kind for Skip {
    type Section = ();

    fn compile((): &(), _: bool, _: &mut Compiling<'_>) -> Option<Self> {
        Some(Self)
    }

    fn write(&self, _: RouteId, _: &Draft<'_>) -> Result<Option<Write>, Poison> {
        Ok(None)
    }

    fn holds_everything((): &()) -> bool {
        true
    }

    fn word(&self) -> &'static str {
        "skip"
    }

    fn operation(&self, _: &Write) -> &'static str {
        "nothing"
    }
}
