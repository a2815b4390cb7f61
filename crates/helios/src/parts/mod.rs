//! How the parts of Helios meet: the adapters between registry, proxy and workers that only the binary can see both
//! sides of, and the three of them together in one process.

mod fleet;
mod listen;
mod mounts;
mod neighbours;
mod platform;
mod texts;
mod uses;

pub(crate) use fleet::RegistryFleet;
pub(crate) use listen::{Interrupt, announce, check_internal};
pub(crate) use mounts::{metrics_mount, mounts};
pub(crate) use neighbours::Neighbours;
pub(crate) use platform::Platform;
pub(crate) use texts::StoreTexts;
