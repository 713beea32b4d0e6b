//! What the configuration has to ask the Kafka client library: it alone knows its properties.

use super::KafkaConfig;

/// The client library's judgement of `[kafka.properties]`. [`super::load`] asks for it while it
/// reads, so that what the library refuses is listed among all other problems.
///
/// Whoever answers asks no broker, and names no value: it may be a secret (INV-9).
pub trait ClientLibrary {
    /// Whether the library takes this value for this property.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn accepts(&self, property: &str, value: &str) -> Result<(), String>;

    /// Whether the library makes clients of all properties. Asked only where nothing else is
    /// wrong with `[kafka]`.
    ///
    /// # Errors
    /// Why it does not.
    fn accepts_together(&self, kafka: &KafkaConfig) -> Result<(), PropertiesRefused>;
}

/// Why no client can be made of properties that are each fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertiesRefused {
    /// The property that has to change, if it can be told.
    pub property: Option<String>,
    /// A sentence for the operator.
    pub why: String,
}

/// Stands in for the library in tests of what lies below it: takes every property.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnyProperty;

#[cfg(test)]
impl ClientLibrary for AnyProperty {
    fn accepts(&self, _property: &str, _value: &str) -> Result<(), String> {
        Ok(())
    }

    fn accepts_together(&self, _kafka: &KafkaConfig) -> Result<(), PropertiesRefused> {
        Ok(())
    }
}
