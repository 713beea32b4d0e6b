//! One Apache Kafka node as a child process.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::process::{dies_with_us, scratch, signal, spawn};
use crate::wait;

/// The first start may have to fetch Kafka's jars.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// A node that is asked to stop closes its logs first.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A running node; it ends with the test process.
pub struct Broker {
    directory: PathBuf,
    /// None while it is stopped.
    node: Option<Child>,
    address: String,
}

impl Broker {
    /// A node with its data in the scratch directory.
    pub fn own() -> Self {
        let directory = scratch().join("kafka");
        let mut node = run(&directory);
        let address_file = directory.join("bootstrap.servers");
        let address = wait::for_some("Kafka starts", START_DEADLINE, || {
            assert_runs(&mut node);
            let address = std::fs::read_to_string(&address_file).ok()?;
            address.ends_with('\n').then(|| address.trim().to_owned())
        });
        let mut broker = Self { directory, node: Some(node), address };
        broker.until_it_answers();
        broker
    }

    /// Its `bootstrap.servers`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills the node as a crash does.
    pub fn kill9(&mut self) {
        let mut node = self.node.take().expect("the broker runs");
        node.kill().expect("kill the broker");
        node.wait().expect("wait for the broker");
    }

    /// Stops the node as an administrator does.
    pub fn stop(&mut self) {
        let mut node = self.node.take().expect("the broker runs");
        signal(node.id(), "TERM");
        wait::until("Kafka ends", STOP_DEADLINE, || {
            node.try_wait().expect("look at the broker").is_some()
        });
    }

    /// Makes the node stand still, with all its connections open, or go on: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.node.as_ref().expect("the broker runs").id(), name);
    }

    /// Starts the stopped node again, with its data and at its address, and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.node.is_none(), "the broker runs already");
        self.node = Some(run(&self.directory));
        self.until_it_answers();
    }

    /// Starts the node if a test left it stopped.
    pub fn ensure_running(&mut self) {
        if self.node.is_none() {
            self.start();
        }
    }

    fn until_it_answers(&mut self) {
        let mut config = ClientConfig::new();
        let client: BaseConsumer =
            config.set("bootstrap.servers", &self.address).create().expect("create a client");
        wait::until("Kafka answers", START_DEADLINE, || {
            self.node.as_mut().map(assert_runs).expect("just started");
            client.fetch_metadata(None, Duration::from_secs(5)).is_ok()
        });
    }
}

fn log_file() -> PathBuf {
    scratch().join("kafka.log")
}

fn run(directory: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log_file());
    let script = crate::process::root().join("scripts/kafka/run.sh");
    let mut command = dies_with_us("KILL", script);
    let log = log.expect("open the broker's log");
    command.arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    spawn(command)
}

fn assert_runs(node: &mut Child) {
    if let Some(status) = node.try_wait().expect("look at the broker") {
        let log = std::fs::read_to_string(log_file()).unwrap_or_default();
        panic!("Kafka ended with {status}; is scripts/install.sh needed?\n{log}");
    }
}
