//! Single decisions that the simulation's invariants would not notice: fairness, patience, and what
//! a drain does not wait for.

use super::*;
use crate::backoff::Backoff;
use crate::event::{AggregateKey, Content, Envelope, Json, LedgerEffect, Poison, RouteId, Write};
use crate::fault::{Decision, Fault, FaultKind, SqlState};
use crate::input::{Claim, TakeReply};
use crate::record::{OwnerEpoch, Raw, Record, TimestampType};
use crate::verdict::GapPolicy;

mod books;
mod first_attempt;

const LOCKED: FaultKind = FaultKind::Server(SqlState(*b"55P03"));
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const UNFINISHED: usize = 20;
/// The longest wait before another attempt.
const RETRY: Duration = Duration::from_secs(1);

fn partition() -> TopicPartition {
    TopicPartition { topic: Arc::from("t"), partition: 0 }
}

fn write() -> Content {
    let ledger = LedgerEffect::Set(Json::Value("{}".into()));
    Content::Write(Write { route: RouteId(0), ledger, rows: Vec::new() })
}

fn locked() -> GroupReply {
    GroupReply::Failed(Fault::new(LOCKED))
}

fn applied(group: &Group) -> GroupReply {
    GroupReply::Done { verdicts: vec![Verdict::Applied; group.events.len()], gap: 0 }
}

/// A coordinator that reads one partition, and what it asked for.
struct Reader {
    state: State,
    now: Duration,
    session: SessionId,
    generation: Generation,
    actions: Vec<Action>,
}

impl Reader {
    fn new() -> Self {
        let backoff = Backoff { initial: RETRY, max: RETRY };
        let config = StateConfig {
            fast_capacity: 8,
            slow_capacity: 1,
            aggregates_per_transaction: 1,
            events_per_group: 10,
            groups_per_read: 10,
            unfinished_per_partition: UNFINISHED,
            gaps: GapPolicy::Apply,
            note_skips: true,
            advance_interval: Duration::from_millis(20),
            revoke_budget: Duration::from_secs(5),
            retry: backoff,
            give_up_after: Some(GIVE_UP_AFTER),
            reopen: backoff,
            halt: backoff,
            retake: Duration::from_secs(1),
            fenced_wait: Duration::from_secs(10),
            decide: Arc::new(|fault| match fault.kind {
                FaultKind::Server(_) => Decision::RetryAfter,
                _ => Decision::WaitForDatabase,
            }),
        };
        let mut reader = Self {
            state: State::new(config, 7),
            now: Duration::ZERO,
            session: SessionId(1),
            generation: Generation(0),
            actions: Vec::new(),
        };
        reader.give(Input::Assigned(vec![partition()]));
        reader.open();
        reader
    }

    fn give(&mut self, input: Input) {
        self.actions.extend(self.state.on(self.now, input));
        self.state.check().unwrap();
    }

