//! The sections of the configuration as `config/default.toml` has them, one file each: the structs
//! that hold what was read, and how they are read.

pub(super) mod admin;
pub(super) mod batch;
pub(super) mod dead_letter;
pub(super) mod decode;
pub(super) mod group;
pub(super) mod kafka;
pub(super) mod limits;
pub(super) mod log;
pub(super) mod notification;
pub(super) mod postgres;
pub(super) mod retry;
pub(super) mod route;
pub(super) mod route_name;
pub(super) mod shutdown;
