//! A statement whose text is kept, with the parameters that it declares.

use tokio_postgres::types::Type;

use crate::sql::binder::{Binder, Declared};

/// A statement ready to be prepared.
#[derive(Debug, PartialEq)]
pub struct Statement {
    /// The text.
    pub text: String,
    /// Types of its parameters.
    pub types: Vec<Type>,
    /// What is bound to them.
    pub declared: Vec<Declared>,
}

impl Statement {
    /// The statement of a text and of the parameters that were bound while it was written.
    pub(crate) fn new(text: String, b: Binder) -> Self {
        let declared = b.into_declared();
        Self { text, types: declared.iter().map(|d| d.ty.clone()).collect(), declared }
    }
}
