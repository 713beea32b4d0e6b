//! The runner, with chores that tell what they do.

use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::*;
use pgsluice_core::fault::FaultKind;

const PATIENCE: Duration = Duration::from_secs(10);

/// A session is a number: turns on 1 fail, those on 2 never end.
struct Told(UnboundedSender<(u32, Instant)>);

impl Chore<u32> for Told {
    const NAME: &'static str = "told";
    const INTERVAL: Duration = Duration::from_millis(1);
    const AFTER_FAILURE: Backoff =
        Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(40) };

    async fn turn(&mut self, session: &u32) -> Result<(), Fault> {
        self.0.send((*session, Instant::now())).ok();
        match session {
            1 => Err(Fault::new(FaultKind::Connection)),
            2 => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

/// The next turn.
async fn next(turns: &mut UnboundedReceiver<(u32, Instant)>) -> (u32, Instant) {
    timeout(PATIENCE, turns.recv()).await.expect("a turn in time").expect("the chore runs")
}

fn started() -> (watch::Sender<Desk<u32>>, UnboundedReceiver<(u32, Instant)>, Piece) {
    let (sender, turns) = unbounded_channel();
    let desk = watch::Sender::new(Desk::default());
    let piece = with_sessions(Told(sender), desk.subscribe());
    (desk, turns, piece)
}

fn open_session(desk: &watch::Sender<Desk<u32>>, session: u32) {
    desk.send_modify(|desk| desk.letters = Some(Arc::new(session)));
}

#[tokio::test]
async fn a_chore_waits_for_a_session_leaves_one_that_is_gone_and_ends_with_the_loop() {
    let (desk, mut turns, piece) = started();
    let drive = async {
        tokio::task::yield_now().await;
        assert!(turns.try_recv().is_err(), "there is no session");
        // One whose turn never ends, and is closed.
        open_session(&desk, 2);
        assert_eq!(next(&mut turns).await.0, 2);
        desk.send_modify(|desk| desk.streams = Vec::new());
        open_session(&desk, 3);
        for _ in 0..3 {
            assert_eq!(next(&mut turns).await.0, 3);
        }
        drop(desk);
    };
    let (outcome, ()) = timeout(PATIENCE, futures_util::future::join(piece, drive)).await.unwrap();
    assert!(matches!(outcome, Outcome::Ended("told")));
}

#[tokio::test]
async fn a_chore_that_fails_is_done_later_and_later_and_at_its_pace_once_it_works() {
    let (desk, mut turns, piece) = started();
    let drive = async {
        open_session(&desk, 1);
        let mut before = next(&mut turns).await.1;
        for at_least in [20, 40, 40] {
            let (_, now) = next(&mut turns).await;
            assert!(now - before >= Duration::from_millis(at_least), "{:?}", now - before);
            before = now;
        }
        open_session(&desk, 3);
        while next(&mut turns).await.0 != 3 {}
        drop(desk);
    };
    timeout(PATIENCE, futures_util::future::join(piece, drive)).await.unwrap();

    let pace = (Duration::from_secs(1), Told::AFTER_FAILURE);
    let failed = || Err(Fault::new(FaultKind::Connection));
    let mut failures = 0;
    let waits: Vec<u128> = [failed(), failed(), Ok(()), failed()]
        .map(|turn| rest("t", turn, &mut failures, pace).as_millis())
        .into();
    assert_eq!(waits, [20, 40, 1000, 20], "a turn that works ends the row");
}

#[tokio::test]
async fn a_chore_of_the_process_needs_no_session() {
    struct Counts(UnboundedSender<()>);
    impl Chore<()> for Counts {
        const NAME: &'static str = "counts";
        const INTERVAL: Duration = Duration::from_millis(1);
        const AFTER_FAILURE: Backoff = Told::AFTER_FAILURE;

        async fn turn(&mut self, (): &()) -> Result<(), Fault> {
            self.0.send(()).ok();
            Ok(())
        }
    }
    let (sender, mut turns) = unbounded_channel();
    let twice = async {
        turns.recv().await;
        turns.recv().await;
    };
    tokio::select! {
        _ = with_process(Counts(sender)) => panic!("it ended"),
        done = timeout(PATIENCE, twice) => done.expect("two turns in time"),
    }
}
