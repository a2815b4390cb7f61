//! A file whose pieces come from wherever the tracker says.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use helios_runtime::{Clock, Instant};
use helios_storage::{BlobInfo, Tree};
use helios_types::Digest;
use http::HeaderValue;

use super::wire::{Ask, Place};
use super::{Share, Swarm};
use crate::transfer::{Answer, Drip, Origin, PIECE_BYTES, SourceKind};
use crate::{RegistryError, pace};

/// Pause before the tracker is asked again for a piece that others are about to fetch.
const LATER: Duration = Duration::from_millis(20);
/// How often that happens before the origin is asked after all.
const LATER_MAX: u32 = 500;
/// Pause before the tracker is asked again who has the whole blob.
const LATER_WHOLE: Duration = Duration::from_millis(250);
/// How long another node may take to fetch the whole before the origin is asked after all.
const WHOLE_WAIT_MAX: Duration = Duration::from_secs(600);

/// One blob, shared with the fleet: with a tree, while it is fetched; without, where nobody could tell a right piece from a
/// wrong one before all are there, when it is whole.
pub(crate) struct SwarmFile<'a> {
    swarm: &'a Swarm,
    /// Where it comes from if nobody else has it.
    origin: &'a dyn Origin,
    digest: Digest,
    /// What pieces are checked against.
    tree: Option<Arc<Tree>>,
    share: Arc<Share>,
    stall_timeout: Duration,
    began_at: Instant,
    /// The peers whose pieces could not be checked on arrival.
    trusted: Mutex<HashSet<String>>,
}

impl<'a> SwarmFile<'a> {
    pub(crate) fn new(
        swarm: &'a Swarm,
        origin: &'a dyn Origin,
        (digest, size): (Digest, u64),
        tree: Option<Tree>,
        stall_timeout: Duration,
    ) -> Self {
        let tree = tree.map(Arc::new);
        let share = Arc::new(Share::new(size, tree.clone()));
        if tree.is_some() {
            swarm.begin(digest, Arc::clone(&share));
        }
        let (began_at, trusted) = (Clock.now(), Mutex::default());
        Self { swarm, origin, digest, tree, share, stall_timeout, began_at, trusted }
    }

