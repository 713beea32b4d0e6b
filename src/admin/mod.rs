//! The admin port: `/live`, `/ready`, `/metrics`, `/status`.
