//! The barrier: what makes progress durable, and what refuses to.

use pgsluice::lanes::barrier::advance;
use pgsluice_core::fault::FaultKind;
use pgsluice_core::group::Progress;
use pgsluice_core::record::{NextOffset, OwnerEpoch};

use crate::place::{PATIENCE, Place, progress};
use pgsluice_testkit::postgres::Postgres;

#[test]
fn the_barrier_moves_progress_with_its_anchor_and_never_back() {
    let place = Place::new("barrier");
    let (session, _end) = place.open();
    let claim = place.claim(&session, 0);
    assert_eq!((claim.next, claim.anchor), (NextOffset(0), None));
    let run = |progress: Progress| place.runtime.block_on(advance(&session, &[progress])).unwrap();

    assert_eq!(run(progress(&claim, 10)), [claim.stream]);
    assert_eq!(run(progress(&claim, 9)), []);
    let without_anchor = Progress { anchor: None, ..progress(&claim, 12) };
    assert_eq!(run(without_anchor), [claim.stream]);

    let again = place.claim(&session, 0);
    assert_eq!(again.next, NextOffset(12));
    assert_eq!(again.anchor, progress(&claim, 10).anchor);
    assert_eq!(again.epoch, OwnerEpoch(claim.epoch.0 + 1));
}

#[test]
fn the_barrier_is_refused_after_the_leads_backend_was_ended() {
    let place = Place::new("lead_ended");
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    place.lead_is_ended(&session);

    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    assert!(refused.is_err());
    assert_eq!(place.next_offset().as_deref(), Some("0"));
    place.end(end);
    let lane = place.runtime.block_on(session.lanes[1].prepared("select 1", &[]));
    assert_eq!(lane.unwrap_err().kind, FaultKind::Connection, "every lane ends with it");
    let slow = place.runtime.block_on(session.slow());
    assert_eq!(slow.unwrap_err().kind, FaultKind::Connection);
}

/// The trap: a server that crashes and is back within a second has lost what it acknowledged
/// asynchronously, and would gladly run a barrier that somebody sends on a new connection.
/// Proves INV-1.
#[test]
fn after_a_crash_and_a_quick_restart_the_old_session_advances_nothing() {
    let server = Postgres::own();
    let place = Place::on(&server, "crash", &[]);
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    place.database.execute("create table applied ()");
    let apply = session.lane().client().execute("insert into applied default values", &[]);
    place.runtime.block_on(apply).unwrap();

    server.kill9_all();
    server.start();

    assert!(place.runtime.block_on(advance(&session, &[progress(&claim, 10)])).is_err());
    assert_eq!(place.next_offset().as_deref(), Some("0"));
    place.end(end);
    let (fresh, _end) = place.open();
    assert_eq!(place.claim(&fresh, 0).next, NextOffset(0), "read again from durable progress");
}

/// Proves INV-1.
#[test]
fn the_barrier_is_refused_when_the_lock_is_lost() {
    let place = Place::new("lock_lost");
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    let unlock = "select $1::oid is not null and $2::oid is not null,
                         pg_advisory_unlock_all()::text";
    place.runtime.block_on(session.durable(unlock, &[], &[])).unwrap();

    let refused = place.runtime.block_on(advance(&session, &[progress(&claim, 10)]));
    assert_eq!(refused.unwrap_err().kind, FaultKind::LockNotSeen);
    assert_eq!(place.next_offset().as_deref(), Some("0"));
    assert_eq!(place.end(end).kind, FaultKind::LockNotSeen);
}

/// A cancelled wait for a synchronous standby is answered with success and a WARNING: the write
/// is there, but a failover would lose it.
/// Proves INV-1.
#[test]
fn a_warning_while_the_barrier_runs_means_it_is_not_durable() {
    let server = Postgres::own();
    let place = Place::on(&server, "standby", &[]);
    let name = &place.database.name;
    place.database.execute(&format!("alter database {name} set client_min_messages = error"));
    let (session, end) = place.open();
    let claim = place.claim(&session, 0);
    let mut other = place.database.connect();
    other.batch_execute("set synchronous_commit = local").unwrap();
    other.batch_execute("alter system set synchronous_standby_names = 'nobody'").unwrap();
    other.batch_execute("select pg_reload_conf()").unwrap();
    let lead = session.lead_backend();
    let cancel = std::thread::spawn(move || {
        pgsluice_testkit::wait::until("the barrier waits for the standby", PATIENCE, || {
            let waiting =
                "select 1 from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'";
            !other.query(waiting, &[&lead]).unwrap().is_empty()
        });
        other.execute("select pg_cancel_backend($1)", &[&lead]).unwrap();
    });

    // Until the setting has reached the server's processes the barrier is durable without waiting.
    let refused = (10..)
        .map(|next| place.runtime.block_on(advance(&session, &[progress(&claim, next)])))
        .find_map(Result::err);
    cancel.join().unwrap();
    // Not a deadline: the answer came, and it was the warning that spoiled it.
    assert_eq!(refused.map(|fault| fault.kind), Some(FaultKind::Connection));
    assert!(session.is_closed());
    place.end(end);
}
