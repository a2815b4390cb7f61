//! Folders of an object store: S3-compatible, Google Cloud Storage, Azure.

mod direct;
mod limits;
mod upload;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use helios_storage::FileBytes;
use http::HeaderValue;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::HttpConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig};
use reqwest::Url;

use direct::Direct;
use limits::{Limited, Patient};

use crate::transfer::{Answer, Origin, SourceKind};
use crate::{FetchConfig, RegistryError};

/// Objects below one folder.
const OBJECTS_MAX: usize = 10_000;
/// How often one request is made again that failed.
const RETRIES_MAX: usize = 2;
/// How long after its beginning, beside what the store asks to wait.
const RETRIES_TIME_MAX: Duration = Duration::from_secs(30);

/// A folder of a bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    shown: String,
}

impl Bucket {
    /// The folder that a `s3:`, `gs:` or `az:` address names. Asks nobody.
    ///
    /// # Errors
    /// [`RegistryError::InvalidSource`] for an address or options that cannot be.
    pub(crate) fn open(url: &Url, fetch: &FetchConfig) -> Result<Self, RegistryError> {
        let http = Direct { connect_timeout: fetch.connect_timeout, read_timeout: fetch.stall_timeout };
        Self::open_over(url, fetch, http)
    }

    fn open_over(url: &Url, fetch: &FetchConfig, http: impl HttpConnector) -> Result<Self, RegistryError> {
        let invalid = |error: Error| RegistryError::invalid_source(url.as_str(), error.to_string());
        let store = build(url, fetch, http).map_err(invalid)?;
        let folder = Path::from_url_path(url.path()).map_err(|error| invalid(error.into()))?;
        Ok(Self { store, folder, shown: url.to_string().trim_end_matches('/').to_owned() })
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The objects below the folder by their names in it, with their bytes.
    pub(crate) async fn list(&self) -> Result<Vec<(String, u64)>, RegistryError> {
        let mut names = Vec::new();
        let mut objects = self.store.list(Some(&self.folder));
        while let Some(object) = objects.try_next().await.map_err(|error| failed(&self.shown, &error))? {
            if names.len() >= OBJECTS_MAX {
                let problem = format!("more than {OBJECTS_MAX} objects");
                return Err(RegistryError::OriginLied { url: self.shown.clone(), problem });
            }
            let inner = object.location.prefix_match(&self.folder);
            let name =
                inner.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
            names.extend(name.filter(|name| !name.is_empty()).map(|name| (name, object.size)));
        }
        Ok(names)
    }

    /// One object; an empty name is the folder's own address.
    pub(crate) fn file(&self, name: &str) -> ObjectFile {
        let path = name.split('/').filter(|part| !part.is_empty()).fold(self.folder.clone(), Path::join);
        let shown = if name.is_empty() { self.shown.clone() } else { format!("{}/{name}", self.shown) };
        ObjectFile { store: Arc::clone(&self.store), path, shown }
    }
}

fn build(url: &Url, fetch: &FetchConfig, http: impl HttpConnector) -> Result<Arc<dyn ObjectStore>, Error> {
    let options = &fetch.object_options;
    let http = Patient { http, wait_max: fetch.retry_after_max };
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRIES_TIME_MAX + fetch.retry_after_max,
        ..RetryConfig::default()
    };
    // Each store takes the options that it knows: those of others may be set in the same environment.
    Ok(match url.scheme() {
        "gs" => {
            let builder = GoogleCloudStorageBuilder::new().with_url(url.as_str());
            let builder = builder.with_retry(retry).with_http_connector(http);
            Arc::new(options.fold(builder, |builder, key, value| builder.with_config(key, value)).build()?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::new().with_url(url.as_str());
            let builder = builder.with_retry(retry).with_http_connector(http);
            Arc::new(options.fold(builder, |builder, key, value| builder.with_config(key, value)).build()?)
        }
        _ => {
            let builder = AmazonS3Builder::new().with_url(url.as_str());
            let builder = builder.with_retry(retry).with_http_connector(http);
            Arc::new(options.fold(builder, |builder, key, value| builder.with_config(key, value)).build()?)
        }
    })
}

/// An object.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    shown: String,
}

impl ObjectFile {
    /// Its bytes; `None` if there is no such object.
    pub(crate) async fn read(&self, bytes_max: u64) -> Result<Option<Bytes>, RegistryError> {
        let found = match self.store.get(&self.path).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|error| failed(&self.shown, &error))?,
        };
        if found.meta.size > bytes_max {
            let problem = format!("{} bytes, at most {bytes_max}", found.meta.size);
            return Err(RegistryError::OriginLied { url: self.shown.clone(), problem });
        }
        found.bytes().await.map(Some).map_err(|error| failed(&self.shown, &error))
    }

    /// Its bytes' number; `None` if there is no such object.
    pub(crate) async fn size(&self) -> Result<Option<u64>, RegistryError> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&self.shown, &error)),
        }
    }

    /// Puts the object there, in parts if it is large; it appears whole or not at all. Nothing of a file is copied.
    pub(crate) async fn write(&self, file: impl Into<FileBytes>) -> Result<(), RegistryError> {
        upload::put(&*self.store, &self.path, &file.into()).await.map_err(|error| failed(&self.shown, &error))
    }

    async fn ask(&self, range: Option<Range<u64>>, tag: Option<String>) -> Result<Answer, Error> {
        let is_part = range.is_some();
        let options =
            GetOptions { range: range.map(GetRange::Bounded), if_match: tag, ..GetOptions::default() };
        let found = self.store.get_opts(&self.path, options).await?;
        let validator = found.meta.e_tag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok());
        let (start, length, shown) = (found.range.start, Some(found.meta.size), self.shown.clone());
        let body = found.into_stream().map_err(move |error| failed(&shown, &error)).boxed();
        Ok(Answer { is_part, start, length, validator, body })
    }
}

impl Origin for ObjectFile {
    fn shown(&self) -> String {
        self.shown.clone()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::ObjectStore
    }

    fn open<'a>(
        &'a self,
        range: Range<u64>,
        validator: Option<&'a HeaderValue>,
    ) -> BoxFuture<'a, Result<Answer, RegistryError>> {
        async move {
            let tag = validator.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            let answer = match self.ask(Some(range), tag).await {
                Err(Error::Precondition { .. }) => self.ask(None, None).await,
                answer => answer,
            };
            answer.map_err(|error| failed(&self.shown, &error))
        }
        .boxed()
    }
}

/// The error of a store in our words. What the store's client tried again already counts as out of reach.
fn failed(shown: &str, error: &Error) -> RegistryError {
    let (url, cause) = (shown.to_owned(), innermost(error));
    let (status, hint, retry_after) = match error {
        Error::NotFound { .. } => (404, "check bucket and name", None),
        Error::PermissionDenied { .. } => (403, "the credentials do not give the right to this", None),
        Error::Unauthenticated { .. } => {
            let hint = "set the store's credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
            (401, hint, None)
        }
        _ => match cause.downcast_ref::<Limited>() {
            Some(limited) => (
                limited.status,
                "the store limits how often it is asked; try again later",
                Some(limited.wait),
            ),
            None => return RegistryError::OriginUnreachable { url, problem: cause.to_string() },
        },
    };
    RegistryError::OriginStatus { url, status, hint, retry_after }
}

fn innermost(error: &Error) -> &(dyn std::error::Error + 'static) {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests;
