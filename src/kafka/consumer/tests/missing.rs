//! Records that cannot be decoded before something else is known.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::faults::mocked;
use super::fixture::skipped;
use super::*;
use pgsluice_core::decode::{Decode, Decoded, Missing};
use pgsluice_core::record::Record;

/// Needs the schema that a value names, as in `schema 7`; any other value needs nothing.
#[derive(Default)]
struct BySchema(Mutex<BTreeSet<u128>>);

impl BySchema {
    fn know(&self, id: u128) -> Command {
        self.0.lock().unwrap().insert(id);
        Command::Learned(schema(id))
    }
}

impl Decode for BySchema {
    fn decode(&self, record: Record) -> Decoded {
        let value = std::str::from_utf8(record.value().unwrap()).unwrap();
        match value.strip_prefix("schema ").map(|id| id.parse().unwrap()) {
            Some(id) if !self.0.lock().unwrap().contains(&id) => {
                Decoded::Missing(schema(id), record)
            }
            _ => Decoded::Ready(skipped(record)),
        }
    }
}

fn schema(id: u128) -> Missing {
    Missing { kind: "schema", id }
}

/// A consumer with both partitions that decodes by schemas, of which it knows none.
fn started(broker: &Broker) -> (Running, Arc<BySchema>) {
    let decoder = Arc::new(BySchema::default());
    let running = Running::assigned(broker, 1 << 20);
    running.consumer.send(Command::Decode(Arc::clone(&decoder) as Arc<dyn Decode>));
    (running, decoder)
}

/// Waits until a partition is held for a schema.
fn until_missing(running: &mut Running, partition: i32, generation: u64, id: u128) {
    running.until("a partition that waits", |event| match event {
        PollEvent::Missing { partition: of, generation: under, missing } => {
            assert_eq!((of.partition, *under), (partition, Generation(generation)));
            assert_eq!(*missing, schema(id));
            true
        }
        _ => false,
    });
}

/// Offsets with their partitions and generations, by partition.
fn read(running: &Running) -> Vec<(i32, i64, u64)> {
    let of = |record: &Record| (record.partition.partition, record.offset.0, record.generation.0);
    let mut read: Vec<_> = running.events.iter().map(|event| of(&event.record)).collect();
    read.sort_by_key(|(partition, ..)| *partition);
    read
}

fn texts<const N: usize>(values: [&str; N]) -> impl Iterator<Item = String> {
    values.map(str::to_owned).into_iter()
}

#[test]
fn a_held_partition_passes_nothing_and_reads_on_from_the_record_that_waited() {
    let broker = mocked("mock-missing");
    broker.produce(texts(["a", "b", "schema 7", "c", "d"]));
    let (mut running, decoder) = started(&broker);
    running.seek(&broker, 1, 0, None);
    until_missing(&mut running, 0, 1, 7);
    // Neither the coordinator's own pause nor somebody else's schema lets it flow.
    running.consumer.send(Command::Pause(broker.partition(0)));
    running.consumer.send(Command::Resume(broker.partition(0)));
    running.consumer.send(decoder.know(8));
    broker.produce(texts(["e"]));
    // Two heartbeats are longer than positions take to be announced.
    for _ in 0..2 {
        running.until("a heartbeat", |event| {
            let position = match event {
                PollEvent::Positioned { next, .. } => next.0,
                _ => 0,
            };
            assert!(position <= 2, "announced {position} beyond the record that waits");
            assert!(!matches!(event, PollEvent::Missing { .. }), "told twice");
            matches!(event, PollEvent::Heartbeat)
        });
    }
    assert_eq!(running.offsets(), [0, 1]);
    // Nothing is fetched only to be dropped.
    let polled = polled_position(&running.consumer, 0);
    assert_eq!(polled, rdkafka::Offset::Offset(3));
    let held = running.budget.in_flight();
    assert_eq!(held, running.events.iter().map(|event| event.weight()).sum::<usize>());

    running.consumer.send(decoder.know(7));
    running.until_events(6);
    assert_eq!(running.offsets(), [0, 1, 2, 3, 4, 5]);
    running.close();
}

