//! `dead_letter_t`: what could not be applied, and what waits behind it, byte for byte (INV-6).

mod insert;
pub mod publication;

pub use insert::{Letter, insert, known, offset};
