//! The directories of the store beside its own, and its bounds, as the configuration has them.

use std::path::{Path, PathBuf};

use helios_distribution::hub;
use helios_storage::tiers::{TierDirectory, TierKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, StoreConfig, parse_size};

/// One directory of the store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierSettings {
    /// What it is made of: `memory` (a tmpfs, never the only place of a blob), `nvme` or `ssd` (any slower disk).
    pub(crate) kind: KindSetting,
    /// Where it is; created if need be.
    pub(crate) dir: PathBuf,
    /// Most bytes of blobs in it, such as `64GiB`; by default what its file system has. `memory` needs one.
    #[serde(default)]
    pub(crate) budget: Option<String>,
}

/// What a directory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KindSetting {
    /// Host memory.
    Memory,
    /// Flash on PCIe.
    Nvme,
    /// Any slower disk.
    Ssd,
}

impl From<KindSetting> for TierKind {
    fn from(setting: KindSetting) -> Self {
        match setting {
            KindSetting::Memory => Self::Memory,
            KindSetting::Nvme => Self::Nvme,
            KindSetting::Ssd => Self::Ssd,
        }
    }
}

impl StoreConfig {
    /// The directories of the store in `main`, in the order that new blobs try them; none if `main` is all there is and
    /// has no budget.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a budget that is none, a directory that is named twice, or memory as the store's own.
    pub(crate) fn tier_directories(&self, main: &Path) -> Result<Vec<TierDirectory>, ConfigError> {
        let mut directories: Vec<TierDirectory> = Vec::new();
        if let Some(budget) = &self.budget {
            let budget_bytes = Some(bytes("store.budget", budget)?);
            directories.push(TierDirectory { kind: TierKind::Nvme, dir: main.to_owned(), budget_bytes });
        }
        for (index, tier) in self.tiers.iter().enumerate() {
            let key = format!("store.tiers[{index}]");
            let value = |problem: String| ConfigError::Value { message: format!("{key}: {problem}") };
            let kind = TierKind::from(tier.kind);
            let shown = tier.dir.display();
            if directories.iter().any(|known| known.dir == tier.dir) {
                return Err(value(format!("`{shown}` is named twice")));
            }
            if tier.dir == main && !kind.is_durable() {
                return Err(value("the store's own directory cannot be in memory".to_owned()));
            }
            let budget_bytes = match &tier.budget {
                Some(budget) => Some(bytes(&format!("{key}.budget"), budget)?),
                None if kind == TierKind::Memory => {
                    return Err(value(format!("`{shown}` is memory and needs a budget, such as `8GiB`")));
                }
                None => None,
            };
            directories.push(TierDirectory { kind, dir: tier.dir.clone(), budget_bytes });
        }
        Ok(directories)
    }
}

impl StoreConfig {
    /// Bytes of a worker's cache, where they are configured.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for what is no size.
    pub(crate) fn cache_bytes(&self) -> Result<Option<u64>, ConfigError> {
        self.cache_budget.as_deref().map(|budget| bytes("store.cache_budget", budget)).transpose()
    }
}

impl StoreConfig {
    /// The bounds of the hub's protocol.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for what is no size.
    pub(crate) fn hub_limits(&self) -> Result<hub::Limits, ConfigError> {
        let configured = self.commit_file_max.as_deref().map(|max| bytes("store.commit_file_max", max));
        let default = hub::Limits::default().commit_file_bytes;
        Ok(hub::Limits { commit_file_bytes: configured.transpose()?.unwrap_or(default) })
    }
}

fn bytes(key: &str, text: &str) -> Result<u64, ConfigError> {
    parse_size(text).map_err(|problem| ConfigError::Value { message: format!("{key}: {problem}") })
}
