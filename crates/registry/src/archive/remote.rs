//! Archives of and into a registry elsewhere.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use helios_types::ModelRef;
use http::header::{CONTENT_TYPE, IF_RANGE, RANGE};
use http::{Method, StatusCode};
use reqwest::RequestBuilder;

use super::{ArchiveReport, ByteStream, Opened};
use crate::client::Lines;
use crate::http::ARCHIVE_TYPE;
use crate::http::wire::ImportLine;
use crate::{Progress, RegistryClient, RegistryError};

impl RegistryClient {
    /// An archive of models there, from byte `from.0` on if it is still the one with the tag `from.1`, else from its
    /// beginning.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub(crate) async fn export(
        &self,
        models: &[ModelRef],
        from: Option<(u64, &str)>,
    ) -> Result<Opened, RegistryError> {
        let names: Vec<String> = models.iter().map(ToString::to_string).collect();
        let query: Vec<(&str, &str)> = names.iter().map(|name| ("model", name.as_str())).collect();
        let mut request = self.request(Method::GET, self.url(&["export"], &query));
        if let Some((start, tag)) = from {
            request = request.header(RANGE, format!("bytes={start}-")).header(IF_RANGE, format!("\"{tag}\""));
        }
        let response = self.send(request).await?;
        let length = response.content_length();
        let length = length.ok_or_else(|| self.no_answer("an archive of unknown length".to_owned()))?;
        let start = match (response.status(), from) {
            (StatusCode::PARTIAL_CONTENT, Some((start, _))) => start,
            _ => 0,
        };
        let client = self.clone();
        let bytes = response.bytes_stream().map_err(move |error| client.unreachable(&error));
        Ok(Opened { start, total: start.saturating_add(length), bytes: bytes.boxed() })
    }

    /// Brings the models of an archive in there; see [`Registry::import_archive`](crate::Registry::import_archive).
    ///
    /// # Errors
    /// As [`model`](Self::model), or what the stream says.
    pub async fn import_archive(
        &self,
        bytes: ByteStream,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<ArchiveReport, RegistryError> {
        // What the stream says would reach nobody in a request that breaks off.
        let failed: Arc<Mutex<Option<RegistryError>>> = Arc::default();
        let failing = Arc::clone(&failed);
        let bytes = bytes.map_err(move |error| {
            let shown = std::io::Error::other(error.to_string());
            failing.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            shown
        });
        let request =
            self.request(Method::POST, self.url(&["import"], &[])).header(CONTENT_TYPE, ARCHIVE_TYPE);
        let sent = self.follow_import(request.body(reqwest::Body::wrap_stream(bytes)), report).await;
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(sent, Err)
    }

    async fn follow_import(
        &self,
        request: RequestBuilder,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<ArchiveReport, RegistryError> {
        let response = self.send(request).await?;
        let mut lines = Lines::of(self, response);
        loop {
            match lines.next().await? {
                ImportLine::Progress(progress) => report(progress),
                ImportLine::Done(done) => return Ok(done),
                ImportLine::Error(detail) => return Err(detail.into()),
            }
        }
    }
}
