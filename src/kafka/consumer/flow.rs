//! Pausing and resuming partitions in librdkafka.

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::member::Member;
use crate::kafka::faults::describe;
use pgsluice_core::record::TopicPartition;

/// Pauses partitions; what was prefetched of them is thrown away and fetched again later.
pub(super) fn pause<'a>(member: &Member, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
    let list = list(partitions);
    if list.count() > 0
        && let Err(error) = member.pause(&list)
    {
        tracing::debug!(event = "flow_refused", error = describe(&error), "pause refused");
    }
}

/// Resumes partitions.
///
/// librdkafka drops the operation, and reports success, when its own thread pauses or resumes the
/// partition for a rebalance at the same moment (librdkafka issue 5591). Asking twice finds a
/// partition that is still paused, and does nothing to one that is not.
pub(super) fn resume<'a>(
    member: &Member,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) {
    let list = list(partitions);
    for _ in 0..2 {
        if list.count() > 0
            && let Err(error) = member.resume(&list)
        {
            tracing::debug!(event = "flow_refused", error = describe(&error), "resume refused");
        }
    }
}

/// Partitions as librdkafka takes them.
pub(super) fn list<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}
