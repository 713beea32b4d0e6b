//! What runs beside the flow of records. Nothing of it decides.

pub(in crate::run) mod backlog;
pub(in crate::run) mod lag;
