//! What the database says about the tables that routes write: read once for a session, so that
//! compiling routes is pure.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::config::{Config, TableName};
use crate::route::problem::Privilege;
use crate::sql::column_type::ColumnType;
use crate::sql::name::quoted;

/// The tables that routes name, as they are now. A table that is not there is missing here too.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    tables: HashMap<TableName, Table>,
}

/// One table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its schema, found by the search path where the route names none.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// An ordinary or partitioned table: neither a view nor a foreign table.
    pub is_table: bool,
    /// Rewrite rules stand on it.
    pub has_rules: bool,
    /// The role may use the schema.
    pub schema_usable: bool,
    /// The role may delete rows.
    pub may_delete: bool,
    /// The columns in their order.
    pub columns: Vec<TableColumn>,
    /// Column names of each unique index that `on conflict` can use, sorted.
    pub unique: Vec<Vec<String>>,
}

/// One column.
#[derive(Debug, Clone)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type, of a domain the one beneath; `None` when no value can be bound to it.
    pub ty: Option<ColumnType>,
    /// The type's name, for messages.
    pub type_name: String,
    /// The database computes it, and no statement may set it.
    pub generated: bool,
    /// The role may read it.
    pub may_select: bool,
    /// The role may insert it.
    pub may_insert: bool,
    /// The role may update it.
    pub may_update: bool,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl TableColumn {
    /// Whether the role has the privilege on the column. `usage` and `delete` are not a column's.
    pub(super) fn may(&self, privilege: Privilege) -> bool {
        match privilege {
            Privilege::Select => self.may_select,
            Privilege::Insert => self.may_insert,
            Privilege::Update => self.may_update,
            Privilege::Usage | Privilege::Delete => true,
        }
    }
}

/// Tables with their columns, one row a column. A name without schema is looked up as SQL does:
/// the first table of that name on the search path. Domains are followed to the type beneath;
/// their constraints are left to the database.
const TABLES: &str = "\
select wanted.n, s.nspname::text, t.relname::text, t.relkind in ('r', 'p'),
  exists (select from pg_catalog.pg_rewrite r where r.ev_class = t.oid),
  pg_catalog.has_schema_privilege(s.oid, 'usage'),
  pg_catalog.has_table_privilege(t.oid, 'delete'),
  c.attname::text, pg_catalog.format_type(c.atttypid, c.atttypmod),
  c.attgenerated <> '' or c.attidentity = 'a',
  pg_catalog.has_column_privilege(t.oid, c.attnum, 'select'),
  pg_catalog.has_column_privilege(t.oid, c.attnum, 'insert'),
  pg_catalog.has_column_privilege(t.oid, c.attnum, 'update'),
  b.typtype::text, bs.nspname::text, b.typname::text, base.typmod,
  pg_catalog.format('%I.%I', bs.nspname, b.typname),
  array(select e.enumlabel::text from pg_catalog.pg_enum e
        where e.enumtypid = b.oid order by e.enumsortorder)
from unnest($1::text[], $2::text[]) with ordinality as wanted(schema, name, n)
join pg_catalog.pg_class t
  on t.relname = wanted.name and t.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_catalog.pg_namespace s on s.oid = t.relnamespace
  and case when wanted.schema is null then pg_catalog.pg_table_is_visible(t.oid)
           else s.nspname = wanted.schema end
join pg_catalog.pg_attribute c on c.attrelid = t.oid and c.attnum > 0 and not c.attisdropped
cross join lateral (
  with recursive beneath(oid, typmod) as (
    select c.atttypid, c.atttypmod
    union all
    select d.typbasetype, d.typtypmod
    from beneath join pg_catalog.pg_type d on d.oid = beneath.oid where d.typtype = 'd'
  )
  select beneath.oid, beneath.typmod from beneath
  join pg_catalog.pg_type d on d.oid = beneath.oid where d.typtype <> 'd'
) base
join pg_catalog.pg_type b on b.oid = base.oid
join pg_catalog.pg_namespace bs on bs.oid = b.typnamespace
order by wanted.n, c.attnum";

/// Unique indexes that `on conflict (columns)` can infer: valid, immediate, on plain columns and
/// on all rows.
const UNIQUE_INDEXES: &str = "\
select wanted.n,
  array(select k.attname::text from pg_catalog.pg_attribute k
        where k.attrelid = t.oid and k.attnum = any (x.indkey[0:x.indnkeyatts - 1])
        order by k.attname::text collate \"C\")
from unnest($1::text[], $2::text[]) with ordinality as wanted(schema, name, n)
join pg_catalog.pg_class t on t.relname = wanted.name
join pg_catalog.pg_namespace s on s.oid = t.relnamespace
  and case when wanted.schema is null then pg_catalog.pg_table_is_visible(t.oid)
           else s.nspname = wanted.schema end
join pg_catalog.pg_index x on x.indrelid = t.oid
where x.indisunique and x.indisvalid and x.indimmediate
  and x.indpred is null and x.indexprs is null
order by wanted.n, x.indexrelid";

impl Catalog {
    /// Reads the tables that the configuration's routes name. Changes nothing and needs no
    /// privilege beyond connecting.
    ///
    /// # Errors
    /// The driver's error, to be turned into a fault by the caller.
    pub async fn load(client: &Client, config: &Config) -> Result<Self, tokio_postgres::Error> {
        let wanted = tables(config);
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let schemas: Vec<Option<&str>> = wanted.iter().map(|t| t.schema.as_deref()).collect();
        let names: Vec<&str> = wanted.iter().map(|t| t.name.as_str()).collect();
        let mut catalog = Self::default();
        for row in client.query(TABLES, &[&schemas, &names]).await? {
            let Some(name) = nth(&wanted, row.try_get(0)?) else { continue };
            if !catalog.tables.contains_key(name) {
                catalog.tables.insert(name.clone(), read_table(&row)?);
            }
            if let Some(table) = catalog.tables.get_mut(name) {
                table.columns.push(read_column(&row)?);
            }
        }
        for row in client.query(UNIQUE_INDEXES, &[&schemas, &names]).await? {
            let Some(name) = nth(&wanted, row.try_get(0)?) else { continue };
            if let Some(table) = catalog.tables.get_mut(name) {
                table.unique.push(row.try_get(1)?);
            }
        }
        Ok(catalog)
    }

    /// A catalog of these tables, under the names that routes use for them.
    pub fn from_tables(tables: impl IntoIterator<Item = (TableName, Table)>) -> Self {
        Self { tables: tables.into_iter().collect() }
    }

    /// The table of that name.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.get(name)
    }
}

