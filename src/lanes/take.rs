//! Taking ownership of partitions, and where each is read on: the database's position over
//! Kafka's (INV-10).

use crate::postgres::session::Session;
use crate::store::sink::SinkId;
use crate::store::stream::{self, NewPosition, StreamRow};
use pgsluice_core::fault::{Fault, FaultKind, SqlState};
use pgsluice_core::input::{Claim, TakeReply};
use pgsluice_core::position::{KafkaPosition, PositionSource, Start, start_position};
use pgsluice_core::record::{Generation, NextOffset, StreamId, TopicPartition};

/// `lock_not_available`: a row lock was not had in time.
const LOCK_NOT_AVAILABLE: SqlState = SqlState(*b"55P03");

/// One partition to take.
#[derive(Debug, Clone)]
pub struct TakeRequest {
    /// The partition.
    pub partition: TopicPartition,
    /// The reading that follows; handed back with the reply.
    pub generation: Generation,
    /// What Kafka says of it.
    pub kafka: KafkaPosition,
}

/// A partition's answer, in the shape of [`pgsluice_core::input::Input::Taken`].
pub type Taken = (TopicPartition, Generation, TakeReply);

/// Takes ownership of partitions and finds where each is read on. `owner` is text for people.
///
/// Every request has exactly one reply, in the order of the requests. What is claimed is durable
/// when this returns: the former owner can move nothing any more.
///
/// # Errors
/// A fault that is not about one row; the session is over then.
pub async fn take(
    session: &Session,
    sink: SinkId,
    owner: &str,
    requests: Vec<TakeRequest>,
) -> Result<Vec<Taken>, Fault> {
    let partitions: Vec<TopicPartition> = requests.iter().map(|r| r.partition.clone()).collect();
    let claimed = match claim(session, sink, owner, &partitions).await {
        Ok(claimed) => claimed,
        // Somebody held the table or an index entry for longer than a row lock should last.
        Err(fault) if fault.kind == FaultKind::Server(LOCK_NOT_AVAILABLE) => Vec::new(),
        Err(fault) => {
            session.fail(fault.clone());
            return Err(fault);
        }
    };
    let decided: Vec<(TakeRequest, Option<(StreamRow, Start)>)> = requests
        .into_iter()
        .map(|request| {
            let row = claimed.iter().find(|(partition, _)| *partition == request.partition);
            let start = row.map(|(_, row)| (row.clone(), start_position(row.next, &request.kafka)));
            (request, start)
        })
        .collect();
    let moved = reposition(session, &decided).await?;
    Ok(decided
        .into_iter()
        .map(|(request, decided)| {
            let reply = match decided {
                None => TakeReply::Busy,
                Some((row, start)) => reply(&request.partition, &row, start, &moved),
            };
            (request.partition, request.generation, reply)
        })
        .collect())
}

async fn claim(
    session: &Session,
    sink: SinkId,
    owner: &str,
    partitions: &[TopicPartition],
) -> Result<Vec<(TopicPartition, StreamRow)>, Fault> {
    stream::create_streams(session, sink, partitions).await?;
    stream::claim(session, sink, owner, partitions).await
}

/// Writes the positions that differ from the database's; returns the streams that took them.
async fn reposition(
    session: &Session,
    decided: &[(TakeRequest, Option<(StreamRow, Start)>)],
) -> Result<Vec<StreamId>, Fault> {
    let positions: Vec<NewPosition> = decided
        .iter()
        .filter_map(|(_, decided)| match decided {
            Some((row, Start::Move(next, _))) => {
                Some(NewPosition { stream: row.stream, epoch: row.epoch, next: *next })
            }
            _ => None,
        })
        .collect();
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    stream::reposition(session, &positions).await.inspect_err(|fault| session.fail(fault.clone()))
}

fn reply(
    partition: &TopicPartition,
    row: &StreamRow,
    start: Start,
    moved: &[StreamId],
) -> TakeReply {
    let claim = |next, anchor| {
        TakeReply::Claimed(Claim { stream: row.stream, epoch: row.epoch, next, anchor })
    };
    match start {
        Start::Halt(reason) => TakeReply::Halted(reason, None),
        Start::Resume(next) => claim(next, row.anchor),
        // Taken over again before the position was written.
        Start::Move(..) if !moved.contains(&row.stream) => TakeReply::Busy,
        Start::Move(next, source) => {
            report_move(partition, row.next, next, source);
            claim(next, None)
        }
    }
}

fn report_move(
    partition: &TopicPartition,
    database: Option<NextOffset>,
    next: NextOffset,
    source: PositionSource,
) {
    match source {
        PositionSource::Operator => tracing::warn!(
            event = "position_moved",
            %partition,
            database = database.map(|next| next.0),
            committed = next.0,
            "an operator moved the group's offset; reading from there"
        ),
        PositionSource::Adopted => {
            tracing::info!(event = "position_adopted", %partition, next = next.0, "adopted the group's committed offset");
        }
        PositionSource::StartFrom => {
            tracing::info!(
                event = "position_chosen",
                %partition,
                next = next.0,
                "no position is known; reading from kafka.start_from"
            );
        }
    }
}
