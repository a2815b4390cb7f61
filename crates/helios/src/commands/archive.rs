//! Models in one file: `helios export` and `helios import`.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{StreamExt, stream};
use helios_registry::{ArchiveReport, ArchiveSource, ByteStream, Progress, RegistryError, SaveReport};
use helios_storage::disk::OpenMode;
use helios_storage::{Disk, DiskFile, RealDisk, StorageError};
use helios_types::ModelRef;
use serde_json::json;

use crate::cli::{ExportArgs, ImportArgs};
use crate::config::{Config, show_size};
use crate::parts::Interrupt;
use crate::progress::PullProgress;
use crate::store::Store;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// `helios export`. Ctrl-C keeps what was written, for the next export to go on with.
pub(crate) async fn export(config: &Config, args: &ExportArgs) -> anyhow::Result<()> {
    let models = args.models.iter().map(|model| model.parse()).collect::<Result<Vec<ModelRef>, _>>()?;
    let interrupt = Interrupt::listen()?;
    let source = Store::open(config).await?.archive(&models).await?;
    if is_standard(&args.file) {
        return interrupt.or(write_out(&source, args.json)).await;
    }
    // The server writes nothing: the file is this process's, wherever the server is.
    let target = std::path::absolute(&args.file).context("the file to write")?;
    let mut bar = PullProgress::new();
    let mut report = |progress| show(&mut bar, &progress, args.json);
    let saved = interrupt.or(async { Ok(source.save(&target, &mut report).await?) }).await;
    bar.finish();
    let interrupted = format!(
        "the export is not whole\nhint: the same command goes on with `{}.partial`",
        target.display()
    );
    print_saved(&saved.context(interrupted)?, args.json);
    Ok(())
}

fn print_saved(saved: &SaveReport, as_json: bool) {
    if as_json {
        println!("{}", json!({ "done": saved }));
        return;
    }
    let resumed = match saved.resumed {
        0 => String::new(),
        bytes => format!(", {} of it were there", show_size(bytes)),
    };
    let count = saved.models.len();
    let models = if count == 1 { "model" } else { "models" };
    eprintln!("{} has {count} {models}: {}{resumed}", saved.file.display(), show_size(saved.size));
    for model in &saved.models {
        eprintln!("  {} {}", model.model, model.digest);
    }
}

/// Writes the archive to standard output.
async fn write_out(source: &ArchiveSource, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        bail!("`--json` and `-` both want standard output\nhint: name a file");
    }
    if std::io::stdout().is_terminal() {
        bail!("an archive is nothing to look at\nhint: name a file, or send standard output elsewhere");
    }
    let mut opened = source.open(None).await?;
    let mut written = 0;
    while let Some(piece) = opened.bytes.next().await {
        let piece = piece?;
        written += piece.len() as u64;
        let written = tokio::task::spawn_blocking(move || std::io::stdout().lock().write_all(&piece));
        written.await?.context("writing to standard output")?;
    }
    if written != opened.total {
        bail!("the archive broke off after {written} of {} bytes", opened.total);
    }
    Ok(std::io::stdout().lock().flush()?)
}

/// `helios import`. Ctrl-C keeps what came, for the next import to go on with.
pub(crate) async fn import(config: &Config, args: &ImportArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let bytes = if is_standard(&args.file) { standard_input() } else { file(&args.file)? };
    let store = Store::open(config).await?;
    let mut bar = PullProgress::new();
    let mut report = |progress| show(&mut bar, &progress, args.json);
    let imported = interrupt.or(async { Ok(store.import_archive(bytes, &mut report).await?) }).await;
    bar.finish();
    print_imported(&imported?, args.json);
    Ok(())
}

fn print_imported(report: &ArchiveReport, as_json: bool) {
    if as_json {
        println!("{}", json!({ "done": report }));
        return;
    }
    for model in &report.models {
        eprintln!("{} is here: {}", model.model, model.digest);
    }
    let (added, there) = (report.blobs_added, report.blobs_there);
    eprintln!("{} came in {added} blobs; {there} were there", show_size(report.bytes_added));
}

fn show(bar: &mut PullProgress, progress: &Progress, as_json: bool) {
    match as_json {
        true => println!("{}", json!({ "progress": progress })),
        false => bar.report(progress),
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// The bytes of a file.
fn file(path: &Path) -> Result<ByteStream, RegistryError> {
    let failed = |action| {
        let path = path.to_owned();
        move |error| RegistryError::from(StorageError::io(action, &path, error))
    };
    let file: Arc<dyn DiskFile> = RealDisk.open(path, OpenMode::Read).map_err(failed("open"))?.into();
    let reading = failed("read");
    Ok(chunks(move |buffer, offset| file.read_at(buffer, offset).map_err(&reading)))
}

/// The bytes of standard input.
fn standard_input() -> ByteStream {
    chunks(|buffer, _| {
        let read = std::io::stdin().lock().read(buffer);
        read.map_err(|error| StorageError::io("read", Path::new("standard input"), error).into())
    })
}

/// What `read` gives until it gives nothing, in chunks, from threads that may block.
fn chunks(
    read: impl Fn(&mut [u8], u64) -> Result<usize, RegistryError> + Send + Sync + 'static,
) -> ByteStream {
    let read = Arc::new(read);
    stream::unfold(Some(0_u64), move |offset| {
        let read = Arc::clone(&read);
        async move {
            let offset = offset?;
            let chunk = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; CHUNK_BYTES];
                let length = read(&mut buffer, offset)?;
                buffer.truncate(length);
                Ok(Bytes::from(buffer))
            });
            let ended =
                |error| Err(RegistryError::Internal { problem: format!("reading ended early: {error}") });
            match chunk.await.unwrap_or_else(ended) {
                Ok(chunk) if chunk.is_empty() => None,
                Ok(chunk) => {
                    let next = offset + chunk.len() as u64;
                    Some((Ok(chunk), Some(next)))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    })
    .boxed()
}
