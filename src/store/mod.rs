//! Rows and their SQL; no decisions.

pub mod aggregate;
pub mod binder;
pub mod brake;
pub mod counts;
pub mod dead_letter;
pub mod fold;
pub mod grants;
pub mod group_move;
pub mod ledger;
pub mod name;
pub mod notification;
pub mod parameter;
pub mod progress;
pub mod publication;
pub mod query;
pub mod statement;
pub mod waiting;
