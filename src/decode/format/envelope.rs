//! `envelope`: a JSON domain event, an object whose envelope stands beside the payload's members.

use super::Profile;
use pgsluice_core::verdict::Reason;

/// How records of the format are read.
pub(super) const PROFILE: Profile = Profile {
    strict: true,
    misshapen: |document| (!document.is_object()).then_some(Reason::JsonShape),
    id_of_key: None,
    deletes: |_| true,
};
