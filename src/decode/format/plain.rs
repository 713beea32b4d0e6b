//! `plain`: any JSON. The key names the aggregate, the value is its state.

use std::borrow::Cow;

use super::Profile;
use crate::decode::encoding::canonical::canonical;
use crate::decode::source::storable;
use pgsluice_core::record::Record;
use pgsluice_core::verdict::Reason;

/// How records of the format are read.
pub(super) const PROFILE: Profile = Profile {
    strict: false,
    misshapen: |_| None,
    id_of_key: Some(id_of_key),
    // A record without key is its own aggregate, which ends with it.
    deletes: |record| record.key().is_some(),
};

/// A JSON key in canonical text, another one as it is; a null key makes the record its own
/// aggregate, `partition/offset`.
fn id_of_key(record: &Record) -> Result<Cow<'_, str>, Reason> {
    let Some(key) = record.key() else {
        return Ok(Cow::Owned(format!("{}/{}", record.partition.partition, record.offset.0)));
    };
    let text = storable(key).ok_or(Reason::KeyEncoding)?;
    Ok(canonical(text).map_or(Cow::Borrowed(text), Cow::Owned))
}
