//! The headers a dead letter carries in its topic: Kafka Connect's names first, so that tools
//! made for Connect read it, then ours. Values are text. None holds anything of the payload
//! (INV-9); the aggregate id is there because the topic's readers need it, and the record's own
//! key is in the topic anyway.

use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};

use crate::store::letter::publication::StoredLetter;
use pgsluice_core::verdict::Reason;

/// Says why a letter is published otherwise than it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it was read.
    Whole,
    /// With the time of publishing, because the broker refuses the record's own.
    Retimed,
    /// Without value and own headers, because the broker refuses the record.
    Pointer,
}

/// The record's own headers and ours behind them; a reader takes the last of a name. A pointer
/// leaves the record's own out: they may be what makes it too large.
pub(super) fn headers(letter: &StoredLetter, form: Form) -> OwnedHeaders {
    let context = context(letter, form);
    let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len() + context.len());
    if form != Form::Pointer {
        for header in &letter.headers {
            headers =
                headers.insert(KafkaHeader { key: &header.name, value: header.value.as_deref() });
        }
    }
    for (name, value) in &context {
        headers = headers.insert(KafkaHeader { key: name, value: Some(value.as_bytes()) });
    }
    headers
}

/// Our headers, in their order. What is not known is left out.
fn context(letter: &StoredLetter, form: Form) -> Vec<(&'static str, String)> {
    let mut found = Vec::with_capacity(24);
    let mut put = |name, value: Option<String>| {
        if let Some(value) = value {
            found.push((name, value));
        }
    };
    let stage = stage(&letter.reason);
    put("__connect.errors.topic", Some(letter.topic.clone()));
    put("__connect.errors.partition", Some(letter.partition.to_string()));
    put("__connect.errors.offset", Some(letter.id.offset.0.to_string()));
    put("__connect.errors.connector.name", Some(letter.group.clone()));
    put("__connect.errors.task.id", Some("0".to_owned()));
    put("__connect.errors.stage", Some(stage.to_owned()));
    put("__connect.errors.class.name", Some("pgsluice".to_owned()));
    put("__connect.errors.exception.class.name", Some(format!("pgsluice.{}", letter.reason)));
    put("__connect.errors.exception.message", Some(message(letter)));
    put("pgsluice.dedupe", Some(dedupe(letter)));
    put("pgsluice.group", Some(letter.group.clone()));
    put("pgsluice.reason", Some(letter.reason.clone()));
    put("pgsluice.sqlstate", letter.sqlstate.clone());
    put("pgsluice.constraint", letter.constraint.clone());
    put("pgsluice.aggregate.type", letter.aggregate_type.clone());
    put("pgsluice.aggregate.id", letter.aggregate_id.clone());
    put("pgsluice.aggregate.version", letter.aggregate_version.map(|v| v.to_string()));
    put("pgsluice.disposition", Some(letter.disposition.clone()));
    put("pgsluice.attempts", Some(letter.attempts.to_string()));
    put("pgsluice.redrives", Some(letter.redrives.to_string()));
    put("pgsluice.first-failed-at", Some(letter.first_failed_at.to_string()));
    put("pgsluice.failed-at", Some(letter.failed_at.to_string()));
    match form {
        Form::Whole => {}
        Form::Retimed => put("pgsluice.timestamp", letter.timestamp.map(|t| t.to_string())),
        // Where to find it: the row's key.
        Form::Pointer => put(
            "pgsluice.pointer",
            Some(format!("dead_letter_t/{}/{}", letter.id.stream.0, letter.id.offset.0)),
        ),
    }
    found
}

/// Names the record for good, whoever publishes it and however often:
/// `cluster/group/topic/log-epoch/partition/offset`.
fn dedupe(letter: &StoredLetter) -> String {
    let cluster = letter.cluster_id.as_deref().unwrap_or("-");
    let StoredLetter { group, topic, log_epoch, partition, .. } = letter;
    format!("{cluster}/{group}/{topic}/{log_epoch}/{partition}/{}", letter.id.offset.0)
}

/// What was wrong, made of codes and names.
fn message(letter: &StoredLetter) -> String {
    let mut text = letter.reason.clone();
    for (name, value) in [("sqlstate", &letter.sqlstate), ("constraint", &letter.constraint)] {
        if let Some(value) = value {
            text.push_str(", ");
            text.push_str(name);
            text.push(' ');
            text.push_str(value);
        }
    }
    text
}

/// Kafka Connect's name of the stage that failed. An unknown reason (written by another version)
/// counts as applying.
fn stage(reason: &str) -> &'static str {
    match Reason::parse(reason) {
        Some(Reason::KeyEncoding) => "KEY_CONVERTER",
        Some(
            Reason::JsonSyntax
            | Reason::JsonDepth
            | Reason::JsonText
            | Reason::JsonShape
            | Reason::HeaderEncoding
            | Reason::FieldMissing
            | Reason::FieldInvalid
            | Reason::VersionMissing
            | Reason::VersionInvalid
            | Reason::TombstoneRefused
            | Reason::RecordTooLarge,
        ) => "VALUE_CONVERTER",
        _ => "TASK_PUT",
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::relay::tests::letter;
    use pgsluice_core::record::Header;

    fn named(headers: &OwnedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    }

    /// Proves INV-6.
    #[test]
    fn the_records_own_headers_come_first_and_unchanged() {
        let mut letter = letter(7);
        letter.headers = vec![
            Header { name: "a".into(), value: None },
            Header { name: "pgsluice.reason".into(), value: Some(Box::from(&b"x"[..])) },
            Header { name: "a".into(), value: Some(Box::from(&b""[..])) },
        ];
        let found = named(&headers(&letter, Form::Whole));
        assert_eq!(found[0], ("a".to_owned(), None));
        assert_eq!(found[1], ("pgsluice.reason".to_owned(), Some(b"x".to_vec())));
        assert_eq!(found[2], ("a".to_owned(), Some(Vec::new())));
        let last = found.iter().rev().find(|(name, _)| name == "pgsluice.reason").unwrap();
        assert_eq!(last.1.as_deref(), Some(&b"constraint_violation"[..]));
    }

    #[test]
    fn the_context_is_complete_and_in_connects_order() {
        let names: Vec<_> = context(&letter(7), Form::Whole).into_iter().collect();
        let text: Vec<String> =
            names.iter().map(|(name, value)| format!("{name}={value}")).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn a_pointer_carries_no_header_of_the_record() {
        let mut letter = letter(7);
        letter.headers = vec![Header { name: "huge".into(), value: None }];
        let found = named(&headers(&letter, Form::Pointer));
        assert!(found.iter().all(|(name, _)| name != "huge"));
        let pointer = found.iter().find(|(name, _)| name == "pgsluice.pointer").unwrap();
        assert_eq!(pointer.1.as_deref(), Some(&b"dead_letter_t/3/7"[..]));
    }

    #[test]
    fn a_decode_failure_has_the_stage_that_connect_would_give_it() {
        assert_eq!(stage("json_syntax"), "VALUE_CONVERTER");
        assert_eq!(stage("key_encoding"), "KEY_CONVERTER");
        assert_eq!(stage("constraint_violation"), "TASK_PUT");
    }
}
