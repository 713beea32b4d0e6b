//! The `pgsluice` binary: boots and hands over to the library.
fn main() {}
