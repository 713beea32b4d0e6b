//! The kinds of routes, one file each: the tables it names and the privileges it needs there, how it
//! is compiled against the catalog, what an event of it writes, and how `check` describes it.
//!
//! A new kind is a file here with its `Kind`, a section in `config/section/route/`, and their
//! registration: a variant of [`CompiledAction`] and of [`RouteAction`], which the compiler follows.
//!
//! A tombstone under `tombstone = "delete"` takes the first route whose conditions it meets, and
//! ends the aggregate there: a document or upsert route deletes the document or the row by its
//! key, a delete route does what it always does. It has no value, so a condition on `event_type`
//! never matches it (unless the type comes from a header or a constant), and key columns must
//! come from the record's key, its headers or the aggregate id.

mod delete;
mod document;
mod skip;
mod upsert;

pub use delete::Delete;
pub use document::Document;
pub use skip::Skip;
pub use upsert::Upsert;

use crate::config::{ColumnSources, RouteAction, RouteConfig, TableName, Tombstone};
use crate::decode::Draft;
use crate::route::Target;
use crate::route::compile::Compiling;
use crate::route::problem::Privilege;
use pgsluice_core::event::{Poison, RouteId, Write};

/// What each kind of route says of itself, by its section of the configuration or once compiled.
trait Kind: Sized {
    /// Its section of the configuration.
    type Section;

    /// What its statements do in a user's table; `None` for one that names no table. `tombstones`:
    /// one may take the route.
    fn access(_: &Self::Section, _tombstones: bool) -> Option<Access<'_>> {
        None
    }

    /// Checks the section against the catalog. `None` when there are problems, which are reported.
    fn compile(
        section: &Self::Section,
        tombstones: bool,
        compiling: &mut Compiling<'_>,
    ) -> Option<Self>;

    /// What an event writes; `None` for a kind that writes nothing.
    ///
    /// # Errors
    /// The column or field at fault when a value is missing or does not fit.
    fn write(&self, route: RouteId, draft: &Draft<'_>) -> Result<Option<Write>, Poison>;

    /// Whether an event holds everything that it writes, so that nothing is missing where older
    /// events were compacted away.
    fn holds_everything(section: &Self::Section) -> bool;

    /// Columns that most events should have a value for; `None` where no such thing can be said.
    fn expected(_: &Self::Section) -> Option<&ColumnSources> {
        None
    }

    /// The user's table that it writes.
    fn target(&self) -> Option<&Target> {
        None
    }

    /// What it is called in a report.
    fn word(&self) -> &'static str;

    /// What a write of it is called in a report.
    fn operation(&self, write: &Write) -> &'static str;
}

/// What a route's statements do in a user's table. All of them find rows by the key, so that `usage`
/// of the schema and `select` go without saying.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    /// The table.
    pub(crate) table: &'a TableName,
    /// What is done to key columns.
    pub(crate) key: &'static [Privilege],
    /// What is done to the other columns.
    pub(crate) columns: &'static [Privilege],
    /// Rows are deleted.
    pub(crate) deletes: bool,
}

impl Access<'_> {
    /// The privileges on the table, in the order of a grant.
    pub(crate) fn privileges(&self) -> impl Iterator<Item = Privilege> {
        let needs = |privilege: &Privilege| match privilege {
            Privilege::Usage => false,
            Privilege::Select => true,
            Privilege::Insert | Privilege::Update => {
                self.key.contains(privilege) || self.columns.contains(privilege)
            }
            Privilege::Delete => self.deletes,
        };
        Privilege::ALL.into_iter().filter(needs)
    }
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum CompiledAction {
    /// It does not fit its table. No event may take it: topics that it may be meant for are not
    /// read until it fits.
    Unusable,
    /// Nothing.
    Skip(Skip),
    /// Writes the ledger row's state.
    Document(Document),
    /// Writes a row of a user's table.
    Upsert(Upsert),
    /// Deletes or marks a row of a user's table.
    Delete(Delete),
}

