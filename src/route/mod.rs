//! Routes: which events go where, compiled against the target tables' catalog.

pub mod fragment;
mod matching;
mod plan;
mod rule;
mod value;

pub(crate) use matching::Subject;
pub use plan::{Column, ColumnType, CompiledAction, CompiledRoute, Plan, Target};
pub(crate) use rule::{Choice, Rule, Rules};
