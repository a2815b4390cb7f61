//! Files of a model in a folder.

use std::path::{Path, PathBuf};

use helios_storage::DurableFiles;

use crate::ModelError;
use crate::selection::{is_pickle, refuse_pickle, select};

/// The files of the model at `path`, a GGUF file or a folder in the Hugging Face form, by name in the model.
///
/// # Errors
/// [`ModelError::Invalid`] for something else; [`ModelError::Storage`].
pub fn model_files(files: &DurableFiles, path: &Path) -> Result<Vec<(String, PathBuf)>, ModelError> {
    let subject = format!("`{}`", path.display());
    let name_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    if !files.is_dir(path) {
        let name = name_of(path).ok_or_else(|| ModelError::invalid(&subject, "its name is not UTF-8"))?;
        if is_pickle(&name) {
            return Err(refuse_pickle(&subject, &name));
        }
        if !name.ends_with(".gguf") {
            return Err(ModelError::invalid(subject, "it is neither a folder nor a .gguf file"));
        }
        return Ok(vec![(name, path.to_owned())]);
    }
    let names: Vec<String> = files.list(path, false)?.iter().filter_map(|path| name_of(path)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let selected = select(&subject, &names)?;
    Ok(selected.into_iter().map(|name| (name.to_owned(), path.join(name))).collect())
}