/// The tables that routes name, each once.
fn tables(config: &Config) -> Vec<TableName> {
    let mut tables: Vec<TableName> = Vec::new();
    for table in config.routes.iter().filter_map(|route| route.action.table()) {
        if !tables.contains(table) {
            tables.push(table.clone());
        }
    }
    tables
}

/// Ordinality counts from 1.
fn nth(wanted: &[TableName], ordinality: i64) -> Option<&TableName> {
    wanted.get(usize::try_from(ordinality).ok()?.checked_sub(1)?)
}

fn read_table(row: &tokio_postgres::Row) -> Result<Table, tokio_postgres::Error> {
    Ok(Table {
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        is_table: row.try_get(3)?,
        has_rules: row.try_get(4)?,
        schema_usable: row.try_get(5)?,
        may_delete: row.try_get(6)?,
        columns: Vec::new(),
        unique: Vec::new(),
    })
}

fn read_column(row: &tokio_postgres::Row) -> Result<TableColumn, tokio_postgres::Error> {
    let base = BaseType {
        kind: row.try_get(13)?,
        schema: row.try_get(14)?,
        name: row.try_get(15)?,
        modifier: row.try_get(16)?,
        sql: row.try_get(17)?,
        labels: row.try_get(18)?,
    };
    Ok(TableColumn {
        name: row.try_get(7)?,
        type_name: row.try_get(8)?,
        generated: row.try_get(9)?,
        may_select: row.try_get(10)?,
        may_insert: row.try_get(11)?,
        may_update: row.try_get(12)?,
        ty: base.column_type(),
    })
}

/// A type as `pg_type` describes it.
struct BaseType {
    /// `typtype`: `b` for a base type, `e` for an enum.
    kind: String,
    schema: String,
    name: String,
    /// `atttypmod`: for character types the length plus four, -1 without one.
    modifier: i32,
    /// Quoted and qualified name.
    sql: String,
    labels: Vec<String>,
}

impl BaseType {
    fn column_type(self) -> Option<ColumnType> {
        if self.kind == "e" {
            return Some(ColumnType::Enum { sql: self.sql, labels: self.labels });
        }
        // An extension's type, in whatever schema the extension was put.
        if self.name == "citext" {
            return Some(ColumnType::Citext { schema: quoted(&self.schema) });
        }
        let max_chars = u32::try_from(self.modifier - 4).ok();
        if self.schema != "pg_catalog" {
            return None;
        }
        Some(match self.name.as_str() {
            "bool" => ColumnType::Bool,
            "int2" => ColumnType::Int2,
            "int4" => ColumnType::Int4,
            "int8" => ColumnType::Int8,
            "float4" => ColumnType::Float4,
            "float8" => ColumnType::Float8,
            "numeric" => ColumnType::Numeric,
            "text" => ColumnType::Text { max_chars: None },
            "varchar" => ColumnType::Text { max_chars },
            "bpchar" => ColumnType::Char { max_chars },
            "json" => ColumnType::Json,
            "jsonb" => ColumnType::Jsonb,
            "bytea" => ColumnType::Bytea,
            "timestamp" => ColumnType::Timestamp,
            "timestamptz" => ColumnType::Timestamptz,
            "date" => ColumnType::Date,
            "time" => ColumnType::Time,
            "uuid" => ColumnType::Uuid,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(kind: &str, schema: &str, name: &str, modifier: i32) -> Option<ColumnType> {
        let base = BaseType {
            kind: kind.into(),
            schema: schema.into(),
            name: name.into(),
            modifier,
            sql: format!("{schema}.{name}"),
            labels: vec!["a".into()],
        };
        base.column_type()
    }

    #[test]
    fn lengths_of_character_types_come_from_the_modifier() {
        let text = |max_chars| Some(ColumnType::Text { max_chars });
        assert_eq!(base("b", "pg_catalog", "varchar", 14), text(Some(10)));
        let char = Some(ColumnType::Char { max_chars: Some(1) });
        assert_eq!(base("b", "pg_catalog", "bpchar", 5), char);
        assert_eq!(base("b", "pg_catalog", "varchar", -1), text(None));
        let citext = Some(ColumnType::Citext { schema: "\"extensions\"".into() });
        assert_eq!(base("b", "extensions", "citext", -1), citext);
    }

    #[test]
    fn only_types_with_a_binding_are_known() {
        assert_eq!(
            base("e", "app", "mood", -1),
            Some(ColumnType::Enum { sql: "app.mood".into(), labels: vec!["a".into()] })
        );
        // Not the built-in one, although it has its name.
        assert_eq!(base("b", "app", "text", -1), None);
        for name in ["_int4", "timetz", "interval", "money", "inet", "name", "char", "xml"] {
            assert_eq!(base("b", "pg_catalog", name, -1), None, "{name}");
        }
    }
}
