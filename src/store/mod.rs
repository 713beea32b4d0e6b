//! pgsluice's own tables: rows and their SQL; no decisions.

pub mod backlog;
pub mod brake;
pub mod counts;
pub mod grants;
pub mod ledger;
pub mod letter;
pub mod migrate;
pub mod notification;
pub mod sink;
pub mod stream;
