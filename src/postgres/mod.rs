//! Database sessions, faults and migrations.
