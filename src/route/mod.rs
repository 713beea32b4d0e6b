//! Routes: which events go where, compiled against the target tables' catalog.

mod catalog;
mod compile;
pub mod decoder;
pub mod fold;
pub mod fragment;
mod matching;
mod plan;
mod problem;
mod rule;
mod value;

pub use catalog::{Catalog, Table, TableColumn};
pub(crate) use matching::Subject;
pub use plan::{Column, CompiledAction, CompiledRoute, Plan, Target};
pub use problem::{Privilege, RouteCause, RouteProblem, RouteProblems};
pub(crate) use rule::{Choice, Rule, Rules};
