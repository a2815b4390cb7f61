//! `file:` sources: a GGUF file or a folder in the Hugging Face form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_storage::DurableFiles;

use super::selection::{is_pickle, refuse_pickle, select};
use super::{Context, Gathered, GatheredFile};
use crate::RegistryError;
use crate::blocking::blocking;
use crate::progress::Phase;

pub(super) async fn gather(context: &Context, path: &Path) -> Result<Gathered, RegistryError> {
    let (intake, reporter, path) = (Arc::clone(&context.intake), context.reporter.clone(), path.to_owned());
    let files = context.registry.files().clone();
    blocking(move || {
        let mut gathered = Gathered::default();
        for (name, path) in model_files(&files, &path)? {
            let total = files.size(&path)?;
            let mut report = |done| reporter.file(Phase::Copying, &name, done, Some(total));
            let blob = intake.import_file(&path, &mut report)?;
            gathered.files.push(GatheredFile { path: name, blob });
        }
        Ok(gathered)
    })
    .await
}

/// The model's files, by name in the model.
pub(crate) fn model_files(
    files: &DurableFiles,
    path: &Path,
) -> Result<Vec<(String, PathBuf)>, RegistryError> {
    let subject = format!("`{}`", path.display());
    let name_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    if !files.is_dir(path) {
        let name =
            name_of(path).ok_or_else(|| RegistryError::invalid_model(&subject, "its name is not UTF-8"))?;
        if is_pickle(&name) {
            return Err(refuse_pickle(&subject, &name));
        }
        if !name.ends_with(".gguf") {
            return Err(RegistryError::invalid_model(subject, "it is neither a folder nor a .gguf file"));
        }
        return Ok(vec![(name, path.to_owned())]);
    }
    let names: Vec<String> = files.list(path, false)?.iter().filter_map(|path| name_of(path)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let selected = select(&subject, &names)?;
    Ok(selected.into_iter().map(|name| (name.to_owned(), path.join(name))).collect())
}
