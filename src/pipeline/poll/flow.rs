//! Pausing and resuming partitions in librdkafka.

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::member::Member;
use crate::kafka::faults::describe;
use crate::record::TopicPartition;

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
pub(super) fn resume<'a>(
    member: &Member,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) {
    let list = list(partitions);
    if list.count() > 0
        && let Err(error) = member.resume(&list)
    {
        tracing::debug!(event = "flow_refused", error = describe(&error), "resume refused");
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
