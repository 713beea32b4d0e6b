//! The right end of a run where there is only one: the records of an aggregate applied one after
//! the other, by the same verdict rule, without anything going wrong.

use super::model_statement::parked;
use super::workload::{Meaning, Rec, Spec, Target, Workload};
use crate::verdict::{GapPolicy, Judgement, LedgerRow, Reason, Verdict, judge};

/// What the oracle must know of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunFacts {
    /// The gap policy.
    pub(super) gaps: GapPolicy,
    /// Folding may have hidden a value that the target refuses.
    pub(super) folding_hides: bool,
    /// The operator added a route in the middle of the run.
    pub(super) new_route: bool,
}

/// What a sequential run ends with.
pub(super) struct Expected {
    /// Outcome of each record.
    pub(super) outcomes: Vec<(Rec, Verdict)>,
    /// The ledger row.
    pub(super) row: Option<LedgerRow>,
}

/// Applies the records of an aggregate one after the other; `None` where the outcome depends on
/// when things happen.
pub(super) fn oracle(work: &Workload, aggregate: usize, run: &RunFacts) -> Option<Expected> {
    if !work.aggregates[aggregate].is_single() {
        return None;
    }
    let mut expected = Expected { outcomes: Vec::new(), row: None };
    for (rec, spec) in work.records.iter().enumerate() {
        if spec.aggregate != Some(aggregate) {
            continue;
        }
        match (spec.meaning, spec.target) {
            (Meaning::Skip, _) => {
                expected.outcomes.push((rec, Verdict::Skipped));
                continue;
            }
            (Meaning::Unmatched, _) if run.new_route => return None,
            (Meaning::Unmatched, _) => {
                expected.outcomes.push((rec, Verdict::DeadLettered));
                continue;
            }
            (_, Target::RefusesUntilMended | Target::LockedUntilMended) => return None,
            (_, Target::Refuses) if run.folding_hides => return None,
            _ => {}
        }
        let verdict = outcome(expected.row.as_ref(), spec, run.gaps);
        expected.row = match verdict {
            Verdict::Applied => {
                let deletes = spec.meaning == Meaning::Delete;
                Some(LedgerRow::applied(expected.row.as_ref(), &spec.candidate(), deletes))
            }
            Verdict::DeadLettered | Verdict::Parked => Some(parked(expected.row, spec.id())),
            _ => expected.row,
        };
        expected.outcomes.push((rec, verdict));
    }
    Some(expected)
}

fn outcome(row: Option<&LedgerRow>, spec: &Spec, gaps: GapPolicy) -> Verdict {
    match judge(row, &spec.candidate(), gaps) {
        Judgement::Settled => Verdict::Duplicate,
        Judgement::Park(Reason::AggregateParked) => Verdict::Parked,
        _ if spec.meaning == Meaning::Undecodable => Verdict::DeadLettered,
        Judgement::Park(_) => Verdict::Parked,
        Judgement::Note(verdict, _) => verdict,
        Judgement::Poison(_) => Verdict::DeadLettered,
        Judgement::Apply { .. } if spec.target == Target::Refuses => Verdict::DeadLettered,
        Judgement::Apply { .. } => Verdict::Applied,
    }
}