    /// Time passes.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.give(Input::Tick);
    }

    /// Opens the session that was asked for and takes the partition.
    fn open(&mut self) {
        let opened = self.find(|action| match action {
            Action::OpenSession { session, .. } => Some(*session),
            _ => None,
        });
        self.session = opened;
        self.give(Input::SessionOpened(opened));
        self.generation = self.find(|action| match action {
            Action::Take { partitions, .. } => Some(partitions[0].1),
            _ => None,
        });
        let claim =
            Claim { stream: StreamId(1), epoch: OwnerEpoch(1), next: NextOffset(0), anchor: None };
        let taken = (partition(), self.generation, TakeReply::Claimed(claim));
        self.give(Input::Taken(self.session, vec![taken]));
    }

    /// The newest action that `wanted` wants; everything before it is forgotten.
    #[track_caller]
    fn find<T>(&mut self, wanted: impl Fn(&Action) -> Option<T>) -> T {
        let found = self.actions.iter().rev().find_map(wanted);
        self.actions.clear();
        found.expect("the action was asked for")
    }

    /// A write of an aggregate is read.
    fn read(&mut self, aggregate: &str, offset: i64) {
        self.read_as(aggregate, offset, write());
    }

    fn read_as(&mut self, aggregate: &str, offset: i64, content: Content) {
        self.read_from(partition(), (aggregate, offset), content);
    }

    fn read_from(&mut self, partition: TopicPartition, place: (&str, i64), content: Content) {
        let event = self.event(partition, place, content);
        self.give(Input::Polled(vec![event]));
    }

    fn event(
        &self,
        partition: TopicPartition,
        (aggregate, offset): (&str, i64),
        content: Content,
    ) -> Event {
        let key = AggregateKey { aggregate_type: Arc::from("A"), id: Arc::from(aggregate) };
        let record = Record {
            partition,
            offset: Offset(offset),
            generation: self.generation,
            timestamp: None,
            timestamp_type: TimestampType::NotAvailable,
            raw: Raw::default(),
        };
        let envelope = Envelope { aggregate: Some(key), ..Envelope::default() };
        Event { record, envelope, content }
    }

    /// The groups that were sent and not answered, with their lane.
    fn sent(&mut self) -> Vec<(Lane, Group)> {
        let sent = |action| match action {
            Action::Apply { groups, .. } => (Lane::Fast, groups),
            Action::Read { groups, .. } => (Lane::Slow, groups),
            Action::Resolve { group, .. } => (Lane::Slow, vec![group]),
            _ => (Lane::Fast, Vec::new()),
        };
        let sent = std::mem::take(&mut self.actions).into_iter().map(sent);
        sent.flat_map(|(lane, groups)| groups.into_iter().map(move |group| (lane, group))).collect()
    }

    /// The only group that was sent.
    #[track_caller]
    fn only(&mut self) -> (Lane, Group) {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn reply(&mut self, (lane, group): (Lane, Group), reply: GroupReply) {
        let groups = vec![(group, reply)];
        self.give(Input::Replied { session: self.session, lane, groups });
    }

    /// Something that `wanted` wants was asked for since actions were last looked at.
    fn asked(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.actions.iter().any(wanted)
    }

    fn released(&self) -> bool {
        self.asked(|action| matches!(action, Action::Released(..)))
    }

    fn revoke(&mut self) {
        let partitions = vec![partition()];
        self.give(Input::Revoked { partitions, ticket: RevokeTicket(1), lost: false });
    }

    fn lose(&mut self) {
        self.actions.clear();
        self.give(Input::SessionLost(self.session, Fault::new(FaultKind::Connection)));
    }

    /// Fails the only group on both lanes, so that it waits for its next attempt.
    #[track_caller]
    fn fails(&mut self) {
        for lane in [Lane::Fast, Lane::Slow] {
            let sent = self.only();
            assert_eq!(sent.0, lane);
            self.reply(sent, locked());
        }
    }
}

#[test]
fn a_stream_of_refused_groups_leaves_the_slow_lane_to_others_in_turn() {
    let mut reader = Reader::new();
    // GIVEN one slow connection that looks at a refused group, and a poison event that waits for it
    reader.read("a", 0);
    let apply = reader.only();
    reader.reply(apply, GroupReply::Refused);
    let mut look = reader.only();
    reader.read_as("sick", 1, Content::Poison(Poison::new(Reason::JsonSyntax, None)));
    assert!(reader.sent().is_empty());
    // WHEN another group is refused before each look is answered
    for offset in 2..4 {
        reader.read(&format!("b{offset}"), offset);
        let apply = reader.only();
        reader.reply(apply, GroupReply::Refused);
        assert!(reader.sent().is_empty());
        let done = applied(&look.1);
        reader.reply(look, done);
        look = reader.only();
        if look.1.kind == GroupKind::Poison {
            return;
        }
    }
    // THEN the poison event had its turn
    panic!("starved");
}

#[test]
fn a_drain_does_not_wait_for_what_stands_behind_a_group_that_waits_for_a_retry() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    reader.fails();
    reader.read("a", 1);
    assert!(reader.sent().is_empty());

    reader.give(Input::Drain);

    assert!(reader.actions.iter().any(|action| matches!(action, Action::Drained)));
}

