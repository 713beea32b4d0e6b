//! Publishes dead letters from the table to their topic.
