//! Pulling: from a name or a source to a tagged version in the store, once however many ask at the same time.
//!
//! The work of a pull is one future that all who wait for it share; it runs while at least one of them does. When the
//! last goes away it is dropped, and what was downloaded stays for the next pull.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use helios_model::Manifest;
use helios_storage::StorageError;
use helios_types::{Digest, ModelRef};
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::catalogue::{self, CatalogueModel};
use crate::fetch::{Context, Expected};
use crate::import::{self, NoModel};
use crate::progress::{Phase, Progress, Reporter};
use crate::{Registry, RegistryError, Resolved, Source, names};

type Work = BoxFuture<'static, Result<Fetched, Arc<RegistryError>>>;

/// A version that is in the store, not yet tagged.
#[derive(Clone, Debug)]
struct Fetched {
    digest: Digest,
    manifest: Arc<Manifest>,
    source: String,
}

/// The pulls that run, by what they fetch.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<HashMap<String, Job>>);

struct Job {
    work: WeakShared<Work>,
    progress: watch::Receiver<Progress>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

/// A pull to be followed with [`next`](Self::next). Dropping it cancels it, unless somebody else follows the same.
pub struct Pull {
    registry: Arc<Registry>,
    name: ModelRef,
    work: Shared<Work>,
    progress: watch::Receiver<Progress>,
    /// Whether progress may still come.
    reports: bool,
}

/// What happens in a pull.
#[derive(Debug)]
pub enum PullEvent {
    /// It has come so far.
    Progress(Progress),
    /// It is done; nothing follows.
    Done(Resolved),
}

/// What is to be fetched.
#[derive(Clone)]
enum Plan {
    Catalogue(&'static CatalogueModel),
    Source(Source),
    /// A name that only upstream may know.
    Name(ModelRef),
}

impl Registry {
    /// Fetches a model and tags it: `spec` is a catalogue name or a source; `name` is what to call it, by default the
    /// catalogue's or the source's own name. `report` gets progress, the latest when several come quickly. Dropping the
    /// future cancels; the next pull resumes.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`] for a name outside the catalogue, and whatever the source or the store says.
    pub async fn pull(
        self: &Arc<Self>,
        spec: &str,
        name: Option<ModelRef>,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Resolved, RegistryError> {
        let mut pull = self.start_pull(spec, name).await?;
        loop {
            match pull.next().await? {
                PullEvent::Progress(progress) => report(progress),
                PullEvent::Done(resolved) => return Ok(resolved),
            }
        }
    }

    /// Adds a model from a GGUF file or a folder in the Hugging Face form.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub async fn import(
        self: &Arc<Self>,
        path: &std::path::Path,
        name: Option<ModelRef>,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Resolved, RegistryError> {
        self.pull(&Source::File(path.to_owned()).to_string(), name, report).await
    }

    /// As [`pull`](Self::pull), to be followed step by step.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`], [`RegistryError::InvalidSource`] or [`RegistryError::InvalidReference`].
    pub async fn start_pull(
        self: &Arc<Self>,
        spec: &str,
        name: Option<ModelRef>,
    ) -> Result<Pull, RegistryError> {
        let plan = self.plan(spec).await?;
        let name = match (name, &plan) {
            (Some(name), _) => name,
            (None, Plan::Catalogue(entry)) => entry.reference(),
            (None, Plan::Source(source)) => source.default_name()?,
            (None, Plan::Name(model)) => model.clone(),
        };
        names::check_new(&name)?;
        let (work, progress) =
            self.jobs().join(&plan.key(), |reporter| run(Arc::clone(self), plan.clone(), reporter));
        Ok(Pull { registry: Arc::clone(self), name, work, progress, reports: true })
    }

    async fn plan(&self, spec: &str) -> Result<Plan, RegistryError> {
        if Source::has_scheme(spec) {
            return spec.parse().map(Plan::Source);
        }
        if spec.contains("://") {
            return Err(RegistryError::invalid_source(spec, "its scheme is unknown"));
        }
        let model: ModelRef = spec.parse()?;
        match catalogue::find(&model) {
            Some(entry) => Ok(Plan::Catalogue(entry)),
            None if !self.upstreams().is_empty() => Ok(Plan::Name(model)),
            None => Err(self.not_found(&model).await),
        }
    }
}

impl Plan {
    fn key(&self) -> String {
        match self {
            Self::Catalogue(entry) => entry.reference().to_string(),
            Self::Source(source) => source.to_string(),
            Self::Name(model) => model.to_string(),
        }
    }