#[test]
fn a_drain_finishes_what_can_go() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    let apply = reader.only();
    reader.read("a", 1);

    reader.give(Input::Drain);
    assert!(reader.sent().is_empty());
    let done = applied(&apply.1);
    reader.reply(apply, done);
    assert!(!reader.actions.iter().any(|action| matches!(action, Action::Drained)));
    let second = reader.only();
    reader.give(Input::Advanced(reader.session, vec![StreamId(1)]));
    let done = applied(&second.1);
    reader.reply(second, done);
    reader.find(|action| matches!(action, Action::Advance { .. }).then_some(()));
    reader.give(Input::Advanced(reader.session, vec![StreamId(1)]));
    reader.find(|action| matches!(action, Action::Drained).then_some(()));
}

#[test]
fn an_aggregate_is_given_up_although_sessions_come_and_go() {
    let mut reader = Reader::new();
    // GIVEN an aggregate that fails in every session, and another one that takes effect
    loop {
        reader.read("stuck", 0);
        reader.fails();
        reader.read("other", 1);
        let other = reader.only();
        let done = applied(&other.1);
        reader.reply(other, done);
        reader.actions.clear();
        reader.wait(RETRY);
        let third = reader.only();
        reader.reply(third, locked());
        reader.wait(RETRY);
        let (_, fourth) = reader.only();
        if fourth.failure.is_some_and(|failure| failure.exhausted) {
            break;
        }
        assert!(reader.now <= GIVE_UP_AFTER * 2, "never given up");
        // WHEN no session lasts for as long as an aggregate may fail
        reader.wait(GIVE_UP_AFTER / 4);
        reader.lose();
        reader.open();
    }
    // THEN it is given up all the same, and not before its time
    assert!(reader.now >= GIVE_UP_AFTER, "{:?}", reader.now);
}

#[test]
fn records_that_come_while_something_else_is_drained_are_not_begun() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    let apply = reader.only();
    reader.give(Input::Drain);
    reader.read("b", 1);
    let another = TopicPartition { partition: 1, ..partition() };
    reader.give(Input::Assigned(vec![another]));
    assert!(!reader.asked(|action| matches!(action, Action::Take { .. })));
    assert!(reader.sent().is_empty());
    let done = applied(&apply.1);
    reader.reply(apply, done);
    assert!(reader.sent().is_empty());
}

#[test]
fn what_comes_back_undone_does_not_hold_up_a_revocation() {
    let halted = GroupReply::Halted {
        reason: Reason::ParkingFull,
        fault: Fault::new(LOCKED),
        at: Offset(0),
    };
    for reply in [GroupReply::Refused, GroupReply::Unsettled, locked(), halted] {
        let mut reader = Reader::new();
        reader.read("a", 0);
        let apply = reader.only();
        reader.revoke();
        assert!(!reader.released(), "it is in flight");
        reader.reply(apply, reply.clone());
        assert!(reader.released(), "{reply:?}");
        assert!(reader.sent().is_empty(), "{reply:?}");
    }
}

#[test]
fn a_halted_partition_is_taken_again_once_its_work_is_answered_and_durable() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    let other = reader.only();
    reader.read("b", 1);
    let stopped = reader.only();
    let reason = Reason::ParkingFull;
    let halted = GroupReply::Halted { reason, fault: Fault::new(LOCKED), at: Offset(1) };
    let taken = |reader: &Reader| reader.asked(|action| matches!(action, Action::Take { .. }));

    reader.reply(stopped, halted);
    reader.wait(RETRY * 10);
    assert!(!taken(&reader), "another group is in flight");
    let done = applied(&other.1);
    reader.reply(other, done);
    assert!(!taken(&reader), "its outcome is not durable");
    reader.give(Input::Advanced(reader.session, vec![StreamId(1)]));
    assert!(taken(&reader));
}

#[test]
fn a_revocation_is_answered_when_the_session_is_lost() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    reader.only();
    reader.revoke();
    assert!(!reader.released());
    reader.lose();
    assert!(reader.released());
}

