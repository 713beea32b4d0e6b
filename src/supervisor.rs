//! Names every task, and ends the process when a critical one ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Why the process ends, and the exit code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// As asked for: everything finished and durable.
    Clean,
    /// Ended before the drain was finished; what is missing is read again by the next owner.
    Interrupted,
    /// The configuration or the command line is wrong.
    Configuration,
    /// The database or Kafka could not be reached at start.
    DependencyUnavailable,
    /// Another process has this member's name, or the cluster is another one than before.
    Fenced,
    /// Going on would do harm: data is not what it was.
    Corruption,
    /// A state that should not be.
    Bug,
}

impl ExitReason {
    /// Every reason, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Clean,
        Self::Interrupted,
        Self::Configuration,
        Self::DependencyUnavailable,
        Self::Fenced,
        Self::Corruption,
        Self::Bug,
    ];

    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Interrupted => 1,
            Self::Configuration => 2,
            Self::DependencyUnavailable => 3,
            Self::Fenced => 4,
            Self::Corruption => 5,
            Self::Bug => 70,
        }
    }

    /// The reason's one spelling in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Interrupted => "interrupted",
            Self::Configuration => "configuration",
            Self::DependencyUnavailable => "dependency_unavailable",
            Self::Fenced => "fenced",
            Self::Corruption => "corruption",
            Self::Bug => "bug",
        }
    }
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason.code())
    }
}

/// Whether the process can go on without a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criticality {
    /// Its end, for whatever reason, ends the process with the task's own exit reason.
    Critical,
    /// It may end before the others.
    Optional,
}

/// The tasks of a process, each with a name.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<ExitReason>,
    alive: BTreeMap<Id, (&'static str, Criticality)>,
    cancel: CancellationToken,
}

impl Supervisor {
    /// A supervisor that cancels `cancel` once a critical task has ended.
    pub fn new(cancel: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), alive: BTreeMap::new(), cancel }
    }

    /// Starts a task on the current thread. Must be called inside a `LocalSet`.
    pub fn spawn(
        &mut self,
        name: &'static str,
        criticality: Criticality,
        task: impl Future<Output = ExitReason> + 'static,
    ) {
        let handle = self.tasks.spawn_local(task);
        self.alive.insert(handle.id(), (name, criticality));
    }

    /// Waits for the first critical task to end, cancels the others and gives them `grace`.
    /// Whatever is still alive then is named in the log and dropped.
    pub async fn join(mut self, grace: Duration) -> ExitReason {
        let reason = self.first_critical_end().await;
        self.cancel.cancel();
        let rest = async { while self.next_end().await.is_some() {} };
        if tokio::time::timeout(grace, rest).await.is_err() {
            let names: Vec<_> = self.alive.values().map(|(name, _)| *name).collect();
            tracing::warn!(event = "tasks_abandoned", tasks = ?names, "tasks did not end in time");
        }
        reason
    }

    async fn first_critical_end(&mut self) -> ExitReason {
        while let Some((criticality, reason)) = self.next_end().await {
            if criticality == Criticality::Critical {
                return reason;
            }
        }
        ExitReason::Clean
    }

    async fn next_end(&mut self) -> Option<(Criticality, ExitReason)> {
        let ended = self.tasks.join_next_with_id().await?;
        let (id, reason) = match ended {
            Ok((id, reason)) => (id, reason),
            // The panic hook has logged where it happened; its text stays out of the log (INV-9).
            Err(error) => (JoinError::id(&error), ExitReason::Bug),
        };
        let (name, criticality) = self.alive.remove(&id)?;
        tracing::debug!(event = "task_ended", task = name, reason = reason.as_str(), "task ended");
        Some((criticality, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    const GRACE: Duration = Duration::from_millis(50);

    async fn run(start: impl FnOnce(&mut Supervisor, &CancellationToken)) -> ExitReason {
        let cancel = CancellationToken::new();
        let mut supervisor = Supervisor::new(cancel.clone());
        LocalSet::new()
            .run_until(async move {
                start(&mut supervisor, &cancel);
                supervisor.join(GRACE).await
            })
            .await
    }

    #[tokio::test]
    async fn the_end_of_a_critical_task_cancels_the_others_and_gives_the_exit_code() {
        let reason = run(|tasks, cancel| {
            tasks.spawn("fenced", Criticality::Critical, async { ExitReason::Fenced });
            let cancelled = cancel.clone().cancelled_owned();
            tasks.spawn("waits", Criticality::Critical, async move {
                cancelled.await;
                ExitReason::Clean
            });
        });
        assert_eq!(reason.await, ExitReason::Fenced);
    }

    #[tokio::test]
    async fn an_optional_task_may_end_first() {
        let reason = run(|tasks, _| {
            tasks.spawn("optional", Criticality::Optional, async { ExitReason::Bug });
            tasks.spawn("critical", Criticality::Critical, async {
                tokio::time::sleep(GRACE).await;
                ExitReason::Clean
            });
        });
        assert_eq!(reason.await, ExitReason::Clean);
    }

    #[tokio::test]
    async fn a_panic_is_a_bug_and_a_task_that_hangs_does_not_hold_the_end() {
        let reason = run(|tasks, _| {
            tasks.spawn("hangs", Criticality::Critical, std::future::pending());
            tasks.spawn("panics", Criticality::Critical, async { panic!("on purpose") });
        });
        assert_eq!(reason.await, ExitReason::Bug);
    }

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        let codes = [
            (ExitReason::Clean, 0),
            (ExitReason::Configuration, 2),
            (ExitReason::DependencyUnavailable, 3),
            (ExitReason::Fenced, 4),
            (ExitReason::Corruption, 5),
            (ExitReason::Bug, 70),
        ];
        for (reason, code) in codes {
            assert_eq!(reason.code(), code, "{reason:?}");
        }
    }
}
