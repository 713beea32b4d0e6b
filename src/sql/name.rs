//! Names in SQL text. Every identifier that is not a literal of this program goes through
//! [`quoted`]; values never become text at all.

/// An identifier in double quotes, so that case, blanks and keywords are taken as they are.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// The schema that holds pgsluice's own tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(String);

impl Schema {
    /// The schema with that name, as in the catalog (unquoted).
    pub fn new(name: &str) -> Self {
        Self(quoted(name))
    }

    /// A table of ours, qualified. `table` is a literal of this program, e.g. `aggregate_t`.
    pub fn table(&self, table: &'static str) -> String {
        format!("{}.{table}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_inside_an_identifier_cannot_end_it() {
        assert_eq!(quoted(r#"a"; drop table b; --"#), r#""a""; drop table b; --""#);
        assert_eq!(Schema::new("My Schema").table("aggregate_t"), r#""My Schema".aggregate_t"#);
    }
}
