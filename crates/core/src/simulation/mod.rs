//! The product's decisions under simulation: the real [`super::state::State`] of one to three
//! processes, the slow lane's real [`super::course::Course`] and the real table from fault
//! to decision, driven through seeded interleavings. Only Kafka and Postgres are models.
//!
//! Each seed draws its own world: sizes, policies, odd records and a mix of faults. A checker sees
//! every row before it is stored and keeps the first broken invariant. After a storm of faults
//! comes a calm in which everything pending must complete; then every process drains, and what is
//! stored is compared with an oracle of its own, written from the contract.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `swarm.rs` | the dice, and the mix drawn for a run |
//! | `workload.rs` | the records in Kafka |
//! | `model_kafka.rs` | group, committed offsets, consumer threads |
//! | `model_postgres.rs`, `model_statement.rs` | tables, statements, flush and crash |
//! | `model_transaction.rs` | the slow lane's transactions, which follow the product's `Course` |
//! | `model_sessions.rs` | connections, and what becomes of statements without a client |
//! | `process.rs` | one process around its coordinator |
//! | `runs.rs` | the random runs, and the replay of one |
//! | `scheduler.rs`, `weather.rs` | who moves next; what goes wrong; the calm after it |
//! | `checker.rs`, `oracle.rs` | the invariants, and the right end of a run |
//! | `scenarios.rs` | hard cases, scripted |
//! | `mutations.rs` | every guard removed once ([`crate::guard`]): somebody must notice |
//!
//! `PGSLUICE_SIM_SEED=n cargo test --lib simulation -- --nocapture` replays one seed and tells its
//! story; `PGSLUICE_SIM_SEEDS=n` sets how many seeds the random run tries.

mod checker;
mod model_kafka;
mod model_postgres;
mod model_sessions;
mod model_statement;
mod model_transaction;
mod mutations;
mod oracle;
mod process;
mod runs;
mod scenarios;
mod scheduler;
mod swarm;
mod weather;
mod workload;