#[test]
fn what_the_next_record_misses_holds_the_partition_again() {
    let broker = mocked("mock-missing-twice");
    broker.produce(texts(["schema 7", "schema 8", "a"]));
    let (mut running, decoder) = started(&broker);
    running.seek(&broker, 1, 0, None);
    until_missing(&mut running, 0, 1, 7);
    running.consumer.send(decoder.know(7));
    until_missing(&mut running, 0, 1, 8);
    running.until_events(1);
    assert_eq!(running.offsets(), [0]);
    running.consumer.send(decoder.know(8));
    running.until_events(3);
    assert_eq!(running.offsets(), [0, 1, 2]);
    running.close();
}

#[test]
fn partitions_that_miss_the_same_go_on_together_and_others_flow_meanwhile() {
    let broker = mocked("mock-missing-two");
    let producer = broker.producer();
    broker.produce_to(&producer, 0, texts(["schema 7", "a"]));
    broker.produce_to(&producer, 1, texts(["b"]));
    let (mut running, decoder) = started(&broker);
    running.seek(&broker, 1, 0, None);
    until_missing(&mut running, 0, 1, 7);
    running.seek_partition(broker.partition(1), 2, 0, None);
    running.until_events(1);
    assert_eq!(read(&running), [(1, 0, 2)]);

    broker.produce_to(&producer, 1, texts(["schema 7", "c"]));
    until_missing(&mut running, 1, 2, 7);
    running.consumer.send(decoder.know(7));
    running.until_events(5);
    assert_eq!(read(&running), [(0, 0, 1), (0, 1, 1), (1, 0, 2), (1, 1, 2), (1, 2, 2)]);
    running.close();
}

#[test]
fn a_new_reading_of_a_held_partition_starts_where_it_is_told() {
    let broker = mocked("mock-missing-seek");
    broker.produce(texts(["a", "schema 7", "b"]));
    let (mut running, decoder) = started(&broker);
    running.seek(&broker, 1, 0, None);
    until_missing(&mut running, 0, 1, 7);
    running.seek(&broker, 2, 0, None);
    until_missing(&mut running, 0, 2, 7);
    running.consumer.send(decoder.know(7));
    running.until_events(4);
    assert_eq!(read(&running), [(0, 0, 1), (0, 0, 2), (0, 1, 2), (0, 2, 2)]);
    running.close();
}

#[test]
fn a_partition_that_goes_while_it_is_held_is_read_by_its_next_owner_only() {
    let broker = mocked("mock-missing-revoked");
    let producer = broker.producer();
    for partition in [0, 1] {
        broker.produce_to(&producer, partition, texts(["schema 7", "a"]));
    }
    let (mut first, decoder) = started(&broker);
    first.seek(&broker, 1, 0, None);
    until_missing(&mut first, 0, 1, 7);
    first.seek_partition(broker.partition(1), 1, 0, None);
    until_missing(&mut first, 1, 1, 7);

    let mut second = Running::start(&broker, 1 << 20);
    let revoked = first.until("a revocation", |event| matches!(event, PollEvent::Revoked { .. }));
    let PollEvent::Revoked { partitions, ticket, lost: false } = revoked else { panic!() };
    first.consumer.send(Command::Released { ticket, commits: Vec::new() });
    while second.assigned.is_empty() {
        first.listen(Duration::from_millis(20));
        second.until("an assignment", |event| matches!(event, PollEvent::Assigned(_)));
    }
    assert_eq!(second.assigned, partitions);
    let [gone] = &*partitions else { panic!("{partitions:?}") };
    let kept = 1 - gone.partition;

    first.consumer.send(decoder.know(7));
    first.until_events(2);
    second.seek_partition(gone.clone(), 1, 0, None);
    second.until_events(2);
    first.obeyed();
    assert_eq!(read(&first), [(kept, 0, 1), (kept, 1, 1)]);
    assert_eq!(read(&second), [(gone.partition, 0, 1), (gone.partition, 1, 1)]);
    first.close();
    second.close();
}
