//! SQL text and its parameters, kept together. Knows no table.

pub mod binder;
pub mod name;
pub mod parameter;
pub mod query;
