//! Routes after compilation: what the decoder binds values by and the store builds statements
//! from. A plan is immutable; a session compiles a new one, so a changed table is noticed.

use std::sync::Arc;

use crate::route::kind::CompiledAction;
use pgsluice_core::event::RouteId;

/// All routes, in the order of the configuration; the last one is the default document route.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The compiled routes; `routes[i].id == RouteId(i)`.
    pub routes: Vec<CompiledRoute>,
}

impl Plan {
    /// The route with that id. Ids are handed out by the plan itself, so it is always there.
    pub fn route(&self, id: RouteId) -> &CompiledRoute {
        &self.routes[usize::from(id.0)]
    }

    /// Some route does not fit its table.
    pub fn has_unusable(&self) -> bool {
        self.routes.iter().any(|route| route.action == CompiledAction::Unusable)
    }

    /// Whether routes are to be used otherwise than in this plan. One that broke since is not to be
    /// used at all: what it is meant for halts, and the rest goes on.
    pub fn changed_to(&self, now: &Self) -> bool {
        let differs = |(before, now): (&CompiledRoute, &CompiledRoute)| {
            now.action != CompiledAction::Unusable && now.action != before.action
        };
        self.routes.iter().zip(&now.routes).any(differs)
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledRoute {
    /// Its position, for as long as this process runs.
    pub id: RouteId,
    /// Its name, for everything that outlives the process or is read by people.
    pub name: Arc<str>,
    /// What it does.
    pub action: CompiledAction,
}
