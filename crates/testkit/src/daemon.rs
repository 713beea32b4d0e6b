//! The daemon as a child process: its configuration, log, admin port and signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::complaints::Expected;
use crate::process::{dies_with_us, free_port, next_number, scratch, signal, spawn};
use crate::wait;

/// Joining a group, migrating and reading take a moment on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 40;

/// A running `pgsluice run`; killed when dropped, and with the test process. Its end is also the
/// end of the test's patience with lines at ERROR and WARN, see [`Expected`].
pub struct Daemon {
    child: Mutex<Child>,
    pid: u32,
    log: Arc<Mutex<Vec<String>>>,
    /// Fills `log`; ends with the daemon.
    reader: Mutex<Option<JoinHandle<()>>>,
    expected: Expected,
    /// Known beforehand if the daemon writes no log that names it.
    admin: Option<String>,
    /// Held open and never read.
    _unread: Option<ChildStderr>,
}

/// What becomes of the daemon's standard error when the test does not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Its reader stands still.
    Blocked,
    /// Its reader has gone.
    Closed,
}

impl Daemon {
    /// Starts the daemon with a file, or with none, and further environment variables. The admin
    /// port is any free one. `expected` is what it may complain of.
    pub fn start(config: Option<&str>, variables: &[(&str, &str)], expected: &Expected) -> Self {
        Self::start_binary(&crate::process::daemon(), config, variables, expected)
    }

