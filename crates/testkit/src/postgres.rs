//! A throw-away PostgreSQL cluster for each test process, and a fresh database for each test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::process::{dies_with_us, free_port, is_root, next_number, scratch, signal};
use crate::wait;

/// Long enough for crash recovery on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A running cluster on a loopback port and a unix socket, with its data in the scratch directory.
pub struct Postgres {
    directory: PathBuf,
    port: u16,
    settings: Vec<String>,
    small_disk: bool,
    server: Mutex<Option<Child>>,
    /// The database that [`Self::copy`] copies.
    template: OnceLock<String>,
}

impl Postgres {
    /// The cluster all tests of this process share. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::own)
    }

    /// A cluster of one's own, for a test that stops or kills it.
    pub fn own() -> Self {
        // A crash of the server is tested with SIGKILL, which keeps the page cache; only a power
        // cut would show the difference.
        Self::with(&["fsync=off"])
    }

    /// A cluster of one's own that speaks TLS, and asks clients for a certificate signed by
    /// `client_root` if one is given.
    pub fn with_tls(certificate: &Path, key: &Path, client_root: Option<&Path>) -> Self {
        let directory = scratch().join(format!("tls-{}", next_number()));
        std::fs::create_dir(&directory).expect("create a directory");
        let place = |from: &Path, name: &str| {
            let to = directory.join(name);
            std::fs::copy(from, &to).expect("copy a PEM file");
            // The server refuses a key that others may read, and runs as a user of its own.
            run(Command::new("chmod").arg("600").arg(&to));
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(&to));
            }
            to.display().to_string()
        };
        let mut settings = vec![
            "fsync=off".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", place(certificate, "server.pem")),
            format!("ssl_key_file={}", place(key, "server.key")),
        ];
        if let Some(root) = client_root {
            settings.push(format!("ssl_ca_file={}", place(root, "root.pem")));
        }
        Self::with(&settings.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A cluster of one's own with those server settings.
    pub fn with(settings: &[&str]) -> Self {
        Self::build(settings, false)
    }

    /// A cluster of one's own that sees a disk of 4 MiB at [`Self::small_disk`]. Only its own
    /// processes see it, and it goes with them.
    pub fn with_small_disk() -> Self {
        Self::build(&["fsync=off"], true)
    }

    /// Where the small disk is.
    pub fn small_disk(&self) -> PathBuf {
        self.directory.join("small")
    }

    fn build(settings: &[&str], small_disk: bool) -> Self {
        let directory = scratch().join(format!("postgres-{}", next_number()));
        std::fs::create_dir(&directory).expect("create the cluster's directory");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory));
        }
        let data = directory.join("data");
        run(unprivileged(&binary("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "-D"])
            .arg(&data));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let port = free_port();
        let server = Mutex::new(None);
        let template = OnceLock::new();
        let postgres = Self { directory, port, settings, small_disk, server, template };
        std::fs::create_dir(postgres.small_disk()).expect("create a directory");
        postgres.start();
        postgres
    }

    /// Starts the stopped server on its old port and waits until it answers.
    pub fn start(&self) {
        let mut server = self.server.lock().expect("server");
        assert!(server.is_none(), "the server runs already");
        let log_path = scratch().join(format!("postgres-{}.log", self.port));
        let log = std::fs::File::options().create(true).append(true).open(&log_path);
        let mut command = unprivileged(&binary("postgres"));
        if self.small_disk {
            command = beside_a_small_disk(&self.small_disk(), &command);
        }
        command.arg("-D").arg(self.directory.join("data"));
        for setting in [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={}", self.directory.display()),
            "max_connections=300".into(),
            "log_min_messages=warning".into(),
        ] {
            command.args(["-c", &setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("open the server's log"));
        let mut child = super::process::spawn(command);
        wait::until("PostgreSQL answers", START_DEADLINE, || {
            let ended = child.try_wait().expect("look at PostgreSQL");
            let log = || std::fs::read_to_string(&log_path).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL did not start: {}", log());
            self.try_connect("postgres").is_ok()
        });
        *server = Some(child);
    }

    /// Process id of the server's first process, the parent of all others.
    pub fn pid(&self) -> u32 {
        self.server.lock().expect("server").as_ref().expect("the server runs").id()
    }

    /// Stops the server as an administrator's fast shutdown does: open transactions roll back.
    pub fn stop(&self) {
        let mut server = self.server.lock().expect("server").take().expect("the server runs");
        signal(server.id(), "INT");
        server.wait().expect("wait for PostgreSQL");
    }

    /// Restarts the stopped server as a standby that follows nobody.
    pub fn start_as_standby(&self) {
        let signal = self.directory.join("data/standby.signal");
        std::fs::write(signal, "").expect("make the server a standby");
        self.start();
    }

    /// Makes the server and all its backends stand still, with all connections open, until
    /// [`Self::thaw`].
    pub fn freeze(&self) {
        signal(self.pid(), "STOP");
        signal_each(&children(self.pid()), "-STOP");
    }

    /// Lets the server go on.
    pub fn thaw(&self) {
        signal_each(&children(self.pid()), "-CONT");
        signal(self.pid(), "CONT");
    }

    /// Kills the server and all its backends at once, as a crash of the machine's process table.
    pub fn kill9_all(&self) {
        let mut server = self.server.lock().expect("server").take().expect("the server runs");
        // Stopped first, so that it neither starts children nor reacts to the death of any.
        signal(server.id(), "STOP");
        let children = children(server.id());
        signal_each(&children, "-KILL");
        signal(server.id(), "KILL");
        server.wait().expect("wait for PostgreSQL");
        // A new server does not start while one of the old one's processes is attached to its
        // shared memory.
        wait::until("the server's processes are gone", START_DEADLINE, || {
            children.lines().all(|child| !is_running(child))
        });
    }

    /// Makes the stopped server a standby: it starts read-only, until it is promoted.
    pub fn demote(&self) {
        std::fs::write(self.directory.join("data/standby.signal"), "").expect("demote");
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.try_connect("postgres")
            .expect("connect")
            .batch_execute("select pg_promote()")
            .expect("promote");
    }

    /// A fresh, empty database; `name` makes it recognisable in logs.
    pub fn database(&self, name: &str) -> Database {
        self.create(name, "")
    }

    /// A copy of the database that `fill` fills, once for each server.
    pub fn copy(&self, name: &str, fill: impl FnOnce(&Database)) -> Database {
        let template = self.template.get_or_init(|| {
            let original = self.database("original");
            fill(&original);
            original.name
        });
        self.create(name, &format!(" template {template}"))
    }

    fn create(&self, name: &str, options: &str) -> Database {
        let name = format!("{name}_{}", next_number());
        self.try_connect("postgres")
            .expect("connect")
            .batch_execute(&format!("create database {name}{options}"))
            .expect("create a database");
        Database { name, port: self.port }
    }

    /// Drops a database; whoever is still connected to it is disconnected.
    pub fn drop_database(&self, database: &Database) {
        self.try_connect("postgres")
            .expect("connect")
            .batch_execute(&format!("drop database {} with (force)", database.name))
            .expect("drop a database");
    }

    fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        Client::connect(&url(self.port, database), NoTls)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(Some(mut server)) = self.server.lock().map(|mut server| server.take()) {
            signal(server.id(), "QUIT");
            server.wait().ok();
        }
    }
}

/// A database of one test.
#[derive(Debug, Clone)]
pub struct Database {
    pub name: String,
    port: u16,
}

impl Database {
    /// What goes into `postgres.url`, as the superuser.
    pub fn url(&self) -> String {
        url(self.port, &self.name)
    }

    /// The same as another role.
    pub fn url_as(&self, role: &str) -> String {
        self.url().replace("//postgres@", &format!("//{role}@"))
    }

    /// The same with further parameters, e.g. `sslmode=require`.
    pub fn url_with(&self, parameters: &str) -> String {
        let separator = if parameters.is_empty() { "" } else { "&" };
        format!("{}{separator}{parameters}", self.url())
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> Client {
        Client::connect(&self.url(), NoTls).expect("connect to the test's database")
    }

    /// Runs statements that give no rows.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.connect().batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// All rows of a query, every value as text, `None` for NULL.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// [`Self::rows`] where the database may be down or the tables may not be there yet.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, postgres::Error> {
        let messages = Client::connect(&self.url(), NoTls)?.simple_query(sql)?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect())
    }

    /// The first column of the only row, as text.
    #[track_caller]
    pub fn text(&self, sql: &str) -> Option<String> {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "one row expected of {sql}");
        rows[0][0].clone()
    }

    /// The first column of the only row, as a number; 0 while the tables are not there yet.
    pub fn count(&self, sql: &str) -> i64 {
        let first = |rows: Vec<Vec<Option<String>>>| rows.first()?.first()?.clone()?.parse().ok();
        self.try_rows(sql).ok().and_then(first).unwrap_or(0)
    }
}

