//! CPU time and memory of processes, from `/proc`.

use std::process::Command;

/// CPU time used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    ticks: u64,
}

/// `/proc` counts in ticks of 1/100 s on every Linux that Debian ships.
const MICROS_PER_TICK: f64 = 10_000.0;

impl Usage {
    /// Of one process with all its threads.
    pub(crate) fn of_process(pid: u32) -> Self {
        let [user, system, ..] = stat(pid).unwrap_or_default();
        Self { ticks: user + system }
    }

    /// Of a process and its children, those that have ended included.
    pub(crate) fn of_tree(pid: u32) -> Self {
        let children = Command::new("pgrep").args(["-P", &pid.to_string()]).output();
        let children = String::from_utf8_lossy(&children.expect("run pgrep").stdout).into_owned();
        let living: u64 = children
            .lines()
            .filter_map(|child| child.parse().ok())
            .map(|child| Self::of_process(child).ticks)
            .sum();
        let [user, system, ended_user, ended_system] = stat(pid).unwrap_or_default();
        Self { ticks: living + user + system + ended_user + ended_system }
    }

    /// Microseconds used since an earlier reading.
    pub(crate) fn micros_since(self, earlier: Self) -> f64 {
        self.ticks.saturating_sub(earlier.ticks) as f64 * MICROS_PER_TICK
    }
}

/// utime, stime, cutime and cstime of a process; `None` when it has ended.
fn stat(pid: u32) -> Option<[u64; 4]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut numbers = fields.split_whitespace().skip(11).map_while(|field| field.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?])
}

/// The most memory a process ever held, in MiB.
pub(crate) fn peak_rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