    /// The same with another build of the daemon.
    pub fn start_binary(
        binary: &Path,
        config: Option<&str>,
        variables: &[(&str, &str)],
        expected: &Expected,
    ) -> Self {
        let mut child = spawn(Self::command(binary, config, variables));
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("log").push(line);
            }
        });
        Self {
            pid: child.id(),
            child: Mutex::new(child),
            log,
            reader: Mutex::new(Some(reader)),
            expected: expected.clone(),
            admin: None,
            _unread: None,
        }
    }

    /// Starts the daemon and reads nothing of what it logs.
    pub fn start_unread(config: &str, variables: &[(&str, &str)], unread: Unread) -> Self {
        let admin = format!("127.0.0.1:{}", free_port());
        let listen = [("PGSLUICE__ADMIN__LISTEN", admin.as_str())];
        let mut child = spawn(Self::command(
            &crate::process::daemon(),
            Some(config),
            &[&listen, variables].concat(),
        ));
        let stderr = child.stderr.take().filter(|_| unread == Unread::Blocked);
        Self {
            pid: child.id(),
            child: Mutex::new(child),
            log: Arc::default(),
            reader: Mutex::new(None),
            expected: Expected::default(),
            admin: Some(admin),
            _unread: stderr,
        }
    }

    fn command(binary: &Path, config: Option<&str>, variables: &[(&str, &str)]) -> Command {
        let mut command = dies_with_us("KILL", binary);
        command.arg("run");
        if let Some(config) = config {
            let path = write_config(config);
            command.arg("--config").arg(path);
        }
        command
            .env("PGSLUICE__ADMIN__LISTEN", "127.0.0.1:0")
            .env("PGSLUICE__LOG__FORMAT", "json")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Every line written so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("log").clone()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Waits until `condition` holds; panics with the daemon's last log lines at the deadline, and
    /// at once when the daemon has ended.
    #[track_caller]
    pub fn until(&self, what: &str, deadline: Duration, condition: impl Fn() -> bool) {
        let mut ended = None;
        let came = wait::holds_within(deadline, || {
            if condition() {
                return true;
            }
            ended = self.exit_status();
            ended.is_some()
        });
        if let Some(status) = ended {
            panic!("the daemon ended ({status}) before: {what}\n{}", self.log_tail());
        }
        assert!(
            came,
            "not within {deadline:?}: {what}\n{}\n/status: {}",
            self.log_tail(),
            self.status_if_told()
        );
    }

    /// `/status` as it is, for a test that fails.
    fn status_if_told(&self) -> String {
        let told = self.log().iter().find_map(|line| admin_address(line));
        let Some(address) = self.admin.clone().or(told) else { return "no address yet".into() };
        http_get(&address, "/status").map_or_else(|error| error.to_string(), |(_, body)| body)
    }

    /// How the daemon ended; `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().expect("child").try_wait().expect("look at the daemon")
    }

    /// The admin address, from the line that names it.
    #[track_caller]
    pub fn admin(&self) -> String {
        if let Some(address) = &self.admin {
            return address.clone();
        }
        let found = || self.log().iter().find_map(|line| admin_address(line));
        self.until("the log names the admin address", PATIENCE, || found().is_some());
        found().expect("just found")
    }

    /// Status code and body of an admin page.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let address = self.admin();
        http_get(&address, path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log_tail()))
    }

    /// Waits until `/ready` says yes.
    #[track_caller]
    pub fn until_ready(&self) {
        self.until("the daemon is ready", PATIENCE, || self.get("/ready").0 == 200);
    }

    /// `/status`, parsed.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let (code, body) = self.get("/status");
        assert_eq!(code, 200, "/status says {body}");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// Sum of all series of a metric whose labels contain every one of `labels`, e.g.
    /// `verdict="DUPLICATE"`; 0 while there is no such series.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (code, body) = self.get("/metrics");
        assert_eq!(code, 200, "/metrics says {body}");
        body.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value.parse::<f64>().expect("a number"))
            .sum()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by name: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Kills the daemon as a crash does and waits until it is gone.
    pub fn kill9(&self) {
        self.signal("KILL");
        self.child.lock().expect("child").wait().expect("wait for the daemon");
    }

    /// Waits until the daemon ends by itself and returns its exit code.
    #[track_caller]
    pub fn wait_exit(&self, deadline: Duration) -> Option<i32> {
        let ended = wait::holds_within(deadline, || self.exit_status().is_some());
        assert!(ended, "the daemon did not end within {deadline:?}\n{}", self.log_tail());
        self.exit_status().expect("ended").code()
    }

    /// Ends the daemon as an orchestrator does and asserts that it ended cleanly.
    #[track_caller]
    pub fn stop(&self) {
        self.signal("TERM");
        let code = self.wait_exit(Duration::from_secs(30));
        assert_eq!(code, Some(0), "exit code after SIGTERM\n{}", self.log_tail());
        self.assert_no_surprise();
    }

    /// Asserts that the daemon, which has ended, complained of nothing that was not expected.
    #[track_caller]
    fn assert_no_surprise(&self) {
        if let Some(reader) = self.reader.lock().expect("reader").take() {
            reader.join().expect("the log is read to its end");
        }
        let log = self.log();
        let unexpected = self.expected.unexpected(&log);
        assert!(
            unexpected.is_empty(),
            "the daemon logged what the test did not expect (Case::expects):\n{}",
            unexpected.join("\n")
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let quiet = || self.exit_status().is_some() || self.expected.all_in(&self.log());
        if !std::thread::panicking() && self.admin.is_none() {
            // What the test waited for may be a moment ahead of the line that tells of it.
            wait::holds_within(Duration::from_secs(5), quiet);
        }
        if let Ok(mut child) = self.child.lock() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the daemon (pid {}) ---\n{}", self.pid, self.log_tail());
        } else {
            self.assert_no_surprise();
        }
    }
}

/// Runs another command of the binary to its end: exit code, standard output, standard error.
pub fn pgsluice(
    arguments: &[&str],
    config: Option<&str>,
    variables: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = dies_with_us("KILL", crate::process::daemon());
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    if let Some(config) = config {
        command.arg("--config").arg(write_config(config));
    }
    let output = command.output().expect("run pgsluice");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn write_config(config: &str) -> PathBuf {
    let path = scratch().join(format!("pgsluice-{}.toml", next_number()));
    std::fs::write(&path, config).expect("write a configuration file");
    path
}

/// `127.0.0.1:PORT` in the log line that speaks of the admin port.
fn admin_address(line: &str) -> Option<String> {
    if !line.contains("admin") {
        return None;
    }
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (port != "0" && !port.is_empty()).then(|| format!("127.0.0.1:{port}"))
}

fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || std::io::Error::other("not an HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "chunked: {head}");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, body.to_owned()))
}
