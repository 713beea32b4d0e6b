//! Log lines on their way to stderr by a thread of their own: whoever logs never waits for stderr.
//!
//! A reader of stderr that stands still blocks only that thread. Lines that find no room, and lines
//! that stderr refuses because its reader has gone, are dropped and counted.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait: what a reader may be late by, within a megabyte or two.
const ROOM: usize = 4_096;

/// How long the end of the process waits for lines that stderr does not take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines that were dropped since the process began.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The writer of this process, once logs are set up.
static WRITER: OnceLock<LossyWriter> = OnceLock::new();

#[derive(Debug)]
enum Order {
    Line(Vec<u8>),
    /// Answered when every line before it has been written.
    Flush(Sender<()>),
}

/// Hands lines to the thread that writes them; clones share it.
#[derive(Debug, Clone)]
pub(super) struct LossyWriter {
    orders: Sender<Order>,
}

impl LossyWriter {
    /// Starts a thread that writes to `target`.
    fn start(target: impl Write + Send + 'static, room: usize) -> io::Result<Self> {
        let (orders, inbox) = bounded(room);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(target, inbox))?;
        Ok(Self { orders })
    }

    /// The one that writes to stderr.
    pub(super) fn to_stderr() -> io::Result<Self> {
        let writer = Self::start(io::stderr(), ROOM)?;
        Ok(WRITER.get_or_init(|| writer).clone())
    }

    /// Waits until what was logged so far is written, but not longer than `patience`.
    fn flush_within(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let (done, written) = bounded(1);
        if self.orders.send_deadline(Order::Flush(done), end).is_ok() {
            // Either way the process goes on to its end.
            written.recv_deadline(end).ok();
        }
    }
}

/// Each event arrives as one `write`, complete with its line end.
impl Write for LossyWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.orders.try_send(Order::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LossyWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn write_all(mut target: impl Write, inbox: Receiver<Order>) {
    for order in inbox {
        match order {
            Order::Line(line) => {
                if target.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Who gave up waiting does not listen any more.
            Order::Flush(done) => {
                done.send(()).ok();
            }
        }
    }
}

/// Log lines dropped since the process began, because stderr was blocked or closed.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits a moment for the last log lines to be written; to be called before the process ends.
pub fn flush_logs() {
    if let Some(writer) = WRITER.get() {
        writer.flush_within(LAST_LINES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a write only when the test lets it, and passes on what it took.
    struct Gate {
        open: Receiver<()>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.taken.send(line.to_vec()).expect("the test listens");
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_target_that_blocks_or_breaks_costs_lines_and_nobody_waits_for_it() {
        let (opener, open) = bounded(16);
        let (taken, lines) = bounded(16);
        let mut writer = LossyWriter::start(Gate { open, taken }, 2).expect("a thread");
        let before = dropped();
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n"] {
            writer.write_all(line.as_bytes()).expect("never fails");
        }
        // Two lines have room, and the thread may have taken one more off them.
        let lost = dropped() - before;
        assert!((3..=4).contains(&lost), "{lost}");
        writer.flush_within(Duration::from_millis(10));

        for _ in 0..6 - lost {
            opener.send(()).expect("the writer lives");
        }
        assert_eq!(lines.recv().expect("a line"), b"1\n");
        assert_eq!(lines.recv().expect("a line"), b"2\n");
        writer.flush_within(Duration::from_secs(30));

        let before = dropped();
        drop(opener);
        writer.write_all(b"7\n").expect("never fails");
        writer.flush_within(Duration::from_secs(30));
        assert_eq!(dropped(), before + 1);
    }
}