    /// What to ask upstream for; files of this host nobody else has, and a name of this store may mean another model there.
    fn upstream_spec(&self) -> Option<String> {
        (!matches!(self, Self::Source(Source::File(_) | Source::Convert { .. }))).then(|| self.key())
    }
}

impl Jobs {
    /// The running work of that key, or new work begun with `begin`.
    fn join(
        &self,
        key: &str,
        begin: impl FnOnce(Reporter) -> Work,
    ) -> (Shared<Work>, watch::Receiver<Progress>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = jobs.get(key).and_then(|job| Some((job.work.upgrade()?, job.progress.clone())));
        if let Some((work, progress)) = running.filter(|(work, _)| work.peek().is_none()) {
            return (work, progress);
        }
        jobs.retain(|_, job| job.work.upgrade().is_some());
        let (reporter, progress) = Reporter::new();
        let work = begin(reporter).shared();
        if let Some(weak) = work.downgrade() {
            jobs.insert(key.to_owned(), Job { work: weak, progress: progress.clone() });
        }
        (work, progress)
    }
}

impl Pull {
    /// Waits for the next event. After [`PullEvent::Done`] or an error there is none.
    ///
    /// # Errors
    /// Why the pull failed.
    pub async fn next(&mut self) -> Result<PullEvent, RegistryError> {
        while self.reports {
            tokio::select! {
                biased;
                result = self.work.clone() => return self.finish(result?).await,
                changed = self.progress.changed() => match changed {
                    Ok(()) => return Ok(PullEvent::Progress(self.progress.borrow_and_update().clone())),
                    Err(_) => self.reports = false,
                },
            }
        }
        let result = self.work.clone().await;
        self.finish(result?).await
    }

