//! `pgsluice health`: asks the admin port of a running daemon, for container health checks.
//!
//! The image has no shell and no HTTP client beside the program, so the program asks itself.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Source, complain, load, print_problems, say};

/// How long connecting and each read may take: below any sensible timeout of a health check.
const PATIENCE: Duration = Duration::from_secs(2);

/// A status page is a line; whatever is longer is not read.
const LONGEST_ANSWER: u64 = 4096;

/// Container engines know two answers, and reserve 2 and above.
const UNHEALTHY: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Address of the admin port; without it, admin.listen of the configuration is used
    ///
    /// The variable overrides the file for the daemon as well, so with it no file has to be read.
    #[arg(long, value_name = "ADDRESS:PORT", env = "PGSLUICE__ADMIN__LISTEN")]
    listen: Option<SocketAddr>,
    /// Asks /ready instead of /live: whether records are moving, not only whether the process runs
    #[arg(long)]
    ready: bool,
}

pub(super) fn health(arguments: &Arguments) -> ExitCode {
    let configured = || load(&arguments.source).map(|config| config.admin.listen);
    let listen = match arguments.listen.map_or_else(configured, Ok) {
        Ok(listen) => listen,
        Err(problems) => {
            print_problems(&problems);
            return ExitCode::from(UNHEALTHY);
        }
    };
    let path = if arguments.ready { "/ready" } else { "/live" };
    let address = reachable(listen);
    match ask(address, path) {
        Ok((200, body)) => {
            say(&body);
            ExitCode::SUCCESS
        }
        Ok((code, body)) => {
            complain(&format!("{path} answers {code}: {body}"));
            ExitCode::from(UNHEALTHY)
        }
        Err(error) => {
            complain(&format!("no answer from http://{address}{path}: {}", error.kind()));
            ExitCode::from(UNHEALTHY)
        }
    }
}

/// Where a port that listens on every address is reached from the same host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Status code and body of one page.
fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some((words.next()?.parse().ok()?, body.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin;
    use crate::telemetry::Telemetry;
    use std::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    const REQUIRED: &str = "[kafka]\nbrokers = 'b:9092'\ngroup = 'g'\ntopics = 't'\n[postgres]\n\
                            url = 'postgres://a@b/c'\n";

    fn healthy(listen: SocketAddr, ready: bool) -> bool {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let text = format!("{REQUIRED}[admin]\nlisten = '{listen}'\n");
        std::fs::write(file.path(), text).expect("temporary file");
        let source = Source { config: Some(file.path().to_owned()) };
        health(&Arguments { source, listen: None, ready }) == ExitCode::SUCCESS
    }

    #[test]
    fn a_daemon_that_turns_is_healthy_before_it_is_ready() {
        let cancel = CancellationToken::new();
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = admin::spawn(any, telemetry, cancel.clone()).expect("admin port");
        assert!(healthy(address, false));
        assert!(!healthy(address, true), "nothing is assigned yet");
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert!(healthy(everywhere, false), "asked on the loopback address");
        cancel.cancel();
    }

    #[test]
    fn nobody_and_somebody_who_speaks_no_http_are_unhealthy() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let address = listener.local_addr().expect("address");
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a visitor");
            stream.write_all(b"SSH-2.0-other\r\n\r\n").expect("answer");
        });
        assert!(!healthy(address, false), "another protocol");
        stranger.join().expect("stranger");
        assert!(!healthy(address, false), "nobody listens any more");
    }

    #[test]
    fn an_address_that_is_given_needs_no_configuration() {
        let cancel = CancellationToken::new();
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = admin::spawn(any, telemetry, cancel.clone()).expect("admin port");
        let source = Source { config: Some("/nonexistent/pgsluice.toml".into()) };
        let ask = |listen| health(&Arguments { source: source.clone(), listen, ready: false });
        assert_eq!(ask(Some(address)), ExitCode::SUCCESS);
        assert_eq!(ask(None), ExitCode::from(UNHEALTHY), "the file is missing");
        cancel.cancel();
    }

    #[test]
    fn every_address_is_reached_on_the_loopback_address() {
        let reached = |listen: &str| reachable(listen.parse().expect("address")).to_string();
        assert_eq!(reached("0.0.0.0:9187"), "127.0.0.1:9187");
        assert_eq!(reached("[::]:9187"), "[::1]:9187");
        assert_eq!(reached("10.0.0.7:9187"), "10.0.0.7:9187");
    }
}
