//! [`State::check`] notices what it is there to notice.

use super::*;
use crate::state::sessions::Current;

/// Something that must never be, and how to bring it about.
type Corruption = (&'static str, fn(&mut State));

/// A reader with a group in flight, one that waits for a retry, and an event behind each.
fn busy_reader() -> Reader {
    let mut reader = Reader::new();
    reader.read("stuck", 0);
    reader.fails();
    reader.read("stuck", 1);
    reader.read("a", 2);
    reader.read("a", 3);
    reader
}

#[test]
fn books_that_do_not_add_up_are_noticed() {
    let corruptions: [Corruption; 9] = [
        ("a key without its group", |state| drop(state.work.retries.pop())),
        ("a busy key that may go", |state| {
            let (_, group) = &state.work.retries[0];
            state.work.queue.release(&group.order.clone());
        }),
        ("weight in flight", |state| state.work.weight_in_flight += 1),
        ("requests", |state| state.work.fast_in_flight += 1),
        ("groups in flight", |state| first(state).in_flight += 1),
        ("a record that nobody works on", |state| {
            assert!(first(state).frontier.deliver(Offset(9)));
        }),
        ("work of a former reading", |state| first(state).generation = Generation(99)),
        ("a barrier beyond what is finished", |state| {
            let (name, partition) = state.partitions.first_key_value().unwrap();
            let sent = Sent {
                partition: name.clone(),
                generation: partition.generation,
                stream: StreamId(1),
                next: NextOffset(7),
            };
            state.barrier.send(Duration::ZERO, vec![sent]);
        }),
        ("work without a session", |state| state.sessions.current = Current::Opening(SessionId(1))),
    ];
    for (what, corrupt) in corruptions {
        let mut reader = busy_reader();
        assert_eq!(reader.state.check(), Ok(()));
        corrupt(&mut reader.state);
        assert!(reader.state.check().is_err(), "nobody noticed: {what}");
    }
}

fn first(state: &mut State) -> &mut Partition {
    state.partitions.values_mut().next().unwrap()
}

#[test]
fn weight_that_is_freed_twice_is_noticed() {
    let mut reader = busy_reader();
    reader.state.free(1);
    reader.actions.extend(reader.state.on(reader.now, Input::Tick));
    assert!(reader.state.check().is_err());
}

#[test]
fn a_revocation_that_the_group_gave_up_on_leaves_nothing_behind() {
    let other = TopicPartition { partition: 1, ..partition() };
    let ends: [fn(TopicPartition) -> Input; 2] = [
        |other| Input::Assigned(vec![other]),
        |other| Input::Revoked { partitions: vec![other], ticket: RevokeTicket(2), lost: true },
    ];
    for end in ends {
        let mut reader = Reader::new();
        reader.give(Input::Assigned(vec![other.clone()]));
        let generation = reader.find(|action| match action {
            Action::Take { partitions, .. } => Some(partitions[0].1),
            _ => None,
        });
        let claim =
            Claim { stream: StreamId(2), epoch: OwnerEpoch(1), next: NextOffset(0), anchor: None };
        let taken = (other.clone(), generation, TakeReply::Claimed(claim));
        reader.give(Input::Taken(reader.session, vec![taken]));
        // GIVEN one partition that is given up at once, and one that waits for a group in flight
        reader.generation = generation;
        reader.read_from(other.clone(), ("a", 0), write());
        let partitions = vec![partition(), other.clone()];
        reader.give(Input::Revoked { partitions, ticket: RevokeTicket(1), lost: false });
        assert!(!reader.released());
        // WHEN the group does not wait any longer
        reader.give(end(other.clone()));
        // THEN nothing is kept for an answer that nobody wants
        assert!(reader.state.released.is_empty());
    }
}