#[test]
fn what_waits_is_not_begun_once_the_partition_is_being_taken_away() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    let apply = reader.only();
    reader.read("a", 1);
    reader.revoke();
    let done = applied(&apply.1);
    reader.reply(apply, done);
    assert!(!reader.released(), "its outcome is not durable");
    assert!(reader.sent().is_empty());
    reader.give(Input::Advanced(reader.session, vec![StreamId(1)]));
    assert!(reader.released());
}

#[test]
fn a_lost_partition_is_given_up_at_once() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    reader.only();
    let partitions = vec![partition()];
    reader.give(Input::Revoked { partitions, ticket: RevokeTicket(1), lost: true });
    assert!(reader.released());
}

#[test]
fn a_former_owner_tells_kafka_no_position_when_it_lets_go() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    let apply = reader.only();
    let done = applied(&apply.1);
    reader.reply(apply, done);
    reader.revoke();
    reader.actions.clear();
    // The barrier moved nothing: somebody else owns the stream.
    reader.give(Input::Advanced(reader.session, Vec::new()));
    let told = reader.find(|action| match action {
        Action::Released(_, positions) => Some(positions.clone()),
        _ => None,
    });
    assert_eq!(told, []);
}

/// Proves INV-11.
#[test]
fn a_partition_that_runs_too_far_ahead_is_paused_until_half_of_it_is_finished() {
    let mut reader = Reader::new();
    let paused = |action: &Action| matches!(action, Action::Pause(_));
    let resumed = |action: &Action| matches!(action, Action::Resume(_));
    let count = i64::try_from(UNFINISHED).expect("few");
    // The second reading begins unpaused, whatever the first one was.
    for _ in 0..2 {
        (0..count).for_each(|offset| reader.read("a", offset));
        assert!(!reader.asked(paused));
        reader.read("a", count);
        assert!(reader.asked(paused));
        reader.lose();
        reader.open();
    }
    (0..=count).for_each(|offset| reader.read("a", offset));
    for _ in 0..2 {
        assert!(!reader.asked(resumed));
        let apply = reader.only();
        let done = applied(&apply.1);
        reader.reply(apply, done);
    }
    assert!(reader.asked(resumed), "one and ten of them are finished");
}

#[test]
fn a_record_to_stop_at_is_forgotten_with_its_reading() {
    let mut reader = Reader::new();
    reader.read("a", 0);
    reader.only();
    reader.read_as("a", 1, Content::Halt(Reason::UnmatchedHalt));
    reader.lose();
    reader.open();
    reader.actions.clear();
    reader.read("a", 0);
    reader.only();
}

#[test]
fn a_reply_without_one_verdict_per_event_stops_the_process_inv_5() {
    for verdicts in [vec![], vec![Verdict::Applied; 2]] {
        let mut reader = Reader::new();
        // GIVEN a group of one event
        reader.read("a", 0);
        let sent = reader.only();
        // WHEN a lane answers with fewer verdicts or more
        reader.reply(sent, GroupReply::Done { verdicts, gap: 0 });
        // THEN the process ends for a bug, and progress does not pass the event
        let stopped = |action: &Action| match action {
            Action::Stop(fault) => matches!(fault.kind, FaultKind::Bug(_)),
            _ => false,
        };
        assert!(reader.asked(stopped));
        reader.wait(RETRY);
        assert!(!reader.asked(|action| matches!(action, Action::Advance { .. })));
        let finished = |action: &Action| matches!(action, Action::Report(Report::Finished { .. }));
        assert!(!reader.asked(finished));
    }
}

#[test]
fn versions_that_were_missing_anywhere_in_a_group_are_reported_once() {
    let gap = |action: &Action| matches!(action, Action::Report(Report::VersionGap(_)));
    for (missing, reported) in [(0, 0), (3, 1)] {
        let mut reader = Reader::new();
        reader.read("a", 0);
        let sent = reader.only();
        let GroupReply::Done { verdicts, .. } = applied(&sent.1) else { unreachable!() };
        reader.reply(sent, GroupReply::Done { verdicts, gap: missing });
        assert_eq!(reader.actions.iter().filter(|action| gap(action)).count(), reported);
    }
}
