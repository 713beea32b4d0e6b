//! What librdkafka's error codes mean while polling, committing and producing.
//!
//! The tables are pure and complete: `tests/fixtures/faults_rdkafka.tsv` holds the outcome
//! wanted for every code, and the tests compare. A code that is in no list is transient: it is
//! reported and librdkafka goes on, so an unknown code never stops or skips anything.
//!
//! A limit that cannot be closed from safe code: rdkafka-sys declares `rd_kafka_resp_err_t` as a
//! Rust enum, and librdkafka hands on a broker's number that it does not know itself, so such a
//! number would be an invalid value inside the crate before any of our code sees it. What holds:
//!
//! - No code of ours turns a number into that enum unchecked, and the enum has every code of the
//!   librdkafka that is linked: tests hold the list of its numbers and the version together. An
//!   upgrade that brings codes fails them until they are decided.
//! - With rdkafka-sys 4.10.0 and librdkafka 2.12.1 the numbers of Kafka 4.3's protocol that are
//!   missing are those of [`MISSING`]. All but one belong to requests that this client does not
//!   make, or not in the form that is answered so.
//! - That one is 103 (`INCONSISTENT_TOPIC_ID`): the answer to a fetch of a topic that was deleted
//!   and created again, from a broker that has not heard of it yet. librdkafka passes it on as a
//!   consumer error, `rd_kafka_message_t.err`. No property keeps librdkafka from fetching by topic
//!   id. The other paths of an error from a broker (commits, delivery reports, metadata, offsets,
//!   admin answers) have no missing number in the versions that librdkafka speaks.
//!
//! So keep the crate current when brokers are upgraded, and stop the daemon before a topic is
//! deleted to be created again.

use pgsluice_core::fault::PollFault;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Numbers of Kafka 4.3's error codes that the client does not know. They are about brokers and
/// controllers among themselves (98, 99, 101, 102, 104, 107 to 109, 114 to 116, 119, 125 to 127), transactions and
/// fetch sessions, which this client does not use (105, 106, 120), share and streams groups (121 to
/// 124, 130 to 133), patterns of the newer group protocol (128), and topic ids (103).
pub const MISSING: [i32; 28] = [
    98, 99, 101, 102, 103, 104, 105, 106, 107, 108, 109, 114, 115, 116, 119, 120, 121, 122, 123,
    124, 125, 126, 127, 128, 130, 131, 132, 133,
];

/// Classifies an error code that a poll returned.
pub fn on_poll(code: Code) -> PollFault {
    match code {
        Code::NoError
        | Code::BrokerDestroy
        | Code::PartitionEOF
        | Code::NodeUpdate
        | Code::AssignPartitions
        | Code::RevokePartitions
        | Code::NoOffset
        | Code::Outdated
        | Code::NoEnt
        | Code::Noop
        | Code::TopicAlreadyExists
        | Code::SecurityDisabled
        | Code::GroupIdNotFound
        | Code::ElectionNotNeeded
        | Code::NoReassignmentInProgress
        | Code::UnknownSubscriptionId
        | Code::TelemetryTooLarge => PollFault::Notice,
        Code::UnknownPartition
        | Code::PollExceeded
        | Code::AssignmentLost
        | Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedMemberEpoch => PollFault::LostOwnership,
        Code::AutoOffsetReset | Code::LogTruncation | Code::OffsetOutOfRange => {
            PollFault::Reposition
        }
        Code::BadMessage
        | Code::BadCompression
        | Code::Underflow
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::UnsupportedCompressionType => PollFault::Corrupt,
        Code::UnknownTopic
        | Code::UnknownGroup
        | Code::UnknownTopicOrPartition
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::DelegationTokenExpired
        | Code::ResourceNotFound
        | Code::PrincipalDeserializationFailure => PollFault::Operator,
        _ if is_exit(code) => PollFault::Exit,
        _ => PollFault::Transient,
    }
}

