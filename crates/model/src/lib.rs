//! What a model is, read from its files, and nothing of where the files are kept or came from.
//!
//! - [`select`] says which files of a folder make a model, [`understand`] what they say and what is derived from them.
//! - A [`Manifest`] is one immutable version: files by role, facts, [`MemoryProfile`], [`Lineage`].
//! - [`convert`] says the same model in the other form, without changing a value.
//!
//! Files are hostile: reading them fails with a [`ModelError`] that names the file, never with a panic.

#![forbid(unsafe_code)]

pub mod convert;
mod error;
mod folder;
pub mod lineage;
mod manifest;
pub mod profile;
mod selection;
pub mod token_table;
mod understand;

pub use error::ModelError;
pub use folder::model_files;
pub use lineage::{BaseModel, Conversion, Lineage, Relation};
pub use manifest::{
    DERIVED, FileEntry, MANIFEST_SCHEMA, Manifest, ModelFacts, Role, WeightFormat, is_derived, is_safe_path,
};
pub use profile::MemoryProfile;
pub use selection::{INDEX_FILE, is_pickle, refuse_pickle, select};
pub use understand::{DerivedFile, Understood, check_small_files, understand};
