//! The registry and its database: what a crash leaves, and how both grow.

mod crashes;
#[path = "../../../../metadata/tests/it/made.rs"]
#[allow(dead_code, reason = "the tests of the database need more of it")]
pub(crate) mod made;
mod scale;
