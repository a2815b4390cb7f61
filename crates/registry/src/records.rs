//! Small JSON documents of other parts, kept in the database: pins, warm pools, what was asked for when.

use std::sync::Arc;

use helios_metadata::Change;
use helios_types::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Registry, RegistryError};

/// Records of one kind; who keeps more deletes the old ones first.
pub const RECORDS_MAX: u64 = 10_000;

impl Registry {
    /// Writes a record, durably, replacing the one of the same kind and key. At most
    /// [`RECORD_BYTES_MAX`](helios_metadata::RECORD_BYTES_MAX) of JSON.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] when there are [`RECORDS_MAX`] of that kind; [`RegistryError::Metadata`].
    pub async fn put_record(
        self: &Arc<Self>,
        kind: &str,
        key: &str,
        value: &impl Serialize,
    ) -> Result<(), RegistryError> {
        let value = serde_json::to_string(value).map_err(|error| RegistryError::Internal {
            problem: format!("the record {kind}/{key} cannot be written: {error}"),
        })?;
        let count = self.metadata().record_kinds().await?.get(kind).copied().unwrap_or_default();
        if count >= RECORDS_MAX && self.metadata().record(kind, key).await?.is_none() {
            let problem = format!("there are {RECORDS_MAX} records of kind `{kind}` already");
            return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::Overloaded });
        }
        let put = Change::PutRecord { kind: kind.to_owned(), key: key.to_owned(), value };
        Ok(self.metadata().commit(&[put]).await?)
    }

    /// A record.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`]; [`RegistryError::InvalidManifest`] if it is not of that type.
    pub async fn record<T: DeserializeOwned>(
        &self,
        kind: &str,
        key: &str,
    ) -> Result<Option<T>, RegistryError> {
        let value = self.metadata().record(kind, key).await?;
        value.map(|value| parse(kind, key, &value)).transpose()
    }

    /// Keys and records of a kind, ordered by key.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub async fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(String, T)>, RegistryError> {
        let records = self.metadata().records(kind).await?;
        records.into_iter().map(|(key, value)| Ok((key.clone(), parse(kind, &key, &value)?))).collect()
    }

    /// Removes a record, durably; nothing happens if it is not there.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn remove_record(self: &Arc<Self>, kind: &str, key: &str) -> Result<(), RegistryError> {
        let remove = Change::RemoveRecord { kind: kind.to_owned(), key: key.to_owned() };
        Ok(self.metadata().commit(&[remove]).await?)
    }
}

fn parse<T: DeserializeOwned>(kind: &str, key: &str, value: &str) -> Result<T, RegistryError> {
    serde_json::from_str(value).map_err(|error| RegistryError::InvalidManifest {
        subject: format!("the record {kind}/{key}"),
        problem: error.to_string(),
    })
}
