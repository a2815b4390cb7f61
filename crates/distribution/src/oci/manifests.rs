//! Manifests by tag and by digest: read, pushed, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use helios_model::{DERIVED, FileEntry, Role, is_derived, is_safe_path};
use helios_registry::protocol::{Artifact, BodyPieces, Descriptor, Intake, TITLE, digest_of};
use helios_storage::BlobInfo;
use helios_types::{DEFAULT_TAG, Digest, ModelRef};
use serde::Deserialize;

use super::blobs::content_digest;
use super::error::OciError;
use super::state::{Oci, digest};
use crate::names;

/// Bytes of a manifest, as the specification has it.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Layers of a manifest.
const LAYERS_MAX: usize = 4000;

/// `GET` or `HEAD` of `/v2/NAME/manifests/REFERENCE`.
pub(super) async fn read(
    oci: &Oci,
    name: &str,
    reference: &str,
    request: Request,
) -> Result<Response, OciError> {
    let artifact = find(oci, name, reference).await?;
    let Artifact { bytes, media_type, digest } = artifact;
    let about = [
        (CONTENT_TYPE, media_type),
        (CONTENT_LENGTH, bytes.len().to_string()),
        (ETAG, format!("\"{digest}\"")),
    ];
    let body = if request.method() == Method::HEAD { bytes.slice(..0) } else { bytes };
    Ok((about, content_digest(&digest), body).into_response())
}

async fn find(oci: &Oci, name: &str, reference: &str) -> Result<Artifact, OciError> {
    if reference.contains(':') {
        return by_digest(oci, name, reference).await;
    }
    let (_, versions) = oci.versions(name).await?;
    let entry = match reference {
        DEFAULT_TAG => versions.main(),
        tag => versions.tags().find(|(known, _)| *known == tag).map(|(_, entry)| entry),
    };
    let entry = entry.ok_or_else(|| OciError::no_manifest(name, reference))?;
    let manifest = oci.registry.manifest(&entry.digest).await?;
    Ok(Artifact::of(&oci.registry, &entry.digest, &manifest).await?)
}

/// One that was pushed, or one that is made from a version of this name.
async fn by_digest(oci: &Oci, name: &str, reference: &str) -> Result<Artifact, OciError> {
    let wanted = digest(reference)?;
    if let Some((_, manifest)) = oci.registry.manifest_with(&wanted).await?
        && let Some(pushed) = manifest.files(Role::OciManifest).find(|file| file.blob.digest == wanted)
    {
        return Ok(Artifact::pushed(&oci.registry, pushed).await?);
    }
    let (_, versions) = oci.versions(name).await?;
    for entry in versions.all() {
        let Ok(manifest) = oci.registry.manifest(&entry.digest).await else { continue };
        let made = Artifact::made(&entry.digest, &manifest);
        if made.digest == wanted {
            return Ok(made);
        }
    }
    Err(OciError::no_manifest(name, reference))
}

/// A manifest as it is pushed, as far as it matters here.
#[derive(Deserialize)]
struct Pushed {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<serde_json::Value>,
}

/// `PUT /v2/NAME/manifests/REFERENCE`.
pub(super) async fn put(
    oci: &Oci,
    name: &str,
    reference: &str,
    request: Request,
) -> Result<Response, OciError> {
    let bytes = BodyPieces::of(request.into_body()).whole(MANIFEST_BYTES_MAX).await?;
    let actual = digest_of(&bytes);
    let target = target(name, reference, &actual)?;
    let pushed: Pushed = serde_json::from_slice(&bytes)
        .map_err(|error| OciError::bad_manifest(format!("the manifest cannot be read: {error}")))?;
    let intake = oci.registry.intake();
    let mut files = Files::default();
    files.add(oci, &intake, pushed).await?;
    let info = intake.store(bytes.to_vec()).await?;
    let path = format!("{}/oci/manifest.json", DERIVED);
    files.kept.push(FileEntry { role: Role::OciManifest, path, blob: info });
    oci.registry.add_version(&target, files.files, files.kept, intake).await?;
    let location = format!("/v2/{name}/manifests/{actual}");
    Ok((StatusCode::CREATED, [(LOCATION, location)], content_digest(&actual)).into_response())
}

