//! Kafka clients: settings, positions, the dead letter producer.
