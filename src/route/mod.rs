//! Routes: which events go where, compiled against the target tables' catalog.

pub mod fragment;
mod plan;

pub use plan::{Column, ColumnType, CompiledAction, CompiledRoute, Plan, Target};
