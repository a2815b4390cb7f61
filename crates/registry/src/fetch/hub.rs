//! `hf:` sources: the Hugging Face hub's protocol.
//!
//! One question for the list of files at a revision, then each file at the commit that the answer names.

use helios_model::lineage::Card;
use helios_model::{is_safe_path, select};
use helios_types::Digest;
use reqwest::Url;
use serde::Deserialize;

use super::download::{Remote, download};
use super::origin::shown;
use super::{Context, Expected, Gathered, GatheredFile};
use crate::source::hub_revision;
use crate::{RegistryError, Secret};

/// Bytes of the list of files; repositories with 10,000 files need about 2 MB.
const LISTING_BYTES_MAX: usize = 16 << 20;

#[derive(Deserialize)]
struct Listing {
    sha: Option<String>,
    siblings: Vec<Sibling>,
    #[serde(rename = "cardData")]
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

/// A revision of a repository on the hub.
struct Repository<'a> {
    hub: Url,
    token: Option<&'a Secret>,
    name: &'a str,
    revision: &'a str,
}

pub(super) async fn gather(
    context: &Context,
    name: &str,
    revision: Option<&str>,
    file: Option<&str>,
    expected: Option<&Expected>,
) -> Result<Gathered, RegistryError> {
    let config = context.registry.fetcher().config();
    let hub = Url::parse(&config.hub_url).ok().filter(|url| !url.cannot_be_a_base());
    let hub =
        hub.ok_or_else(|| RegistryError::invalid_source(&config.hub_url, "the hub's address is no URL"))?;
    let repository =
        Repository { hub, token: config.hub_token.as_ref(), name, revision: hub_revision(revision) };
    let listing = repository.listing(context).await?;
    let commit = listing.sha.as_deref().unwrap_or(repository.revision);
    let card = listing.card.as_ref();
    let mut gathered = Gathered {
        files: Vec::new(),
        licence: card.and_then(Card::licence),
        lineage: card.map(Card::lineage).unwrap_or_default(),
    };
    let subject = format!("hf:{name}");
    for sibling in listing.selected(&subject, file)? {
        context.before(&sibling.rfilename, &gathered.files, &subject).await?;
        let remote = repository.remote(commit, sibling, expected)?;
        let blob = download(context, &remote).await?;
        gathered.files.push(GatheredFile { path: sibling.rfilename.clone(), blob });
    }
    Ok(gathered)
}

impl Repository<'_> {
    /// The hub's address with path segments behind it; a segment may hold `/`, as revisions do.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.hub.clone();
        url.path_segments_mut()
            .expect("invariant: the hub's address was checked to be a base")
            .pop_if_empty()
            .extend(segments);
        url
    }

    async fn listing(&self, context: &Context) -> Result<Listing, RegistryError> {
        let mut segments = vec!["api", "models"];
        segments.extend(self.name.split('/'));
        segments.extend(["revision", self.revision]);
        let mut url = self.url(&segments);
        url.set_query(Some("blobs=true"));
        let body = context.registry.fetcher().get_small(&url, self.token, LISTING_BYTES_MAX).await?;
        let lied = |problem: String| RegistryError::OriginLied { url: shown(&url), problem };
        let listing: Listing =
            serde_json::from_slice(&body).map_err(|error| lied(format!("no list of files: {error}")))?;
        match listing.siblings.iter().find(|sibling| !is_safe_path(&sibling.rfilename)) {
            Some(sibling) => Err(lied(format!("unsafe file name {:?}", sibling.rfilename))),
            None => Ok(listing),
        }
    }

    fn remote(
        &self,
        commit: &str,
        sibling: &Sibling,
        expected: Option<&Expected>,
    ) -> Result<Remote, RegistryError> {
        let mut segments: Vec<&str> = self.name.split('/').collect();
        segments.extend(["resolve", commit]);
        segments.extend(sibling.rfilename.split('/'));
        let url = self.url(&segments);
        let lfs = sibling.lfs.as_ref();
        let listed = lfs.and_then(|lfs| format!("sha256:{}", lfs.sha256.as_ref()?).parse::<Digest>().ok());
        let pinned = expected.map(|expected| expected.digest);
        if let (Some(listed), Some(pinned)) = (listed, pinned)
            && listed != pinned
        {
            let problem = format!("`{}` has digest {listed}, expected {pinned}", sibling.rfilename);
            return Err(RegistryError::OriginLied { url: shown(&url), problem });
        }
        Ok(Remote {
            url,
            bearer: self.token.cloned(),
            name: sibling.rfilename.clone(),
            digest: pinned.or(listed),
            size: expected.map(|expected| expected.size).or(lfs.and_then(|lfs| lfs.size)).or(sibling.size),
        })
    }
}

impl Listing {
    /// The files to take, in order.
    fn selected(&self, subject: &str, file: Option<&str>) -> Result<Vec<&Sibling>, RegistryError> {
        let names: Vec<&str> = self.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
        let selected = match file {
            Some(file) if names.contains(&file) => vec![file],
            Some(file) => {
                return Err(RegistryError::invalid_model(subject, format!("it has no file `{file}`")));
            }
            None => select(subject, &names)?,
        };
        let sibling_of = |name: &str| self.siblings.iter().find(|sibling| sibling.rfilename == name);
        Ok(selected.into_iter().filter_map(sibling_of).collect())
    }
}
