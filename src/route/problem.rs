//! Why routes cannot be used with the tables as they are, said so that an operator knows what to
//! do. Names only: a catalog holds no data.

use std::fmt;

use crate::config::Config;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::verdict::Reason;

/// Everything that is wrong with the routes. Partitions stay halted until it is mended; then they
/// resume on their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteProblems(pub Vec<RouteProblem>);

/// One thing that is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteProblem {
    /// Position of the route in the configuration, from 0.
    pub route: usize,
    /// The route's name.
    pub name: String,
    /// The table as the route names it.
    pub table: String,
    /// The column at fault.
    pub column: Option<String>,
    /// What is wrong.
    pub cause: RouteCause,
}

/// What is wrong with a route's table or column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteCause {
    /// There is no such table.
    TableMissing,
    /// It is a view or a foreign table.
    NotATable,
    /// Rewrite rules stand on it, with which there is no `insert … on conflict`.
    HasRules,
    /// There is no such column.
    ColumnMissing,
    /// The database computes the column.
    ColumnGenerated,
    /// No value can be bound to a column of this type.
    TypeUnsupported(String),
    /// No unique index stands on exactly these columns.
    NoUniqueIndex(Vec<String>),
    /// The role lacks this privilege.
    Denied(Privilege),
    /// There are more routes than an event's route number can tell apart.
    TooManyRoutes,
}

/// A privilege that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// `usage` on the schema.
    Usage,
    /// `select` on the column.
    Select,
    /// `insert` on the column.
    Insert,
    /// `update` on the column.
    Update,
    /// `delete` on the table.
    Delete,
}

impl Privilege {
    /// All of them, in the order in which a grant names them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Usage, Self::Select, Self::Insert, Self::Update, Self::Delete];

    /// The word in `grant`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl RouteProblem {
    /// The reason under which partitions halt.
    pub fn reason(&self) -> Reason {
        match self.cause {
            RouteCause::Denied(_) => Reason::PermissionDenied,
            RouteCause::TableMissing
            | RouteCause::NotATable
            | RouteCause::HasRules
            | RouteCause::ColumnMissing
            | RouteCause::ColumnGenerated
            | RouteCause::TypeUnsupported(_)
            | RouteCause::NoUniqueIndex(_)
            | RouteCause::TooManyRoutes => Reason::SchemaMismatch,
        }
    }
}

impl RouteProblems {
    /// What is wrong with routes that a record of this topic may take; `None` when nothing is.
    pub fn concerning(&self, topic: &str, config: &Config) -> Option<Self> {
        let meant = |problem: &&RouteProblem| {
            config.routes.get(problem.route).is_none_or(|route| {
                route.topic.is_empty() || route.topic.iter().any(|wanted| wanted == topic)
            })
        };
        let concerning: Vec<_> = self.0.iter().filter(meant).cloned().collect();
        (!concerning.is_empty()).then_some(Self(concerning))
    }

    /// The reason under which partitions halt: the tables' shape first, which comes before the
    /// grants on it.
    pub fn reason(&self) -> Reason {
        let mismatch = self.0.iter().any(|p| p.reason() == Reason::SchemaMismatch);
        if mismatch { Reason::SchemaMismatch } else { Reason::PermissionDenied }
    }
}

impl From<RouteProblems> for Fault {
    fn from(problems: RouteProblems) -> Self {
        Self { route: Some(problems.to_string().into()), ..Self::new(FaultKind::Route) }
    }
}

impl fmt::Display for RouteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}, table {}", self.name, self.table)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        f.write_str(": ")?;
        match &self.cause {
            RouteCause::TableMissing => {
                f.write_str("no such table; create it, or name its schema if it is in another one")
            }
            RouteCause::NotATable => f.write_str("is a view or a foreign table; name a table"),
            RouteCause::HasRules => {
                f.write_str("has rewrite rules (create rule); use triggers instead")
            }
            RouteCause::ColumnMissing => {
                f.write_str("no such column; add it to the table or remove it from the route")
            }
            RouteCause::ColumnGenerated => {
                f.write_str("the database computes it; remove it from the route")
            }
            RouteCause::TypeUnsupported(name) => {
                write!(f, "type {name} cannot be written; remove it from the route's columns")
            }
            RouteCause::NoUniqueIndex(columns) => {
                let columns = columns.join(", ");
                write!(f, "needs a primary key or unique index on exactly ({columns})")
            }
            RouteCause::Denied(Privilege::Usage) => {
                f.write_str("the role may not use the schema; grant usage on it")
            }
            RouteCause::Denied(privilege) => {
                write!(f, "permission denied; grant {} to the role", privilege.as_str())
            }
            RouteCause::TooManyRoutes => write!(f, "at most {} routes are possible", u16::MAX),
        }
    }
}

impl fmt::Display for RouteProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RouteProblem {}
impl std::error::Error for RouteProblems {}
