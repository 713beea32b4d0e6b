//! The demo's two parts beside the daemon: a broker inside this process, and a producer that tells a
//! story of customers and orders in the `envelope` format. `make demo` runs both with a database and
//! the daemon; `config/demo.toml` and `demo/schema.sql` are the other half of it.

mod broker;
mod story;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use broker::{Broker, Storyteller};
use story::story;

/// Topic of the customers' events.
const CUSTOMERS: &str = "customer-events";
/// Topic of the orders' events.
const ORDERS: &str = "order-events";

/// A tour of pgsluice without an installed Kafka.
#[derive(Debug, Parser)]
#[command(name = "pgsluice-demo", version)]
struct Demo {
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
    /// Broker addresses, as printed by `pgsluice-demo broker`; a real Kafka works as well.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// Time between two events, so that progress can be watched.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = humantime::parse_duration)]
    pace: Duration,
    /// How many customers register, change and order in addition to the story's own.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    customers: u32,
}

fn main() -> ExitCode {
    let done = match Demo::parse().part {
        Part::Broker => serve(),
        Part::Produce(produce) => produce.run(),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    // There is nobody else to tell.
    writeln!(std::io::stderr(), "{error:#}").ok();
    ExitCode::FAILURE
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
        for scene in story(self.customers) {
            teller.tell(&scene).context("the broker did not accept an event")?;
            writeln!(output, "{scene}")?;
            output.flush()?;
            std::thread::sleep(self.pace);
        }
        Ok(())
    }
}
