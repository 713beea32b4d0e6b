//! Child processes that cannot outlive the test process, and its scratch directory.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

/// The root of the checkout, where scripts and migrations are.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("a crate two folders below the root")
}

/// The daemon's binary, which cargo builds beside the test binaries: `target/<profile>/pgsluice`
/// above `target/<profile>/deps/<this test>`.
pub fn daemon() -> PathBuf {
    let test = std::env::current_exe().expect("path of this test");
    let profile = test.ancestors().nth(2).expect("folder of the profile");
    let binary = profile.join("pgsluice");
    assert!(binary.is_file(), "{} is missing; cargo test builds it", binary.display());
    binary
}

type Job = (Command, Sender<std::io::Result<Child>>);

/// Starts a child on a thread that lives as long as the process.
///
/// The kernel sends the signal asked for by `setpriv --pdeathsig` when the *thread* that started
/// the child ends; a test's own thread ends long before the servers it shares with others.
pub fn spawn(command: Command) -> Child {
    static NURSERY: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::Builder::new()
            .name("nursery".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    answer.send(command.spawn()).expect("the asker waits");
                }
            })
            .expect("start the thread that starts children");
        Mutex::new(jobs)
    });
    let what = command.get_program().to_owned();
    let (answer, child) = channel();
    nursery.lock().expect("nursery").send((command, answer)).expect("nursery lives");
    match child.recv().expect("nursery answers") {
        Ok(child) => child,
        Err(error) => panic!("cannot start {}: {error}", what.to_string_lossy()),
    }
}

/// A command that the kernel ends with `signal` when this process dies, however it dies.
pub fn dies_with_us(signal: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// Sends a signal, e.g. `"STOP"`, to a process this test started.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("run kill");
    assert!(status.success(), "kill -{name} {pid} failed: no such process");
}

/// A port of 127.0.0.1 that nobody listens on at the moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
    listener.local_addr().expect("address").port()
}

/// Whether this process may change its user.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("read /proc").uid() == 0
}

/// Directory for everything this test process writes; removed when the process ends, however it
/// ends, by a shell that waits for the other end of its standard input to close.
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<(PathBuf, Mutex<ChildStdin>)> = OnceLock::new();
    let (path, _) = SCRATCH.get_or_init(|| {
        use std::os::unix::fs::PermissionsExt;
        let path = tempfile::Builder::new()
            .prefix("pgsluice-test-")
            .tempdir()
            .expect("create a scratch directory")
            .keep();
        // The database server runs as another user and must get through to its own directory.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut cleaner = Command::new("sh");
        cleaner
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; sleep 1; rm -rf \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped());
        // Kept out of the terminal's group and off our output, so that nobody waits for it.
        std::os::unix::process::CommandExt::process_group(&mut cleaner, 0);
        cleaner.stdout(Stdio::null()).stderr(Stdio::null());
        let stdin = spawn(cleaner).stdin.take().expect("piped");
        (path, Mutex::new(stdin))
    });
    path
}

/// A number nobody else got in this process.
pub fn next_number() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
