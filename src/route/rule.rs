//! Routes as the decoder asks them: in order, the first whose conditions are met.

use crate::config::{Config, DEFAULT_ROUTE, RouteAction, RouteConfig};
use crate::decode::Draft;
use crate::route::matching::{Conditions, Matching, Subject};
use crate::route::{CompiledAction, CompiledRoute, Plan};
use pgsluice_core::event::{Poison, RouteId, Write};

/// All routes, in order.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

/// One route.
#[derive(Debug)]
pub(crate) struct Rule {
    conditions: Conditions,
    route: RouteId,
    action: CompiledAction,
}

/// What the routes say to an event.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    /// The first route that matches.
    Rule(&'a Rule),
    /// No route matches.
    Unmatched,
    /// A route before the first match asks for a field that could not be told.
    CannotTell,
}

impl Rules {
    /// The routes of a plan, with the conditions and sources of the configuration it was compiled
    /// from. Without any route there is one for everything: the plan's last.
    pub(crate) fn new(plan: &Plan, config: &Config) -> Self {
        if config.routes.is_empty() {
            let everything = RouteConfig {
                name: DEFAULT_ROUTE.to_owned(),
                named_by_order: false,
                topic: Vec::new(),
                aggregate_type: Vec::new(),
                event_type: Vec::new(),
                action: RouteAction::Skip,
            };
            let default = plan.routes.last().map(|compiled| Rule::new(&everything, compiled));
            return Self(default.into_iter().collect());
        }
        let routes = config.routes.iter().zip(&plan.routes);
        Self(routes.map(|(route, compiled)| Rule::new(route, compiled)).collect())
    }

    /// Finds the route of an event: the first match wins.
    pub(crate) fn choose(&self, subject: &Subject<'_>) -> Choice<'_> {
        for rule in &self.0 {
            match rule.conditions.matches(subject) {
                Matching::Yes => return Choice::Rule(rule),
                Matching::No => {}
                Matching::CannotTell => return Choice::CannotTell,
            }
        }
        Choice::Unmatched
    }
}

impl Rule {
    fn new(route: &RouteConfig, compiled: &CompiledRoute) -> Self {
        let conditions = Conditions::new(route);
        Self { conditions, route: compiled.id, action: compiled.action.clone() }
    }

    /// The route's place in the plan.
    pub(crate) fn id(&self) -> RouteId {
        self.route
    }

    /// Whether the route does nothing.
    pub(crate) fn skips(&self) -> bool {
        matches!(self.action, CompiledAction::Skip(_))
    }

    /// Whether no event may take the route: its table is not what it expects.
    pub(crate) fn unusable(&self) -> bool {
        matches!(self.action, CompiledAction::Unusable)
    }

    /// What the event writes through this route; `None` for a route that does nothing.
    ///
    /// # Errors
    /// The column or field at fault when a value is missing or does not fit.
    pub(crate) fn write(&self, draft: &Draft<'_>) -> Result<Option<Write>, Poison> {
        self.action.write(self.route, draft).map_err(|poison| self.meant(poison))
    }

    /// Poison of an event that was meant for this route.
    pub(crate) fn meant(&self, poison: Poison) -> Poison {
        Poison { route: Some(self.route), ..poison }
    }
}
