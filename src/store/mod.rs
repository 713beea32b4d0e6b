//! Rows and their SQL; no decisions.