/// Whether a poll's error ends a process that was never a member of its group: the group or the
/// brokers refuse what is configured. Refused credentials are waited for, as the database's are,
/// until `postgres.startup_timeout`: somebody may be setting them up at the same time.
pub fn ends_a_start(code: Code) -> bool {
    let credentials = matches!(
        code,
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnacceptableCredential
    );
    on_poll(code) == PollFault::Exit && !credentials
}

/// Codes that no further attempt of this process can mend, our own bugs among them.
fn is_exit(code: Code) -> bool {
    matches!(
        code,
        Code::CriticalSystemResource
            | Code::FileSystem
            | Code::InvalidArgument
            | Code::UnknownProtocol
            | Code::NotImplemented
            | Code::Authentication
            | Code::UnsupportedFeature
            | Code::Fatal
            | Code::NotConfigured
            | Code::Fenced
            | Code::InvalidTopic
            | Code::InconsistentGroupProtocol
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::ClusterAuthorizationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::UnsupportedVersion
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidConfig
            | Code::UnsupportedForMessageFormat
            | Code::PolicyViolation
            | Code::SaslAuthenticationFailed
            | Code::DelegationTokenAuthDisabled
            | Code::DelegationTokenNotFound
            | Code::DelegationTokenOwnerMismatch
            | Code::DelegationTokenRequestNotAllowed
            | Code::DelegationTokenAuthorizationFailed
            | Code::InvalidPrincipalType
            | Code::GroupMaxSizeReached
            | Code::FencedInstanceId
            | Code::UnacceptableCredential
            | Code::UnreleasedInstanceId
            | Code::UnsupportedAssignor
            // Bugs of ours.
            | Code::ExistingSubscription
            | Code::Conflict
            | Code::State
            | Code::KeySerialization
            | Code::ValueSerialization
            | Code::KeyDeserialization
            | Code::ValueDeserialization
            | Code::ReadOnly
            | Code::InvalidType
            | Code::Inconsistent
            | Code::Application
            | Code::InvalidRequest
            | Code::DuplicateResource
    )
}

/// The name of a code: one of a closed list, without the client's own text (INV-9).
pub fn name(code: Code) -> Box<str> {
    format!("{code:?}").into()
}

/// What to do about offsets that could not be committed. They only mirror the database's progress,
/// so nothing that is wrong with them stops anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitFault {
    /// Not a failure.
    Notice,
    /// The group has gone on without this commit. Partitions that are another member's by now are
    /// forgotten; of those that stayed commit again.
    LostOwnership,
    /// Commit again later: librdkafka's own trouble, a rebalance, or an operator's business.
    Retry,
}

/// Classifies the error code of a failed commit.
pub fn on_commit(code: Code) -> CommitFault {
    match code {
        Code::NoError
        | Code::BrokerDestroy
        | Code::NodeUpdate
        | Code::NoOffset
        | Code::NoEnt
        | Code::Noop
        | Code::GroupIdNotFound => CommitFault::Notice,
        Code::UnknownPartition
        | Code::Outdated
        | Code::PollExceeded
        | Code::AssignmentLost
        | Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedMemberEpoch => CommitFault::LostOwnership,
        _ => CommitFault::Retry,
    }
}

/// What to do about a letter that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProduceFault {
    /// The broker has it already.
    Delivered,
    /// The record itself is refused: publish a pointer to it instead.
    Record,
    /// The broker refuses the record's timestamp: publish it with the current time.
    Timestamp,
    /// The producer is spent (an idempotence error): make a new one and send again.
    NewClient,
    /// Send again later. Letters stay in the table, so this holds for everything else, an
    /// operator's business (authorization, a missing topic) included.
    Retry,
}

/// Classifies the error code of a failed delivery.
pub fn on_produce(code: Code) -> ProduceFault {
    match code {
        Code::NoError | Code::DuplicateSequenceNumber => ProduceFault::Delivered,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord => ProduceFault::Record,
        Code::InvalidTimestamp => ProduceFault::Timestamp,
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::ProducerFenced => ProduceFault::NewClient,
        _ => ProduceFault::Retry,
    }
}

