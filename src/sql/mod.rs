//! SQL text and its parameters, kept together. Knows no table.

pub mod append;
pub mod binder;
pub mod column_type;
pub mod name;
pub mod parameter;
pub mod query;
pub mod statement;
