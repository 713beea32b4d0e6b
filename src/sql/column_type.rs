//! The types of columns that values can be bound to.

/// The column types values can be bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, with any precision; bound as checked digits.
    Numeric,
    /// `text`, `varchar`; at most so many characters.
    Text {
        /// Declared length, `None` without one.
        max_chars: Option<u32>,
    },
    /// `char(n)`, whose trailing blanks do not count when it is compared.
    Char {
        /// Declared length, `None` without one.
        max_chars: Option<u32>,
    },
    /// `citext`, which is compared without regard to case.
    Citext {
        /// Quoted schema of its extension, where its operators are, too.
        schema: String,
    },
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytea,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    Timestamptz,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `uuid`
    Uuid,
    /// An enum type.
    Enum {
        /// Quoted, schema-qualified type name.
        sql: String,
        /// Its labels.
        labels: Vec<String>,
    },
}

impl ColumnType {
    /// The operator by which two values of the type are the same to its unique indexes. Found by
    /// the search path, `citext`'s own would give way to that of `text`.
    pub fn same(&self) -> String {
        match self {
            Self::Citext { schema } => format!("operator({schema}.=)"),
            _ => "=".to_owned(),
        }
    }
}
