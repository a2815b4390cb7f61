//! What each command does.

mod archive;
mod bench;
mod cluster;
mod config;
mod database;
mod doctor;
mod fit;
mod ps;
mod run;
mod serve;
mod show;
mod store;
mod tiers;
mod warm;

pub(crate) use archive::{export, import};
pub(crate) use bench::{bench_engine, bench_prefetch, bench_storage};
pub(crate) use cluster::{proxy, registry, worker};
pub(crate) use config::{config, config_schema};
pub(crate) use doctor::doctor;
pub(crate) use fit::run as fit;
pub(crate) use ps::ps;
pub(crate) use run::run;
pub(crate) use serve::serve;
pub(crate) use show::show;
pub(crate) use store::{convert, dedup, gc, history, list, pull, push, rm, rollback, tag};
pub(crate) use tiers::tiers;
pub(crate) use warm::warm;