impl CompiledAction {
    /// Checks a route against the catalog.
    pub(super) fn compile(
        route: &RouteConfig,
        tombstone: Tombstone,
        compiling: &mut Compiling<'_>,
    ) -> Self {
        let reached = meets_tombstones(route, tombstone);
        let action = match &route.action {
            RouteAction::Skip => Skip::compile(&(), reached, compiling).map(Self::Skip),
            RouteAction::Document(s) => {
                Document::compile(s, reached, compiling).map(Self::Document)
            }
            RouteAction::Upsert(s) => Upsert::compile(s, reached, compiling).map(Self::Upsert),
            RouteAction::Delete(s) => Delete::compile(s, reached, compiling).map(Self::Delete),
        };
        action.unwrap_or(Self::Unusable)
    }

    /// What an event writes; `None` for a route that writes nothing.
    ///
    /// # Errors
    /// The column or field at fault when a value is missing or does not fit.
    pub(super) fn write(&self, route: RouteId, draft: &Draft<'_>) -> Result<Option<Write>, Poison> {
        match self {
            Self::Unusable => Ok(None),
            Self::Skip(kind) => kind.write(route, draft),
            Self::Document(kind) => kind.write(route, draft),
            Self::Upsert(kind) => kind.write(route, draft),
            Self::Delete(kind) => kind.write(route, draft),
        }
    }

    /// The user's table that it writes.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Unusable => None,
            Self::Skip(kind) => kind.target(),
            Self::Document(kind) => kind.target(),
            Self::Upsert(kind) => kind.target(),
            Self::Delete(kind) => kind.target(),
        }
    }

    /// What it is called in a report.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unusable => "unusable",
            Self::Skip(kind) => kind.word(),
            Self::Document(kind) => kind.word(),
            Self::Upsert(kind) => kind.word(),
            Self::Delete(kind) => kind.word(),
        }
    }

    /// What a write of it is called in a report.
    pub(crate) fn operation(&self, write: &Write) -> &'static str {
        match self {
            Self::Unusable => "nothing",
            Self::Skip(kind) => kind.operation(write),
            Self::Document(kind) => kind.operation(write),
            Self::Upsert(kind) => kind.operation(write),
            Self::Delete(kind) => kind.operation(write),
        }
    }
}

/// What the route's statements do in a user's table; `None` where it names none.
pub(crate) fn access(route: &RouteConfig, tombstone: Tombstone) -> Option<Access<'_>> {
    let reached = meets_tombstones(route, tombstone);
    match &route.action {
        RouteAction::Skip => Skip::access(&(), reached),
        RouteAction::Document(section) => Document::access(section, reached),
        RouteAction::Upsert(section) => Upsert::access(section, reached),
        RouteAction::Delete(section) => Delete::access(section, reached),
    }
}

/// Whether an event of the route holds everything that it writes.
pub(crate) fn holds_everything(action: &RouteAction) -> bool {
    match action {
        RouteAction::Skip => Skip::holds_everything(&()),
        RouteAction::Document(section) => Document::holds_everything(section),
        RouteAction::Upsert(section) => Upsert::holds_everything(section),
        RouteAction::Delete(section) => Delete::holds_everything(section),
    }
}

/// Columns that most events of the route should have a value for.
pub(crate) fn expected(action: &RouteAction) -> Option<&ColumnSources> {
    match action {
        RouteAction::Skip => Skip::expected(&()),
        RouteAction::Document(section) => Document::expected(section),
        RouteAction::Upsert(section) => Upsert::expected(section),
        RouteAction::Delete(section) => Delete::expected(section),
    }
}