    async fn finish(&self, fetched: Fetched) -> Result<PullEvent, RegistryError> {
        let Fetched { digest, manifest, source } = fetched;
        self.registry.point(self.name.clone(), digest, manifest, source).await.map(PullEvent::Done)
    }
}

fn run(registry: Arc<Registry>, plan: Plan, reporter: Reporter) -> Work {
    let work = async move {
        let context = Context::new(registry, reporter);
        if let Some(spec) = plan.upstream_spec()
            && let Some((digest, manifest, source)) = context.fetch_upstream(&spec).await?
        {
            return Ok(Fetched { digest, manifest, source });
        }
        match plan {
            Plan::Source(source) => fetch(&context, &source, None).await,
            Plan::Catalogue(entry) => fetch_catalogue(&context, entry).await,
            Plan::Name(model) => Err(context.registry.not_found(&model).await),
        }
    };
    work.map(|result| result.map_err(Arc::new)).boxed()
}

/// The version with the entry's file that is here already, or from the first source that works.
async fn fetch_catalogue(
    context: &Context,
    entry: &'static CatalogueModel,
) -> Result<Fetched, RegistryError> {
    if let Some((digest, manifest)) = context.whole_manifest_with(&entry.digest).await {
        let source = manifest.metadata.as_ref().map(|facts| facts.source.clone()).unwrap_or_default();
        return Ok(Fetched { digest, manifest, source });
    }
    let expected = Expected { digest: entry.digest, size: entry.size, licence: entry.licence };
    let mut failures = Vec::new();
    let mut last = None;
    for text in entry.sources {
        match fetch(context, &text.parse()?, Some(&expected)).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => {
                tracing::warn!(source = text, %error, "a source of the catalogue failed");
                failures.push(format!("{text}: {}", error.message_and_hint().0));
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if failures.len() == 1 => Err(error),
        Some(error) => Err(RegistryError::EverySourceFailed {
            model: entry.reference().to_string(),
            problems: failures.join("; "),
            last: Box::new(error),
        }),
        None => Err(RegistryError::Internal { problem: format!("`{}` has no source", entry.reference()) }),
    }
}

async fn fetch(
    context: &Context,
    source: &Source,
    expected: Option<&Expected>,
) -> Result<Fetched, RegistryError> {
    context.reporter.phase(Phase::Resolving);
    let mut gathered = context.gather(source, expected).await?;
    gathered.licence = expected.map(|expected| expected.licence.to_owned()).or(gathered.licence);
    context.reporter.phase(Phase::Importing);
    let (registry, intake) = (Arc::clone(&context.registry), Arc::clone(&context.intake));
    let source = source.to_string();
    let origin = source.clone();
    let made = move || import::manifest(&intake, gathered, &origin, NoModel::Refused);
    let manifest = blocking(made).await?;
    let (digest, manifest) = registry.add_manifest(manifest).await?;
    if registry.config().deduplicate
        && let Err(error) = registry.deduplicate_new(&manifest).await
    {
        tracing::warn!(%error, "a new model stays as it came: deduplicating it failed");
    }
    Ok(Fetched { digest, manifest, source })
}

tokio::task_local! {
    /// The versions that this task fetches again: each because the one before is made from it.
    static REFETCHED: Vec<Digest>;
}

/// Brings a blob that is not here back by fetching again what a model that has it was made of, once however many ask.
///
/// # Errors
/// [`StorageError::BlobMissing`] if no source is known; [`RegistryError::ConversionCycle`] if it is made from itself; what
/// the source says.
pub(crate) async fn refetch(registry: &Arc<Registry>, blob: Digest) -> Result<(), RegistryError> {
    let missing = || StorageError::BlobMissing { digest: blob };
    let (version, source) = source_with(registry, &blob).await?.ok_or_else(missing)?;
    let mut refetched = REFETCHED.try_with(Clone::clone).unwrap_or_default();
    if refetched.contains(&version) {
        return Err(RegistryError::ConversionCycle { spec: source.to_string() });
    }
    refetched.push(version);
    let fetching = async {
        // Before the turn is taken: two who wait for each other's versions must not hold their own.
        if let Source::Convert { model, .. } = &source {
            let made_from = registry.resolve(model).await?;
            registry.ensure_files(&made_from.manifest).await?;
        }
        let _turn = registry.turns().take(version).await;
        if registry.blobs().contains(&blob) {
            return Ok(());
        }
        tracing::info!(%blob, %source, "a blob that is not here is fetched again");
        let (reporter, _progress) = Reporter::new();
        fetch(&Context::new(Arc::clone(registry), reporter), &source, None).await.map(drop)
    };
    REFETCHED.scope(refetched, fetching).await?;
    if registry.blobs().contains(&blob) {
        return Ok(());
    }
    let problem = format!("its files are others now, {blob} is not among them");
    Err(RegistryError::OriginLied { url: source.to_string(), problem })
}

/// A version that has a blob, and the source that it was made of. The newest, unless that is nowhere else: one that a
/// client pushed may share its weights with an older one that came from elsewhere.
async fn source_with(
    registry: &Arc<Registry>,
    blob: &Digest,
) -> Result<Option<(Digest, Source)>, RegistryError> {
    let newest = registry.manifest_with(blob).await?;
    let newest = newest.and_then(|(version, manifest)| Some((version, source_of(&manifest)?)));
    if newest.as_ref().is_some_and(|(_, source)| source.is_elsewhere()) {
        return Ok(newest);
    }
    registry.look_elsewhere_once().await;
    for version in registry.elsewhere().versions_with(blob) {
        let manifest = registry.load(&version).await?;
        if let Some(source) = manifest.and_then(|manifest| source_of(&manifest)).filter(Source::is_elsewhere)
        {
            return Ok(Some((version, source)));
        }
    }
    Ok(newest)
}

fn source_of(manifest: &Manifest) -> Option<Source> {
    manifest.metadata.as_ref()?.source.parse().ok()
}
