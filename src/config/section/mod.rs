//! The sections of the configuration as `config/default.toml` has them, one file each: the structs
//! that hold what was read, and how they are read.

pub(super) mod decode;
pub(super) mod route;
