//! Going back to an earlier version of a model.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use helios_metadata::TagEntry;
use helios_types::{Digest, ModelRef};

use crate::{Registry, RegistryError, Resolved};

/// Hex digits of a digest that are enough to name it.
const PREFIX_MIN: usize = 6;
/// Digits of a number of steps: more of them begin a digest.
const STEPS_DIGITS_MAX: usize = 3;

/// Which version of a history is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollbackTarget {
    /// The one so many steps before the newest.
    Back(usize),
    /// The newest whose digest begins so, with or without `sha256:`.
    Digest(String),
}

impl FromStr for RollbackTarget {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(steps) if text.len() <= STEPS_DIGITS_MAX => Self::Back(steps),
            _ => Self::Digest(text.to_owned()),
        })
    }
}

impl RollbackTarget {
    /// The version that is meant. O(history).
    fn find(&self, history: &[TagEntry]) -> Option<Digest> {
        let mut newest_first = history.iter().rev().map(|entry| entry.digest);
        match self {
            Self::Back(steps) => newest_first.nth(*steps),
            Self::Digest(text) => {
                let prefix = text.strip_prefix("sha256:").unwrap_or(text);
                newest_first.find(|digest| prefix.len() >= PREFIX_MIN && digest.hex().starts_with(prefix))
            }
        }
    }
}

impl Registry {
    /// Points a tag at an earlier version of its history again. The history grows by that step; nothing is lost, so that
    /// going back can be taken back.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::NoSuchVersion`] if the history has none that is meant;
    /// [`RegistryError::Storage`]; [`RegistryError::Metadata`].
    pub async fn rollback(
        self: &Arc<Self>,
        model: &ModelRef,
        target: &RollbackTarget,
    ) -> Result<Resolved, RegistryError> {
        let (reference, _) = self.pointer(model).await?;
        let history = self.history(&reference).await?;
        let digest = target.find(&history).ok_or_else(|| RegistryError::NoSuchVersion {
            model: reference.to_string(),
            versions: history.len(),
        })?;
        let manifest = self.manifest(&digest).await?;
        self.point(reference, digest, manifest, format!("rollback to {digest}")).await
    }
}

#[cfg(test)]
mod tests {
    use helios_types::Digest;

    use super::RollbackTarget;
    use crate::TagEntry;

    #[test]
    fn steps_and_digests_name_a_version() {
        let digest = |byte| Digest::from_bytes([byte; 32]);
        let entry = |byte| TagEntry { digest: digest(byte), at: 0, source: String::new() };
        let history = [entry(0x11), entry(0x22), entry(0x11)];
        let find = |text: &str| text.parse::<RollbackTarget>().ok()?.find(&history);
        assert_eq!(find("1"), Some(digest(0x22)));
        assert_eq!(find("2"), Some(digest(0x11)));
        assert_eq!(find("222222"), Some(digest(0x22)));
        assert_eq!(find(&digest(0x22).to_string()), Some(digest(0x22)));
        for none in ["3", "22222", "333333", "", "sha256:"] {
            assert_eq!(find(none), None, "{none:?}");
        }
    }
}
