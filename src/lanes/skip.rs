//! Records that are skipped on purpose: they leave a notification, and the ledger alone.

use crate::postgres::Lane;
use crate::sql::query::Query;
use crate::store::notification::{self, Note, Trouble};
use pgsluice_core::event::{Content, Event};
use pgsluice_core::fault::Fault;
use pgsluice_core::group::{Group, GroupReply};
use pgsluice_core::verdict::Verdict;

use crate::lanes::context::ApplyContext;

/// Notes skipped records; the ledger is not touched.
pub(super) async fn skip(lane: &Lane, context: &ApplyContext, groups: &[Group]) -> Vec<GroupReply> {
    let notes: Vec<Note<'_>> = groups.iter().flat_map(|group| skipped(context, group)).collect();
    let mut query = Query::default();
    let written = if notes.is_empty() {
        Ok(())
    } else {
        query.text = notification::insert(context.statements.schema(), &notes, None, &mut query);
        context
            .timed(lane.within(context.deadline, async {
                let prepared = lane.prepared(&query.text, &query.types).await?;
                let done = lane.client().execute(&prepared, &query.parameters()).await;
                done.map(|_| ()).map_err(|error| crate::postgres::fault_of(&error))
            }))
            .await
    };
    groups.iter().map(|group| skip_reply(group, &written)).collect()
}

/// The notes of a group of skips, where the configuration wants them.
pub(super) fn skipped<'a>(context: &ApplyContext, group: &'a Group) -> Vec<Note<'a>> {
    if !context.notes(Verdict::Skipped) {
        return Vec::new();
    }
    let note = |event: &'a Event| Note {
        stream: group.stream(),
        event,
        verdict: Verdict::Skipped,
        reason: match &event.content {
            Content::Skip(reason) | Content::Halt(reason) => Some(*reason),
            Content::Write(_) | Content::Poison(_) => None,
        },
        trouble: Trouble::default(),
        json: context.shows_event(Verdict::Skipped),
    };
    group.events().map(note).collect()
}

/// The answer for a group of skips.
pub(super) fn skip_reply(group: &Group, written: &Result<(), Fault>) -> GroupReply {
    match written {
        Ok(()) => {
            let verdicts = group.events().map(|_| Verdict::Skipped).collect();
            GroupReply::Done { verdicts, gap: 0 }
        }
        Err(fault) => GroupReply::Failed(fault.clone()),
    }
}