/// A Kafka error as text that is safe to log: the crate's own text of a refused property holds
/// the property's value, which may be a password.
pub fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, property, _) => {
            format!(
                "property {property} rejected: {}",
                reason.split(':').next().unwrap_or_default()
            )
        }
        _ => match error.rdkafka_error_code() {
            Some(code) => format!("{code:?}"),
            None => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::types::{RDKafkaConfRes, RDKafkaRespErr};

    use super::*;

    const GOLDEN: &str = include_str!("../../tests/fixtures/faults_rdkafka.tsv");

    /// (code, wanted while polling, while committing, while producing)
    fn golden() -> Vec<(Code, &'static str, &'static str, &'static str)> {
        GOLDEN
            .lines()
            .skip(1)
            .map(|line| {
                let cells: Vec<_> = line.split('\t').collect();
                let raw: i32 = cells[0].parse().unwrap();
                let code = Code::from(RDKafkaRespErr::try_from(raw).unwrap());
                (code, cells[2], cells[3], cells[4])
            })
            .collect()
    }

    #[test]
    fn every_number_that_the_crate_knows_has_a_row_and_no_other_number_becomes_a_code() {
        let rows: Vec<i32> = GOLDEN
            .lines()
            .skip(1)
            .map(|row| row.split('\t').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(rows.len(), 170);
        let known = |raw: &i32| RDKafkaRespErr::try_from(*raw).is_ok();
        // Three names of the enum are the ends of ranges, not errors.
        let ends = [-200, -100, 130];
        let listed: Vec<i32> =
            (-1000..1000).filter(known).filter(|raw| !ends.contains(raw)).collect();
        assert_eq!(listed, rows);
        // Up to the newest code of Kafka 4.3.
        let missing: Vec<i32> = (0..=133).filter(|raw| !rows.contains(raw)).collect();
        assert_eq!(missing, MISSING);
    }

    #[test]
    fn the_linked_librdkafka_is_the_one_that_the_list_of_codes_was_made_for() {
        let (linked, _) = rdkafka::util::get_rdkafka_version();
        assert_eq!(linked, rdkafka::bindings::RD_KAFKA_VERSION);
        assert_eq!(format!("{linked:08x}"), "020c01ff");
    }

    #[test]
    fn every_code_has_the_wanted_outcome_while_polling() {
        let mut wrong = BTreeMap::new();
        for (code, wanted, _, _) in golden() {
            let found = match on_poll(code) {
                PollFault::Notice => &["INFO"][..],
                PollFault::Transient => &["AUTO", "RETRY", "-"],
                PollFault::LostOwnership => &["REJOIN"],
                PollFault::Reposition => &["RESET"],
                PollFault::Corrupt => &["HALT-PART"],
                PollFault::Operator => &["HALT"],
                PollFault::Exit => &["EXIT", "BUG"],
            };
            if !found.contains(&wanted) {
                wrong.insert(format!("{code:?}"), (wanted, found));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_code_has_the_wanted_outcome_while_committing() {
        let mut wrong = BTreeMap::new();
        for (code, _, wanted, _) in golden() {
            let found = match on_commit(code) {
                CommitFault::Notice => &["INFO"][..],
                CommitFault::LostOwnership => &["REJOIN"],
                // A commit that an operator has to make possible is tried until then.
                CommitFault::Retry => &["RETRY", "AUTO", "-", "HALT", "EXIT", "BUG"],
            };
            if !found.contains(&wanted) {
                wrong.insert(format!("{code:?}"), (wanted, found));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn only_a_record_that_is_itself_refused_is_published_as_a_pointer() {
        let mut wrong = BTreeMap::new();
        for (code, _, _, wanted) in golden() {
            let found = on_produce(code);
            let right = match wanted {
                "EVENT" => matches!(found, ProduceFault::Record | ProduceFault::Timestamp),
                "NEWCLIENT" => found == ProduceFault::NewClient,
                _ => found != ProduceFault::Record,
            };
            if !right {
                wrong.insert(format!("{code:?}"), (wanted, found));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Proves INV-9.
    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let error = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value: hunter2".to_owned(),
            "sasl.password".to_owned(),
            "hunter2".to_owned(),
        );
        let text = describe(&error);
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