/// Listens on a loopback port; the first connection leads to the server of one database, all others
/// to that of another, as through an address that stands for several servers.
pub fn first_here_then_there(first: &Database, others: &Database) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
    let port = listener.local_addr().expect("address").port();
    let (first, others) = (first.port, others.port);
    std::thread::spawn(move || {
        for (at, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let port = if at == 0 { first } else { others };
            let server = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            let again = |stream: &TcpStream| stream.try_clone().expect("clone a socket");
            for (mut from, mut to) in [(again(&client), again(&server)), (server, client)] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    port
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}?connect_timeout=5")
}

/// The newest installed server program of that name; CI has 15.
pub fn binary(name: &str) -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| *version >= 15)
        .max();
    if let Some(version) = newest {
        return Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin").join(name);
    }
    let bindir = Command::new("pg_config").arg("--bindir").output().unwrap_or_else(|_| {
        panic!("PostgreSQL 15 or newer is not installed: run scripts/install.sh")
    });
    Path::new(String::from_utf8_lossy(&bindir.stdout).trim()).join(name)
}

/// PostgreSQL refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return dies_with_us("QUIT", program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT"])
        .arg(program)
        .current_dir("/");
    command
}

/// The same command in a mount namespace of its own, where `place` is a small disk.
fn beside_a_small_disk(place: &Path, command: &Command) -> Command {
    let mut beside = Command::new("unshare");
    let owner = if is_root() {
        "uid=$(id -u postgres),"
    } else {
        beside.args(["--user", "--map-current-user", "--keep-caps"]);
        ""
    };
    let mount = format!("mount -t tmpfs -o {owner}mode=700,size=4m none \"$0\" && exec \"$@\"");
    beside.args(["--mount", "sh", "-c", &mount]).arg(place);
    beside.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        beside.current_dir(directory);
    }
    beside
}

/// The processes that a process started, one a line.
fn children(pid: u32) -> String {
    let output = Command::new("pgrep").args(["-P", &pid.to_string()]).output();
    String::from_utf8_lossy(&output.expect("run pgrep").stdout).into_owned()
}

fn signal_each(pids: &str, signal: &str) {
    for pid in pids.lines() {
        // It may have ended by itself since it was listed.
        Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status().ok();
    }
}

/// Whether a process is there and not merely waiting to be reaped.
fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
}
