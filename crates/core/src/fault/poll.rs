//! What can fail at Kafka. Which error codes mean what is for the room to say that knows them.

/// What to do about an error that a poll returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PollFault {
    /// Not a failure.
    Notice,
    /// librdkafka recovers from it: brokers away, leaders moving, time-outs.
    Transient,
    /// Membership is lost; a revocation and a new assignment follow.
    LostOwnership,
    /// Some partition's position is not in its log.
    Reposition,
    /// A batch could not be read. librdkafka would go on behind it: fetch again instead.
    Corrupt,
    /// An operator has to act (authorization, a missing topic); librdkafka keeps trying.
    Operator,
    /// librdkafka cannot recover from it and keeps trying: reported like `Operator`, unless it
    /// ends a start. What librdkafka has given up itself (a fatal error) ends the process.
    Exit,
}