    /// So many bytes are in the file: they can be served to others.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.share.wrote(bytes);
    }

    /// The blob is in the store: it stays served from there.
    pub(crate) async fn finish(&self, info: BlobInfo) {
        self.share.finish(info);
        if self.tree.is_none() {
            self.swarm.begin(self.digest, Arc::clone(&self.share));
            let whole = Ask { size: self.share.size(), whole: true, ..Ask::default() };
            self.swarm.ask(self.digest, whole).await;
        }
    }

    /// Leaves the peers alone for a while that may be to blame for a whole that is wrong; false if there are none.
    pub(crate) fn blame(&self, error: &RegistryError) -> bool {
        let trusted = std::mem::take(&mut *self.trusted());
        trusted.iter().for_each(|address| self.swarm.leave_alone(address, error));
        !trusted.is_empty()
    }

    fn trusted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole piece, checked and shared where there is a tree; `Err(answer)` inside if the origin only sends whole files.
    async fn piece(&self, index: u64) -> Result<Result<Bytes, Answer>, RegistryError> {
        let start = index * PIECE_BYTES;
        let range = start..(start + PIECE_BYTES).min(self.share.size());
        let bytes = match self.ask_peers(index, &range).await {
            Some(bytes) => bytes,
            None => {
                let answer = self.origin.open(range.clone(), None).await?;
                if !answer.is_part {
                    return Ok(Err(answer));
                }
                let bytes = self.collect(answer, &range, self.origin).await?;
                self.check(&range, &bytes, &self.origin.shown())?;
                bytes
            }
        };
        if self.tree.is_some() {
            self.share.publish(index, bytes.clone());
            let got = Ask { size: self.share.size(), got: vec![index], ..Ask::default() };
            self.swarm.ask(self.digest, got).await;
        }
        Ok(Ok(bytes))
    }

    /// The piece from whom the tracker names, as long as it names somebody; `None` if the origin is to be asked.
    async fn ask_peers(&self, index: u64, range: &Range<u64>) -> Option<Bytes> {
        let mut waits = 0;
        loop {
            let unchecked = self.tree.is_none();
            let (size, piece, ahead) = (self.share.size(), Some(index), pace::is_bound());
            let ask = Ask { size, piece, unchecked, ahead, ..Ask::default() };
            match self.swarm.ask(self.digest, ask).await? {
                Place::Peer(address) => match self.take_from(&address, index, range).await {
                    Ok(bytes) => return Some(bytes),
                    Err(error) => self.swarm.leave_alone(&address, &error),
                },
                Place::Later => {
                    Clock.sleep(self.pause(waits)?).await;
                    waits += 1;
                }
                Place::Origin | Place::Noted => return None,
            }
        }
    }

    /// How long to wait for others now; `None` once it was long enough.
    fn pause(&self, waits: u32) -> Option<Duration> {
        match self.tree {
            Some(_) => (waits < LATER_MAX).then_some(LATER),
            None => (self.began_at.elapsed() < WHOLE_WAIT_MAX).then_some(LATER_WHOLE),
        }
    }

    async fn take_from(&self, address: &str, index: u64, range: &Range<u64>) -> Result<Bytes, RegistryError> {
        let peer = self.swarm.client(address)?.piece_origin(self.digest, index);
        let opened = Clock.timeout(self.stall_timeout, peer.open(range.clone(), None)).await;
        let stalled = |_elapsed| RegistryError::OriginUnreachable {
            url: address.to_owned(),
            problem: "it stalled".to_owned(),
        };
        let answer = opened.map_err(stalled)??;
        let bytes = self.collect(answer, range, &peer).await?;
        self.check(range, &bytes, address)?;
        if self.tree.is_none() {
            self.trusted().insert(address.to_owned());
        }
        Ok(bytes)
    }

    /// All bytes of an answer, as many as the range has.
    async fn collect(
        &self,
        mut answer: Answer,
        range: &Range<u64>,
        from: &dyn Origin,
    ) -> Result<Bytes, RegistryError> {
        let wanted = (range.end - range.start) as usize;
        let mut bytes = BytesMut::with_capacity(wanted);
        let mut drip = Drip::new(self.stall_timeout);
        let unreachable = |problem: String| RegistryError::OriginUnreachable { url: from.shown(), problem };
        loop {
            let chunk = Clock.timeout(self.stall_timeout, answer.body.next()).await;
            let Some(chunk) = chunk.map_err(|_elapsed| unreachable("it stalled".to_owned()))? else { break };
            let chunk = chunk?;
            drip.pass(chunk.len()).map_err(unreachable)?;
            if bytes.len() + chunk.len() > wanted {
                let problem = format!("more than the {wanted} bytes asked for");
                return Err(RegistryError::OriginLied { url: from.shown(), problem });
            }
            crate::metrics::fetched(from.kind(), chunk.len());
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() < wanted {
            return Err(unreachable(format!("it ended {} bytes early", wanted - bytes.len())));
        }
        Ok(bytes.freeze())
    }

    fn check(&self, range: &Range<u64>, bytes: &[u8], from: &str) -> Result<(), RegistryError> {
        let Some(tree) = &self.tree else { return Ok(()) };
        tree.verify(range.start, bytes)
            .map_err(|error| RegistryError::OriginLied { url: from.to_owned(), problem: error.to_string() })
    }
}

impl Drop for SwarmFile<'_> {
    fn drop(&mut self) {
        if self.share.end() {
            self.swarm.forget(&self.digest);
        }
    }
}

impl Origin for SwarmFile<'_> {
    fn shown(&self) -> String {
        self.origin.shown()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Counted
    }

    fn open<'b>(
        &'b self,
        range: Range<u64>,
        _validator: Option<&'b HeaderValue>,
    ) -> BoxFuture<'b, Result<Answer, RegistryError>> {
        async move {
            let index = range.start / PIECE_BYTES;
            let bytes = match self.piece(index).await? {
                Ok(bytes) => bytes,
                Err(whole) => return Ok(whole),
            };
            let offset = |at: u64| ((at - index * PIECE_BYTES) as usize).min(bytes.len());
            let wanted = bytes.slice(offset(range.start)..offset(range.end));
            Ok(Answer {
                is_part: true,
                start: range.start,
                length: Some(self.share.size()),
                validator: None,
                body: stream::iter([Ok(wanted)]).boxed(),
            })
        }
        .boxed()
    }
}
