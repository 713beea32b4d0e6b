//! `pgsluice demo`: a broker that needs no installation, and a story to send through it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::demo::{Broker, Storyteller};

/// A tour without an installed Kafka; `make demo` runs both parts together with a database and the
/// daemon.
#[derive(Debug, Args)]
pub struct Demo {
    /// Which part.
    #[command(subcommand)]
    part: Part,
}

/// The demo's parts.
#[derive(Debug, Subcommand)]
enum Part {
    /// Runs a broker for the demo, in memory and on the loopback interface, until terminated.
    Broker,
    /// Sends the demo's events, each with the outcome it should have.
    Produce(Produce),
}

/// Where to send the story and how fast.
#[derive(Debug, Args)]
struct Produce {
    /// Broker addresses, as printed by `demo broker`; a real Kafka works as well.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// Time between two events, so that progress can be watched.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = humantime::parse_duration)]
    pace: Duration,
    /// How many customers register, change and order in addition to the story's own.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    customers: u32,
}

impl Demo {
    /// Runs the part that was asked for.
    ///
    /// # Errors
    /// When the broker cannot be started or reached, or standard output is closed.
    pub fn run(self) -> anyhow::Result<()> {
        match self.part {
            Part::Broker => serve(),
            Part::Produce(produce) => produce.run(),
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let broker = Broker::start().context("cannot start the demo broker")?;
    let mut output = std::io::stdout();
    writeln!(output, "bootstrap.servers={}", broker.address())?;
    output.flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(terminated())?;
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
async fn terminated() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

impl Produce {
    fn run(self) -> anyhow::Result<()> {
        let teller = Storyteller::connect(&self.brokers)
            .with_context(|| format!("cannot create a producer for {}", self.brokers))?;
        teller.create_topics();
        let mut output = std::io::stdout();
        for scene in crate::demo::story(self.customers) {
            teller.tell(&scene).context("the broker did not accept an event")?;
            writeln!(output, "{scene}")?;
            output.flush()?;
            std::thread::sleep(self.pace);
        }
        Ok(())
    }
}
