//! The registry and its database: what a crash leaves, and how both grow.

mod crashes;
#[path = "../../../../metadata/tests/it/made.rs"]
#[allow(dead_code, reason = "the tests of the database need more of it")]
pub(crate) mod made;
mod one_database;
#[path = "../../../../metadata/tests/it/postgres_server.rs"]
mod postgres_server;
mod scale;
