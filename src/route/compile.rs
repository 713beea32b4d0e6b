//! Checks the configured routes against the catalog and makes the plan of them. Pure.
//!
//! A route with a problem keeps its place: routes are tried in order, so without it its events would
//! end in another. It is [`CompiledAction::Unusable`], and topics that it may be meant for are not
//! read.

use crate::config::{ColumnSources, Config, DEFAULT_ROUTE, DocumentRoute, TableName};
use crate::route::catalog::{Catalog, Table, TableColumn};
use crate::route::kind::{Access, Document};
use crate::route::problem::{Privilege, RouteCause, RouteProblem, RouteProblems};
use crate::route::{Column, CompiledAction, CompiledRoute, Plan, Target};
use pgsluice_core::event::RouteId;

impl Plan {
    /// Compiles the routes of the configuration, and behind them the default document route.
    ///
    /// # Errors
    /// Every problem of every route, so that one look mends them all.
    pub fn compile(config: &Config, catalog: &Catalog) -> Result<Self, RouteProblems> {
        let (plan, problems) = Self::compile_usable(config, catalog);
        if problems.0.is_empty() { Ok(plan) } else { Err(problems) }
    }

    /// The same as far as the tables allow it, and what is wrong with the rest.
    pub fn compile_usable(config: &Config, catalog: &Catalog) -> (Self, RouteProblems) {
        let mut problems = Vec::new();
        let mut routes = Vec::with_capacity(config.routes.len() + 1);
        for (position, route) in config.routes.iter().enumerate() {
            let mut compiling = Compiling {
                position,
                name: &route.name,
                table: route.action.table().map(ToString::to_string).unwrap_or_default(),
                catalog,
                problems: &mut problems,
            };
            let tombstone = config.decode.tombstone;
            let action = CompiledAction::compile(route, tombstone, &mut compiling);
            routes.push((&*route.name, action));
        }
        let default = Document::from(DocumentRoute::default_of(config.decode.format));
        routes.push((DEFAULT_ROUTE, CompiledAction::Document(default)));
        let routes = routes.into_iter().enumerate().filter_map(|(position, (name, action))| {
            let Ok(id) = u16::try_from(position) else {
                let cause = RouteCause::TooManyRoutes;
                let (name, table) = (name.to_owned(), String::new());
                problems.push(RouteProblem { route: position, name, table, column: None, cause });
                return None;
            };
            Some(CompiledRoute { id: RouteId(id), name: name.into(), action })
        });
        let plan = Self { routes: routes.collect() };
        (plan, RouteProblems(problems))
    }
}

/// Compiles one route.
pub(super) struct Compiling<'a> {
    position: usize,
    /// The route's name.
    name: &'a str,
    /// The table's name, for messages.
    table: String,
    catalog: &'a Catalog,
    problems: &'a mut Vec<RouteProblem>,
}

impl<'a> Compiling<'a> {
    /// The table as the route writes it; `columns` are `None` for every one that can be written
    /// beside the key. `None` when there are problems.
    pub(super) fn target(
        &mut self,
        access: &Access<'_>,
        key: &ColumnSources,
        columns: Option<&ColumnSources>,
    ) -> Option<Target> {
        let table = self.find(access.table)?;
        let key = self.key(table, key, access.key);
        let columns = match columns {
            Some(columns) => self.columns(table, columns, access.columns),
            None => self.members(table, key.as_deref().unwrap_or_default(), access.columns),
        };
        if access.deletes && !table.may_delete {
            self.problem(None, RouteCause::Denied(Privilege::Delete));
        }
        let (schema, table) = (table.schema.clone(), table.name.clone());
        let target = Target { schema, table, key: key?, columns: columns? };
        // Problems that belong to no column refuse the route as well.
        let sound = self.problems.iter().all(|problem| problem.route != self.position);
        sound.then_some(target)
    }

    fn problem(&mut self, column: Option<&str>, cause: RouteCause) {
        self.problems.push(RouteProblem {
            route: self.position,
            name: self.name.to_owned(),
            table: self.table.clone(),
            column: column.map(str::to_owned),
            cause,
        });
    }

