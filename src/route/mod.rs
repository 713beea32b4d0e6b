//! Routes: which events go where, compiled against the target tables' catalog.

mod catalog;
mod compile;
pub mod decoder;
pub mod fold;
pub mod fragment;
pub(crate) mod grants;
pub mod kind;
mod matching;
mod plan;
mod problem;
mod rule;
mod target;
mod value;

pub use catalog::{Catalog, Table, TableColumn};
pub use kind::CompiledAction;
pub(crate) use matching::Subject;
pub use plan::{CompiledRoute, Plan};
pub use problem::{Privilege, RouteCause, RouteProblem, RouteProblems};
pub(crate) use rule::{Choice, Rule, Rules};
pub use target::{Column, Target};
