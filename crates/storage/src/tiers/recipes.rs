//! Recipes live in the main directory, beside the whole blobs that they are made of, which are bound to it.

use std::collections::HashSet;
use std::sync::Arc;

use helios_types::Digest;

use super::Tiers;
use super::reservation::Reservation;
use crate::{BlobInfo, BlobStore, Recipe, RecipePlan, StorageError};

impl Tiers {
    /// Whether the main directory has the whole blob: only there may a recipe refer to it, or take its place.
    pub fn has_whole(&self, digest: &Digest) -> bool {
        self.directories[self.main].store().is_ok_and(|store| store.has_whole(digest))
    }

    /// The recipe of a file, if it is kept as one.
    ///
    /// # Errors
    /// [`StorageError::RecipeBroken`], [`StorageError::Io`].
    pub fn recipe(&self, digest: &Digest) -> Result<Option<Recipe>, StorageError> {
        self.in_main(|store| store.recipe(digest))
    }

    /// The files that are kept as recipes, ordered by digest.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn recipes(&self) -> Result<Vec<Digest>, StorageError> {
        self.in_main(BlobStore::recipes)
    }

    /// The blobs that recipes among `live` need: they must stay as long as those.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn recipe_sources(&self, live: &HashSet<Digest>) -> Result<Vec<Digest>, StorageError> {
        self.in_main(|store| store.recipe_sources(live))
    }

    /// Makes a recipe of a whole blob of the main directory, and takes its copies away.
    ///
    /// # Errors
    /// As [`BlobStore::replace_by_recipe`]; [`StorageError::NoRoom`] if what only this file has does not fit beside it.
    pub fn replace_by_recipe(
        self: &Arc<Self>,
        info: &BlobInfo,
        plan: &RecipePlan,
    ) -> Result<Recipe, StorageError> {
        if !self.keeps_books() {
            return self.in_main(|store| store.replace_by_recipe(info, plan));
        }
        // Padding puts each own tensor at the beginning of a page; saved_bytes counts it.
        let own_bytes = info.size.saturating_sub(plan.saved_bytes());
        let room = Reservation::new(self, self.main, own_bytes).ok_or_else(|| self.no_room(own_bytes))?;
        let recipe = self.in_main(|store| store.replace_by_recipe(info, plan))?;
        room.settle(recipe.own.digest, recipe.own.size);
        let mut ledger = self.ledger();
        ledger.bind(recipe.sources());
        ledger.remove(self.main, &info.digest);
        drop(ledger);
        for id in (0..self.directories.len()).filter(|id| *id != self.main) {
            if self.attempt(id, |store| store.remove(&info.digest)).is_ok() {
                self.ledger().remove(id, &info.digest);
            }
        }
        Ok(recipe)
    }

    /// Finds out which blobs recipes are made of.
    pub(crate) fn bind_recipes(&self) -> Result<(), StorageError> {
        if !self.keeps_books() {
            return Ok(());
        }
        let sources = self.in_main(|store| {
            let recipes = store.recipes()?.into_iter().collect();
            store.recipe_sources(&recipes)
        })?;
        let mut ledger = self.ledger();
        ledger.unbind();
        ledger.bind(sources);
        Ok(())
    }
}