    fn find(&mut self, name: &TableName) -> Option<&'a Table> {
        let catalog = self.catalog;
        let Some(table) = catalog.table(name) else {
            self.problem(None, RouteCause::TableMissing);
            return None;
        };
        if !table.is_table {
            self.problem(None, RouteCause::NotATable);
            return None;
        }
        if table.has_rules {
            self.problem(None, RouteCause::HasRules);
        }
        if !table.schema_usable {
            self.problem(None, RouteCause::Denied(Privilege::Usage));
        }
        Some(table)
    }

    fn key(
        &mut self,
        table: &Table,
        key: &ColumnSources,
        privileges: &[Privilege],
    ) -> Option<Vec<Column>> {
        let columns = self.columns(table, key, privileges)?;
        let mut sorted: Vec<&str> = key.iter().map(|(name, _)| name.as_str()).collect();
        sorted.sort_unstable();
        if !table.unique.iter().any(|index| *index == sorted) {
            let names = key.iter().map(|(name, _)| name.clone()).collect();
            self.problem(None, RouteCause::NoUniqueIndex(names));
        }
        for name in sorted {
            if table.column(name).is_some_and(|column| !column.may_select) {
                self.problem(Some(name), RouteCause::Denied(Privilege::Select));
            }
        }
        Some(columns)
    }

    /// All columns or, when one of them cannot be used, none.
    fn columns(
        &mut self,
        table: &Table,
        columns: &ColumnSources,
        privileges: &[Privilege],
    ) -> Option<Vec<Column>> {
        let found: Vec<Option<Column>> = columns
            .iter()
            .map(|(name, sources)| Some(self.column(table, name, privileges)?.filled_by(sources)))
            .collect();
        found.into_iter().collect()
    }

    /// For `columns = "auto"`: what can be written beside the key.
    fn members(
        &mut self,
        table: &Table,
        key: &[Column],
        privileges: &[Privilege],
    ) -> Option<Vec<Column>> {
        let beside = |column: &&TableColumn| {
            !column.generated && !key.iter().any(|key| key.name == column.name)
        };
        let found: Vec<Option<Column>> = table
            .columns
            .iter()
            .filter(beside)
            .map(|column| Some(self.column(table, &column.name, privileges)?.filled_by_member()))
            .collect();
        found.into_iter().collect()
    }

    fn column(&mut self, table: &Table, name: &str, privileges: &[Privilege]) -> Option<Column> {
        let Some(column) = table.column(name) else {
            self.problem(Some(name), RouteCause::ColumnMissing);
            return None;
        };
        if column.generated && !privileges.is_empty() {
            self.problem(Some(name), RouteCause::ColumnGenerated);
            return None;
        }
        for privilege in privileges.iter().filter(|privilege| !column.may(**privilege)) {
            self.problem(Some(name), RouteCause::Denied(*privilege));
        }
        let Some(ty) = &column.ty else {
            self.problem(Some(name), RouteCause::TypeUnsupported(column.type_name.clone()));
            return None;
        };
        Some(Column::new(&column.name, ty.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::sql::column_type::ColumnType;
    use pgsluice_core::verdict::Reason;

    fn config(text: &str) -> Config {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let required = [
            ("PGSLUICE__KAFKA__BROKERS", "localhost:9092"),
            ("PGSLUICE__KAFKA__GROUP", "g"),
            ("PGSLUICE__KAFKA__TOPICS", "t"),
            ("PGSLUICE__POSTGRES__URL", "postgres://u@localhost/d"),
        ];
        let env = required.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        crate::config::load(Some(file.path()), env, &crate::config::AnyProperty).unwrap()
    }

    fn column(name: &str, ty: Option<ColumnType>) -> TableColumn {
        TableColumn {
            name: name.into(),
            ty,
            type_name: "some_type".into(),
            generated: false,
            may_select: true,
            may_insert: true,
            may_update: true,
        }
    }

    /// `customer(id, name, total generated, tags unsupported)`, unique on `id`.
    fn customer() -> Table {
        let text = Some(ColumnType::Text { max_chars: None });
        Table {
            schema: "public".into(),
            name: "customer".into(),
            is_table: true,
            has_rules: false,
            schema_usable: true,
            may_delete: true,
            columns: vec![
                column("id", text.clone()),
                column("name", text),
                TableColumn { generated: true, ..column("total", Some(ColumnType::Int4)) },
                column("tags", None),
            ],
            unique: vec![vec!["id".into(), "name".into()], vec!["id".into()]],
        }
    }

    fn compile(routes: &str, change: impl FnOnce(&mut Table)) -> Result<Plan, RouteProblems> {
        let mut table = customer();
        change(&mut table);
        let name = TableName { schema: None, name: "customer".into() };
        Plan::compile(&config(routes), &Catalog::from_tables([(name, table)]))
    }

    fn causes(routes: &str, change: impl FnOnce(&mut Table)) -> Vec<(Option<String>, RouteCause)> {
        let problems = compile(routes, change).unwrap_err().0;
        problems.into_iter().map(|problem| (problem.column, problem.cause)).collect()
    }

    const UPSERT: &str = "[[route]]\nevent_type = \"A\"\n[route.upsert]\ntable = \"customer\"\n\
                          key = { id = \"aggregate_id\" }\ncolumns = { name = \"payload:/name\" }";
    const DELETE: &str = "[[route]]\n[route.delete]\ntable = \"customer\"\n\
                          key = { id = \"aggregate_id\" }";

    #[test]
    fn the_default_document_route_stands_last() {
        let plan = Plan::compile(&config(""), &Catalog::default()).unwrap();
        assert!(matches!(plan.routes[0].action, CompiledAction::Document(Document::Replace)));
        let routes = format!("{UPSERT}\n{DELETE}\n[decode]\nformat = \"envelope\"");
        let plan = compile(&routes, |_| {}).unwrap();
        assert!(matches!(plan.routes[0].action, CompiledAction::Upsert(_)));
        assert!(matches!(plan.routes[1].action, CompiledAction::Delete(_)));
        assert!(matches!(plan.routes[2].action, CompiledAction::Document(Document::Merge)));
        assert!(plan.routes.iter().enumerate().all(|(at, r)| usize::from(r.id.0) == at));
    }

    #[test]
    fn a_route_with_a_problem_keeps_its_place_and_concerns_only_the_topics_it_may_be_meant_for() {
        let routes =
            format!("{}\n{DELETE}", UPSERT.replace("[[route]]", "[[route]]\ntopic = \"t\""));
        let config = config(&routes.replace("name =", "nome ="));
        let name = TableName { schema: None, name: "customer".into() };
        let catalog = Catalog::from_tables([(name, customer())]);
        let (plan, problems) = Plan::compile_usable(&config, &catalog);
        assert_eq!(plan.routes[0].action, CompiledAction::Unusable);
        assert!(matches!(plan.routes[1].action, CompiledAction::Delete(_)));
        assert_eq!(plan.routes[1].id, RouteId(1));
        assert_eq!(problems.concerning("t", &config), Some(problems.clone()));
        assert_eq!(problems.concerning("another", &config), None);
    }

    #[test]
    fn a_plan_has_changed_when_a_route_is_usable_in_another_way_and_not_when_it_broke() {
        let sound = compile(UPSERT, |_| {}).unwrap();
        let renamed = |table: &mut Table| table.schema = "elsewhere".into();
        let moved = compile(UPSERT, renamed).unwrap();
        let mut broken = sound.clone();
        broken.routes[0].action = CompiledAction::Unusable;
        assert!(sound.changed_to(&moved));
        assert!(broken.changed_to(&sound), "it was mended");
        assert!(!sound.changed_to(&broken), "its partitions halt");
        assert!(!broken.changed_to(&broken) && !sound.changed_to(&sound));
    }

    #[test]
    fn automatic_columns_leave_out_the_key_and_what_the_database_computes() {
        let auto = UPSERT.replace("{ name = \"payload:/name\" }", "\"auto\"");
        let plan = compile(&auto, |table| table.columns.truncate(3)).unwrap();
        let target = plan.routes[0].action.target().unwrap();
        let names: Vec<&str> = target.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["name"]);
        let unsupported = RouteCause::TypeUnsupported("some_type".into());
        assert_eq!(causes(&auto, |_| {}), [(Some("tags".into()), unsupported)]);
    }

    #[test]
    fn a_key_needs_a_unique_index_on_exactly_its_columns() {
        let only_wider = |table: &mut Table| table.unique.truncate(1);
        let missing = (None, RouteCause::NoUniqueIndex(vec!["id".into()]));
        for routes in [UPSERT, DELETE] {
            assert_eq!(causes(routes, only_wider), std::slice::from_ref(&missing));
        }
        let both = DELETE.replace("{ id", "{ name = \"const:n\", id");
        assert!(compile(&both, |_| {}).is_ok());
    }

    #[test]
    fn every_problem_is_reported_with_its_route_and_column() {
        let routes = format!(
            "{}\n{}\n[[route]]\n[route.delete]\ntable = \"s.none\"\nkey = {{ id = \"key\" }}",
            UPSERT.replace("{ name =", "{ total = \"const:1\", nome ="),
            DELETE.replace("{ id", "{ idd"),
        );
        let problems = compile(&routes, |_| {}).unwrap_err();
        assert_eq!(problems.reason(), Reason::SchemaMismatch);
        insta::assert_snapshot!(problems.to_string().replace("; route", "\nroute"), @r"
        route upsert customer, table customer, column nome: no such column; add it to the table or remove it from the route
        route upsert customer, table customer, column total: the database computes it; remove it from the route
        route delete customer, table customer, column idd: no such column; add it to the table or remove it from the route
        route delete s.none, table s.none: no such table; create it, or name its schema if it is in another one
        ");
    }

    #[test]
    fn privileges_are_asked_for_as_the_route_needs_them() {
        let denied = |column: Option<&str>, privilege| {
            (column.map(str::to_owned), RouteCause::Denied(privilege))
        };
        let read_only = |table: &mut Table| {
            table.may_delete = false;
            for column in &mut table.columns {
                (column.may_insert, column.may_update) = (false, false);
            }
        };
        assert_eq!(
            causes(UPSERT, read_only),
            [
                denied(Some("id"), Privilege::Insert),
                denied(Some("name"), Privilege::Insert),
                denied(Some("name"), Privilege::Update),
            ]
        );
        assert_eq!(causes(DELETE, read_only), [denied(None, Privilege::Delete)]);
        let soft = format!("{DELETE}\nsoft = {{ name = \"const:\" }}");
        assert_eq!(causes(&soft, read_only), [denied(Some("name"), Privilege::Update)]);
        let blind = |table: &mut Table| table.columns[0].may_select = false;
        assert_eq!(causes(DELETE, blind), [denied(Some("id"), Privilege::Select)]);
        let problems = compile(DELETE, |table| table.schema_usable = false).unwrap_err();
        assert_eq!(problems.reason(), Reason::PermissionDenied);
    }

    #[test]
    fn an_upsert_route_that_tombstones_can_reach_must_be_able_to_delete() {
        let no_delete = |table: &mut Table| table.may_delete = false;
        let reachable = UPSERT.replace("event_type = \"A\"\n", "");
        assert!(compile(UPSERT, no_delete).is_ok());
        assert_eq!(causes(&reachable, no_delete), [(None, RouteCause::Denied(Privilege::Delete))]);
        let skipping = format!("{reachable}\n[decode]\ntombstone = \"skip\"");
        assert!(compile(&skipping, no_delete).is_ok());
    }

    #[test]
    fn a_view_is_refused() {
        let view = |table: &mut Table| table.is_table = false;
        assert_eq!(causes(UPSERT, view), [(None, RouteCause::NotATable)]);
    }

    #[test]
    fn a_table_with_rewrite_rules_is_refused() {
        let ruled = |table: &mut Table| table.has_rules = true;
        assert_eq!(causes(UPSERT, ruled), [(None, RouteCause::HasRules)]);
    }
}
