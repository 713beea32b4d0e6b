//! Routes: which events go where, compiled against the target tables' catalog.

mod plan;

pub use plan::{Column, ColumnType, CompiledAction, CompiledRoute, Plan, Target};
