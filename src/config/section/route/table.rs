//! What the kinds of routes that write a user's table have in common.

use std::fmt;

use config::ValueKind;

use crate::config::field_source::FieldSources;
use crate::config::load::reader::Section;
use crate::config::section::postgres::is_identifier;

/// Columns, each with where its value comes from; sorted, so that a statement's text is stable.
pub type ColumnSources = Vec<(String, FieldSources)>;

/// A table, as the catalog spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// Schema; `None` leaves it to the role's search path.
    pub schema: Option<String>,
    /// Name.
    pub name: String,
}

impl TableName {
    /// Reads `table`, `schema.table`, or either part in double quotes. Case is kept: names are
    /// compared with the catalog as they stand.
    ///
    /// # Errors
    /// A sentence for the operator when the text is no table name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let explain = || {
            "expected \"table\" or \"schema.table\" as the catalog spells it; put a part that \
             contains a dot in double quotes"
                .to_owned()
        };
        let (first, rest) = identifier(text).ok_or_else(explain)?;
        let (schema, name) = match rest.strip_prefix('.') {
            None if rest.is_empty() => (None, first),
            None => return Err(explain()),
            Some(rest) => match identifier(rest) {
                Some((name, "")) => (Some(first), name),
                _ => return Err(explain()),
            },
        };
        let valid = schema.as_deref().is_none_or(is_identifier) && is_identifier(&name);
        if valid { Ok(Self { schema, name }) } else { Err(explain()) }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// Splits one identifier off the front: up to the next dot, or a quoted one.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let plain = !name.contains(|c: char| c == '"' || c.is_whitespace());
        return plain.then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        // Two quotes stand for one.
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

/// Reads `table`.
pub(super) fn read_table(section: &mut Section<'_>) -> TableName {
    let stand_in = TableName { schema: None, name: String::new() };
    let text = section.text("table");
    if text.is_empty() {
        return stand_in;
    }
    TableName::parse(&text).unwrap_or_else(|message| {
        section.problem("table", message);
        stand_in
    })
}

/// Reads `key`.
pub(super) fn read_key(section: &mut Section<'_>) -> ColumnSources {
    if section.raw("key").is_some_and(|value| !matches!(value.kind, ValueKind::Table(_))) {
        section
            .problem("key", "expected { column = \"source\" }, such as { id = \"aggregate_id\" }");
        return Vec::new();
    }
    let given = section.table("key");
    // A column whose source cannot be read is a problem of its own.
    let none = given.entries().is_empty();
    let key = read_columns(given);
    if none {
        section.problem("key", "needs at least one column, such as { id = \"aggregate_id\" }");
    }
    key
}

/// Reads `column = source` pairs.
pub(super) fn read_columns(section: Section<'_>) -> ColumnSources {
    let mut columns = Vec::new();
    for (name, value) in section.entries() {
        if !is_identifier(name) {
            section.problem(name, "is not a column name");
        }
        match FieldSources::read(value) {
            Ok(sources) => columns.push((name.to_owned(), sources)),
            Err(message) => section.problem(name, message),
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: Option<&str>, name: &str) -> Result<TableName, String> {
        Ok(TableName { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    #[test]
    fn a_table_name_keeps_its_case_and_may_be_quoted() {
        assert_eq!(TableName::parse("customer"), table(None, "customer"));
        assert_eq!(TableName::parse("public.Customer"), table(Some("public"), "Customer"));
        assert_eq!(TableName::parse(r#""a.b"."say ""x""""#), table(Some("a.b"), r#"say "x""#));
    }

    #[test]
    fn a_table_name_that_cannot_be_meant_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "a b", "\"a", "\"a\"b", "a; drop table b"] {
            assert!(TableName::parse(text).is_err(), "{text}");
        }
        assert!(TableName::parse(&"a".repeat(64)).is_err());
    }
}