/// The tag that a push moves. One by digest gets a tag made from it, without which nothing would keep it.
fn target(name: &str, reference: &str, actual: &Digest) -> Result<ModelRef, OciError> {
    let tag = if reference.contains(':') {
        let named = digest(reference)?;
        if named != *actual {
            return Err(OciError::bad_digest(format!("the manifest has digest {actual}, not {named}")));
        }
        format!("sha256-{}", actual.hex())
    } else {
        reference.to_owned()
    };
    let model = format!("{}:{tag}", names::model_name(name)).parse::<ModelRef>();
    model.map_err(|error| OciError::new(StatusCode::BAD_REQUEST, "TAG_INVALID", error.to_string()))
}

/// What a pushed manifest names, as files of a version.
#[derive(Default)]
struct Files {
    /// Layers with a title.
    files: BTreeMap<String, BlobInfo>,
    /// Everything else.
    kept: Vec<FileEntry>,
    paths: BTreeSet<String>,
}

impl Files {
    async fn add(&mut self, oci: &Oci, intake: &Arc<Intake>, pushed: Pushed) -> Result<(), OciError> {
        if pushed.manifests.is_some() {
            let message = "an index of several manifests is not a model\nhint: push one manifest";
            return Err(OciError::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message));
        }
        if pushed.layers.len() > LAYERS_MAX {
            let message = format!("{} layers, more than {LAYERS_MAX}", pushed.layers.len());
            return Err(OciError::bad_manifest(message));
        }
        let config = pushed.config.ok_or_else(|| OciError::bad_manifest("the manifest has no config"))?;
        self.keep(known(oci, intake, &config).await?);
        for layer in &pushed.layers {
            let blob = known(oci, intake, layer).await?;
            match layer.annotations.get(TITLE) {
                Some(title) => self.add_file(title, blob)?,
                None => self.keep(blob),
            }
        }
        Ok(())
    }

    fn add_file(&mut self, title: &str, blob: BlobInfo) -> Result<(), OciError> {
        if !is_safe_path(title) || is_derived(title) {
            return Err(OciError::bad_manifest(format!("the title {title:?} is no safe name of a file")));
        }
        if !self.paths.insert(title.to_owned()) {
            return Err(OciError::bad_manifest(format!("two layers have the title {title:?}")));
        }
        self.files.insert(title.to_owned(), blob);
        Ok(())
    }

    fn keep(&mut self, blob: BlobInfo) {
        let path = format!("{}/oci/{}", DERIVED, blob.digest.hex());
        if self.paths.insert(path.clone()) {
            self.kept.push(FileEntry { role: Role::OciBlob, path, blob });
        }
    }
}

/// The blob that a descriptor names, which has to be known already.
async fn known(oci: &Oci, intake: &Arc<Intake>, named: &Descriptor) -> Result<BlobInfo, OciError> {
    let digest = digest(&named.digest)?;
    let info = match oci.registry.known_blob(&digest).await? {
        Some(info) => info,
        // The configuration of an artifact that was made here.
        None => match oci.registry.manifest(&digest).await {
            Ok(manifest) => intake.store(manifest.to_bytes()).await?,
            Err(_) => {
                let message = format!("the blob {digest} was not uploaded");
                return Err(OciError::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message));
            }
        },
    };
    if info.size != named.size {
        let message = format!("the blob {digest} has {} bytes, the manifest says {}", info.size, named.size);
        return Err(OciError::bad_manifest(message));
    }
    Ok(info)
}

/// `DELETE /v2/NAME/manifests/TAG`.
pub(super) async fn delete(oci: &Oci, name: &str, reference: &str) -> Result<Response, OciError> {
    if reference.contains(':') {
        let message = "a manifest goes when no tag needs it\nhint: delete its tags, then run `helios gc`";
        return Err(OciError::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message));
    }
    let (name, versions) = oci.versions(name).await?;
    let tag = versions.references().find(|known| known.tag() == reference);
    let tag = tag.ok_or_else(|| OciError::no_manifest(&name, reference))?;
    oci.registry.remove(tag).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
