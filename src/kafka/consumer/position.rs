//! Positions: setting them, announcing where the consumer stands, and finding out which log lost
//! one.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::flow::{pause, resume};
use super::member::Member;
use super::reading::{Reading, Seeking, Span};
use super::thread::Poller;
use super::trouble::ASK_TIMEOUT;
use crate::kafka::faults::describe;
use pgsluice_core::backoff::Backoff;
use pgsluice_core::record::{NextOffset, TopicPartition};
use pgsluice_core::source::PollEvent;

/// Between attempts to set a position. A partition just assigned refuses a seek until its
/// fetcher has started, a few milliseconds later.
const SEEK_RETRY: Duration = Duration::from_millis(10);
/// After this long a partition that keeps refusing is assigned anew.
const SEEK_PATIENCE: Duration = Duration::from_secs(2);
/// How long assigning anew takes librdkafka, generously: it is done within the process. A seek
/// before that could be undone by it.
const RESTART_TIME: Duration = Duration::from_millis(250);
/// How often positions beyond the last record are looked for.
const POSITION_ROUND: Duration = Duration::from_millis(500);
/// Waits before an unreadable batch is fetched again, without jitter.
const REFETCH: Backoff =
    Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) };
/// Without an unreadable batch for this long, the wait starts over.
const REFETCH_MEMORY: Duration = Duration::from_secs(120);

impl Poller {
    /// Sets the positions that are due, and lets their partitions flow.
    pub(super) fn seek_due(&mut self) {
        // Without a decoder nothing may flow: positions wait for it.
        if !self.may_flow() {
            return;
        }
        let now = Instant::now();
        for reading in self.readings.iter_mut() {
            let Some(seeking) = reading.seeking.filter(|seeking| seeking.due <= now) else {
                continue;
            };
            if reading.stopped || now.duration_since(seeking.since) > SEEK_PATIENCE {
                assign_anew(&self.member, reading);
                reading.restarting(now + RESTART_TIME);
                continue;
            }
            match place(&self.member, reading) {
                Ok(()) => reading.seeking = None,
                Err(error) => {
                    let (error, partition) = (describe(&error), &reading.partition);
                    tracing::debug!(event = "position_refused", error, %partition, "position not set yet");
                    reading.seeking = Some(Seeking { due: now + SEEK_RETRY, ..seeking });
                }
            }
        }
    }

    /// Tells the run loop where the consumer stands when that is beyond the last record.
    pub(super) fn announce_positions(&mut self) {
        let now = Instant::now();
        if now < self.positions_due {
            return;
        }
        self.positions_due = now + POSITION_ROUND;
        let Ok(positions) = self.member.position() else { return };
        for position in positions.elements() {
            let Offset::Offset(next) = position.offset() else { continue };
            let reading = self.readings.get(position.topic(), position.partition());
            if let Some(reading) = reading
                && let Some(generation) = reading.reach(next)
            {
                let partition = reading.partition.clone();
                let next = NextOffset(next);
                self.events.send(PollEvent::Positioned { partition, generation, next }).ok();
            }
        }
    }

    /// Finds the readings whose position is not in their log. librdkafka names no partition when
    /// it gives up, so every one is compared with its log.
    pub(super) fn check_spans(&mut self) {
        if self.span_check_due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.span_check_due = None;
        let mut answered = true;
        let mut lacking = 0;
        for reading in self.readings.iter_mut().filter(|reading| reading.is_flowing()) {
            let TopicPartition { topic, partition } = &reading.partition;
            let Ok((low, high)) = self.member.fetch_watermarks(topic, *partition, ASK_TIMEOUT)
            else {
                // Every further question would wait as long: ask again later.
                answered = false;
                break;
            };
            let generation = reading.generation;
            if let (Span::Lacks, Some(generation)) = (reading.compare(low, high), generation) {
                let partition = reading.partition.clone();
                reading.end();
                reading.stopped = true;
                lacking += 1;
                self.events.send(PollEvent::LogChanged { partition, generation }).ok();
            }
        }
        if !answered {
            self.span_check_due = Some(Instant::now() + Duration::from_secs(1));
        } else if lacking == 0 {
            // The error was about a position that is fine by now, or an anchor that retention
            // took. Whichever partition it was stands still: start them all again.
            self.fetch_again(Instant::now(), true);
        }
    }

    /// An unreadable batch: librdkafka would go on behind it. Fetches everything again from where
    /// it stands, later and later, so that nothing is skipped; it works once the batch can be
    /// read, and until then the other partitions go on between the attempts.
    pub(super) fn refetch(&mut self) {
        let now = Instant::now();
        let times = match self.corrupt {
            Some((times, seen)) if now.duration_since(seen) < REFETCH_MEMORY => {
                times.saturating_add(1)
            }
            Some(_) | None => 1,
        };
        self.corrupt = Some((times, now));
        self.fetch_again(now + REFETCH.ceiling(times), false);
    }

    /// Sets every position again, by a new assignment when fetching may have stopped.
    fn fetch_again(&mut self, due: Instant, stopped: bool) {
        for reading in self.readings.iter_mut().filter(|reading| reading.is_flowing()) {
            // Until then records of it are dropped; fetching them would be in vain.
            pause(&self.member, [&reading.partition]);
            reading.stopped = stopped;
            reading.seeking = Some(Seeking { since: due, due });
        }
    }
}

/// Sets a paused reading's position and lets it flow, unless it is held. After an error it is
/// paused.
fn place(member: &Member, reading: &Reading) -> KafkaResult<()> {
    // First, because where it stands may not be in its log: nothing must be fetched from there.
    seek(member, reading)?;
    if reading.held {
        return Ok(());
    }
    resume(member, [&reading.partition]);
    // Again, because a seek makes librdkafka look at the partition at once and resuming it does
    // not. Nothing is polled in between.
    seek(member, reading).inspect_err(|_| pause(member, [&reading.partition]))
}

/// Sets a reading's position. What was fetched before is thrown away, and the consumer's position
/// is unknown again until a record was polled, both before this returns.
fn seek(member: &Member, reading: &Reading) -> KafkaResult<()> {
    let TopicPartition { topic, partition } = &reading.partition;
    member.seek(topic, *partition, Offset::Offset(reading.fetch_from()), ASK_TIMEOUT)
}

/// Takes a partition out of the assignment and puts it back, which starts its fetching again;
/// group and broker notice neither. It stays paused: only a seek that succeeded after the
/// restart proves that nothing of the time before can be polled any more.
fn assign_anew(member: &Member, reading: &Reading) {
    pause(member, [&reading.partition]);
    let TopicPartition { topic, partition } = &reading.partition;
    let mut list = TopicPartitionList::new();
    let from = Offset::Offset(reading.fetch_from());
    let done = list
        .add_partition_offset(topic, *partition, from)
        .and_then(|()| member.incremental_unassign(&list))
        .and_then(|()| member.incremental_assign(&list));
    if let Err(error) = done {
        let (error, partition) = (describe(&error), &reading.partition);
        tracing::debug!(
            event = "position_refused",
            error,
            %partition,
            "partition not reassigned yet"
        );
    }
    pause(member, [&reading.partition]);
}
