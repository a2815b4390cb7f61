//! A folder that becomes an archive: every mode is set explicitly, and order, owner and time are fixed, so that the
//! archive depends on the contents only.

use crate::failure::{Context, Failure, Result};
use crate::process::{capture, run};
use crate::workshop::empty_folder;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder being filled.
pub(crate) struct Stage {
    root: PathBuf,
}

impl Stage {
    /// Starts with an empty folder.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        empty_folder(root)?;
        Ok(Self::over(root))
    }

    /// Takes a folder as it is.
    pub(crate) fn over(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Copies one file to `to`, relative to the stage.
    pub(crate) fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        if let Some((parent, _)) = to.rsplit_once('/') {
            self.folder(parent, 0o755)?;
        }
        let target = self.root.join(to);
        fs::copy(from, &target).context(format!("copying {} to {}", from.display(), target.display()))?;
        set_mode(&target, mode)
    }

    /// Creates a folder and those above it.
    pub(crate) fn folder(&self, path: &str, mode: u32) -> Result<()> {
        let mut current = self.root.clone();
        for part in path.split('/') {
            current.push(part);
            if !current.is_dir() {
                fs::create_dir(&current).context(format!("creating {}", current.display()))?;
                set_mode(&current, 0o755)?;
            }
        }
        set_mode(&current, if path.is_empty() { 0o755 } else { mode })
    }

    /// Copies the shared libraries that the dynamic linker loads for a program, to the paths it looks at.
    pub(crate) fn copy_libraries_of(&self, program: &Path) -> Result<()> {
        let listing = capture(Command::new("ldd").arg(program))?;
        let libraries = library_paths(&listing)?;
        for path in libraries {
            let source = fs::canonicalize(&path).context(format!("resolving {path}"))?;
            self.copy(&source, path.trim_start_matches('/'), 0o755)?;
        }
        Ok(())
    }

    /// Sets every folder to 755 and every file to 644.
    pub(crate) fn normalise(&self) -> Result<()> {
        normalise(&self.root)
    }

    /// Writes the stage as an uncompressed archive.
    pub(crate) fn tar(&self, archive: &Path) -> Result<()> {
        set_mode(&self.root, 0o755)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root).context(format!("listing {}", self.root.display()))? {
            entries.push(entry.context(format!("listing {}", self.root.display()))?.file_name());
        }
        entries.sort();
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--format=gnu", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
        run(tar.arg("--create").arg("--file").arg(archive).arg("--directory").arg(&self.root).args(entries))
    }
}

fn normalise(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return set_mode(path, 0o644);
    }
    for entry in fs::read_dir(path).context(format!("listing {}", path.display()))? {
        normalise(&entry.context(format!("listing {}", path.display()))?.path())?;
    }
    set_mode(path, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).context(format!("setting the mode of {}", path.display()))
}

/// The absolute paths in what `ldd` prints; a library that was not found is a failure.
fn library_paths(listing: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in listing.lines().map(str::trim) {
        if line.ends_with("not found") {
            return Err(Failure::new(format!("ldd: {line}")));
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        paths.extend(path.map(str::to_owned));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_libraries_in_what_ldd_prints() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            library_paths(listing).unwrap(),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(library_paths("libx.so => not found").is_err());
    }

    #[test]
    fn the_same_contents_make_the_same_archive() {
        let base = std::env::temp_dir().join(format!("xtask-stage-{}", std::process::id()));
        let mut archives = Vec::new();
        for (round, files) in [["b", "a/c"], ["a/c", "b"]].iter().enumerate() {
            let stage = Stage::new(&base.join(format!("stage{round}"))).unwrap();
            for file in files {
                let source = base.join("source");
                fs::write(&source, file).unwrap();
                stage.copy(&source, file, 0o644).unwrap();
            }
            let archive = base.join(format!("{round}.tar"));
            stage.tar(&archive).unwrap();
            archives.push(fs::read(archive).unwrap());
        }
        fs::remove_dir_all(&base).unwrap();
        assert!(archives[0] == archives[1]);
    }
}
