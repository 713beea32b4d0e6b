//! Text and parameters of a statement that is put together where it is used: everything but the
//! applying statement, whose texts are kept.

use tokio_postgres::types::{ToSql, Type};

use crate::sql::binder::Bind;
use crate::sql::parameter::{Cell, Parameter};

/// A statement with its parameters.
#[derive(Debug, Default)]
pub struct Query<'a> {
    /// The text. Depends on which parts were asked for, never on a value.
    pub text: String,
    /// The declared types of the parameters.
    pub types: Vec<Type>,
    parameters: Vec<Parameter<'a>>,
}

/// Rows of a table, column by column.
pub type Columns<'a> = Vec<(&'static str, Bind, Vec<Cell<'a>>)>;

impl<'a> Query<'a> {
    /// Binds one value and gives back its `$n`.
    pub fn one(&mut self, bind: Bind, cell: Cell<'a>) -> String {
        self.types.push(bind.scalar());
        self.parameters.push(Parameter::One(cell));
        format!("${}", self.parameters.len())
    }

    /// Binds an array and gives back its `$n`.
    pub fn many(&mut self, bind: Bind, cells: Vec<Cell<'a>>) -> String {
        self.types.push(bind.array());
        self.parameters.push(Parameter::Many(cells));
        format!("${}", self.parameters.len())
    }

    /// Binds rows; gives back their column names and the `unnest(…)` that yields them.
    pub fn rows(&mut self, columns: Columns<'a>) -> (String, String) {
        let mut names = Vec::with_capacity(columns.len());
        let mut arrays = Vec::with_capacity(columns.len());
        for (name, bind, cells) in columns {
            names.push(name);
            arrays.push(self.many(bind, cells));
        }
        (names.join(", "), format!("unnest({})", arrays.join(", ")))
    }

    /// The parameters, as the driver takes them.
    pub fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect()
    }
}

/// Collects one column of rows.
pub fn column<'a, R>(rows: &'a [R], cell: impl Fn(&'a R) -> Cell<'a>) -> Vec<Cell<'a>> {
    rows.iter().map(cell).collect()
}