/// Whether a tombstone can take the route: one has no value, and so no type to ask for.
fn meets_tombstones(route: &RouteConfig, tombstone: Tombstone) -> bool {
    tombstone == Tombstone::Delete && route.event_type.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeleteRoute, DocumentRoute, DocumentState, FieldSources, UpsertRoute};
    use crate::sql::column_type::ColumnType;
    use pgsluice_core::event::{LedgerEffect, RowAction, RowWrite};

    fn document(state: DocumentState, delete: bool) -> RouteAction {
        RouteAction::Document(DocumentRoute { state, delete })
    }

    fn columns(names: &[&str]) -> ColumnSources {
        names.iter().map(|name| ((*name).to_owned(), FieldSources::default())).collect()
    }

    fn table() -> TableName {
        TableName { schema: None, name: "t".into() }
    }

    fn upsert(columns: Option<ColumnSources>) -> RouteAction {
        RouteAction::Upsert(UpsertRoute { table: table(), key: Vec::new(), columns })
    }

    fn delete(soft: &[&str]) -> RouteAction {
        let (key, soft) = (Vec::new(), columns(soft));
        RouteAction::Delete(DeleteRoute { table: table(), key, soft })
    }

    #[test]
    fn compaction_takes_something_only_where_an_event_may_leave_something_alone() {
        let needs_all = [document(DocumentState::Merge, false), upsert(None)];
        assert!(needs_all.iter().all(|action| !holds_everything(action)));
        let whole = [
            RouteAction::Skip,
            document(DocumentState::Replace, false),
            document(DocumentState::Merge, true),
            delete(&[]),
            delete(&["gone"]),
        ];
        assert!(whole.iter().all(holds_everything));
    }

    #[test]
    fn a_value_is_expected_for_columns_that_an_upsert_names_one_by_one() {
        assert_eq!(expected(&upsert(Some(columns(&["a"])))), Some(&columns(&["a"])));
        for action in [upsert(None), delete(&["gone"]), document(DocumentState::Merge, false)] {
            assert_eq!(expected(&action), None);
        }
    }

    #[test]
    fn a_report_names_what_a_write_does() {
        let target = |columns: &[&str]| {
            let column = |name: &&str| crate::route::Column::new(name, ColumnType::Bool);
            let columns = columns.iter().map(column).collect();
            Target { schema: "s".into(), table: "t".into(), key: Vec::new(), columns }
        };
        let write = |ledger, action: Option<RowAction>| {
            let row = |action| RowWrite { action, key: Box::default(), columns: Box::default() };
            Write { route: RouteId(0), ledger, rows: action.map(row).into_iter().collect() }
        };
        let json = || pgsluice_core::event::Json::Value("{}".into());
        let clear = LedgerEffect::Clear;
        let cases = [
            (CompiledAction::Document(Document::Merge), write(LedgerEffect::Merge(json()), None)),
            (CompiledAction::Document(Document::Replace), write(LedgerEffect::Set(json()), None)),
            (CompiledAction::Document(Document::Delete), write(clear.clone(), None)),
            (
                CompiledAction::Upsert(Upsert(target(&[]))),
                write(LedgerEffect::Keep, Some(RowAction::Upsert)),
            ),
            (
                CompiledAction::Upsert(Upsert(target(&[]))),
                write(clear.clone(), Some(RowAction::Remove)),
            ),
            (
                CompiledAction::Delete(Delete(target(&[]))),
                write(clear.clone(), Some(RowAction::Remove)),
            ),
            (
                CompiledAction::Delete(Delete(target(&["gone"]))),
                write(clear, Some(RowAction::Mark)),
            ),
        ];
        let named: Vec<(&str, &str)> =
            cases.iter().map(|(action, write)| (action.word(), action.operation(write))).collect();
        assert_eq!(
            named,
            [
                ("document", "merge document"),
                ("document", "replace document"),
                ("document", "delete document"),
                ("upsert", "upsert"),
                ("upsert", "delete"),
                ("delete", "delete"),
                ("soft delete", "update"),
            ]
        );
    }
}
