//! `s3:`, `gs:` and `az:` sources: a GGUF file, or a folder in the Hugging Face form, in an object store.

use helios_model::{is_safe_path, select};
use reqwest::Url;

use super::download::Wanted;
use super::{Context, Gathered, GatheredFile, file_name};
use crate::RegistryError;
use crate::object::Bucket;

pub(super) async fn gather(context: &Context, url: &Url) -> Result<Gathered, RegistryError> {
    let bucket = Bucket::open(url, context.registry.fetcher().config())?;
    if url.path().ends_with(".gguf") {
        let name = file_name(url.path());
        let wanted = Wanted { name, digest: None, size: None };
        return Ok(Gathered::one(name, context.bring(wanted, None, &bucket.file("")).await?));
    }
    let objects = bucket.list().await?;
    if let Some((name, _)) = objects.iter().find(|(name, _)| !is_safe_path(name)) {
        let problem = format!("unsafe file name {name:?}");
        return Err(RegistryError::OriginLied { url: url.to_string(), problem });
    }
    let names: Vec<&str> = objects.iter().map(|(name, _)| name.as_str()).collect();
    let mut gathered = Gathered::default();
    for name in select(url.as_str(), &names)? {
        context.before(name, &gathered.files, url.as_str()).await?;
        let wanted = Wanted { name, digest: None, size: None };
        let blob = context.bring(wanted, None, &bucket.file(name)).await?;
        gathered.files.push(GatheredFile { path: name.to_owned(), blob });
    }
    Ok(gathered)
}
