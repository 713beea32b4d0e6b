//! `[route.document]`: the state of the aggregate's ledger row.

use crate::config::DEFAULT_ROUTE;
use crate::config::format::Format;
use crate::config::load::reader::Section;

/// A route that writes the state of the aggregate's ledger row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRoute {
    /// How the payload meets the stored state.
    pub state: DocumentState,
    /// The event deletes the document.
    pub delete: bool,
}

/// How a payload meets the stored state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DocumentState {
    /// Its top-level members replace those of the state.
    Merge,
    /// It replaces the state.
    Replace,
}

impl DocumentRoute {
    /// The route that every event takes where none is configured.
    pub fn default_of(format: Format) -> Self {
        Self { state: format.defaults().document, delete: false }
    }

    pub(super) fn read(mut section: Section<'_>, format: Format) -> Self {
        let states = [("merge", DocumentState::Merge), ("replace", DocumentState::Replace)];
        let state = section.optional_choice("state", &states, &[]);
        let delete = section.flag("delete", false);
        if delete && section.has("state") {
            section.problem("state", "has no meaning together with delete = true");
        }
        section.finish();
        Self { state: state.unwrap_or(Self::default_of(format).state), delete }
    }

    pub(super) fn default_name(self) -> &'static str {
        if self.delete { "delete document" } else { DEFAULT_ROUTE }
    }
}
