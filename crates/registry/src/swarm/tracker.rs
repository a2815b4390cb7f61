//! Who has which piece of which blob, and who is fetching it from the origin: in memory, bounded, with leases.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_runtime::{Clock, Instant};
use helios_types::{Digest, ErrorCode};

use super::wire::{Ask, Holdings, Place};
use crate::RegistryError;
use crate::transfer::PIECE_BYTES;

/// Blobs tracked at a time; the one asked for longest ago goes when there are more.
const SWARMS_MAX: usize = 1024;
/// Pieces of a blob: 4 TiB of it.
const PIECES_MAX: u64 = 1 << 20;
/// Nodes of a swarm, and nodes that say what they hold.
const NODES_MAX: usize = 4096;
/// Blobs that one node says it holds.
pub(super) const HOLDINGS_MAX: usize = 10_000;
/// Blobs that all nodes together say they hold: about 100 MB.
const HOLDINGS_TOTAL_MAX: usize = 2_000_000;
/// Memory of all swarms, about; the one asked for longest ago goes when there is more. A thousand nodes that share 700 GB
/// take 44 MB.
const BYTES_MAX: usize = 128 << 20;
/// About what a node or a claim takes beside its address and its pieces.
const ENTRY_BYTES: usize = 128;
/// Bytes of a node's address.
const ADDRESS_BYTES_MAX: usize = 500;
/// How long a node has for a piece that it said it would fetch.
const CLAIM_TTL: Duration = Duration::from_secs(30);
/// How long a node counts after it was last heard of.
const NODE_TTL: Duration = Duration::from_secs(60);
/// How long a node counts as taking part in fetching.
const ACTIVE_TTL: Duration = Duration::from_secs(3);
/// Claims that all active nodes of a swarm have together, at least one each: spread over the nodes, so that each
/// uploads its share.
const CLAIMS_MAX: usize = 16;

/// The tracker of one registry.
#[derive(Debug, Default)]
pub(crate) struct Tracker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    swarms: HashMap<Digest, Swarm>,
    /// Who has which blobs whole, until when.
    holdings: HashMap<String, (Instant, HashSet<Digest>)>,
}

/// The nodes that fetch one blob.
#[derive(Debug)]
struct Swarm {
    touched: Instant,
    /// Pieces of the blob.
    count: u64,
    /// Who fetches which piece from the origin, until when.
    claims: HashMap<u64, (String, Instant)>,
    /// Who fetches the whole blob from the origin, for those who cannot check pieces.
    fetcher: Option<Fetcher>,
    nodes: BTreeMap<String, Node>,
    /// Memory that it took after the last question, about.
    bytes: usize,
}

#[derive(Debug)]
struct Fetcher {
    node: String,
    until: Instant,
    /// Whether it fetches ahead of anybody's need.
    is_ahead: bool,
}

#[derive(Debug)]
struct Node {
    seen: Instant,
    /// How often others were sent to it.
    handed_out: u64,
    got: Pieces,
    /// Whether it said that it has the whole blob.
    has_whole: bool,
}

impl Node {
    fn new(seen: Instant) -> Self {
        Self { seen, handed_out: 0, got: Pieces::default(), has_whole: false }
    }
}

/// The pieces that a node has: a bit each, as far as its last one.
#[derive(Debug, Default)]
struct Pieces(Vec<u64>);

impl Pieces {
    fn insert(&mut self, index: u64) {
        let word = (index / u64::from(u64::BITS)) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % u64::from(u64::BITS));
    }

    fn has(&self, index: u64) -> bool {
        let word = self.0.get((index / u64::from(u64::BITS)) as usize);
        word.is_some_and(|word| word >> (index % u64::from(u64::BITS)) & 1 == 1)
    }

    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }
}

impl Tracker {
    /// Notes what a node has got and says where its next piece is.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] for a size, piece or address that cannot be, or when there are too many nodes.
    pub(crate) fn ask(&self, digest: Digest, ask: &Ask) -> Result<Place, RegistryError> {
        let count = validate(ask)?;
        let now = Clock.now();
        let mut state = self.lock();
        let state = &mut *state;
        state.holdings.retain(|_, (until, _)| *until > now);
        let holdings = state.holdings.iter().filter(|(_, (_, blobs))| blobs.contains(&digest));
        let whole: Vec<String> = holdings.map(|(node, _)| node.clone()).collect();
        let swarm = state.swarm(digest, count, now);
        let answer = swarm.answer(ask, whole, now);
        swarm.bytes = swarm.measured();
        state.forget_over(BYTES_MAX);
        answer
    }

    /// Notes the blobs that a node has whole.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] over the bounds.
    pub(crate) fn hold(&self, holdings: Holdings) -> Result<(), RegistryError> {
        validate_address(&holdings.node)?;
        let mut state = self.lock();
        if holdings.blobs.len() > HOLDINGS_MAX {
            return Err(invalid(format!("{} blobs, at most {HOLDINGS_MAX}", holdings.blobs.len())));
        }
        let now = Clock.now();
        state.holdings.retain(|node, (until, _)| *until > now && *node != holdings.node);
        let held: usize = state.holdings.values().map(|(_, blobs)| blobs.len()).sum();
        if state.holdings.len() >= NODES_MAX || held + holdings.blobs.len() > HOLDINGS_TOTAL_MAX {
            return Err(too_many());
        }
        let until = now + NODE_TTL;
        state.holdings.insert(holdings.node, (until, holdings.blobs.into_iter().collect()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn swarm(&mut self, digest: Digest, count: u64, now: Instant) -> &mut Swarm {
        if self.swarms.len() >= SWARMS_MAX && !self.swarms.contains_key(&digest) {
            self.forget_oldest();
        }
        let new = || Swarm {
            touched: now,
            count,
            claims: HashMap::new(),
            fetcher: None,
            nodes: BTreeMap::new(),
            bytes: 0,
        };
        let swarm = self.swarms.entry(digest).or_insert_with(new);
        if swarm.count != count {
            *swarm = new();
        }
        swarm.touched = now;
        swarm
    }

    /// Forgets swarms, those asked for longest ago first, until the others take `bytes_max`.
    fn forget_over(&mut self, bytes_max: usize) {
        while self.swarms.values().map(|swarm| swarm.bytes).sum::<usize>() > bytes_max {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.swarms.iter().min_by_key(|(_, swarm)| swarm.touched).map(|(digest, _)| *digest);
        if let Some(oldest) = oldest {
            self.swarms.remove(&oldest);
        }
    }
}

impl Swarm {
    /// `whole` are the nodes that were said to hold the whole blob, those of this swarm aside.
    fn answer(&mut self, ask: &Ask, mut whole: Vec<String>, now: Instant) -> Result<Place, RegistryError> {
        self.note(ask, now)?;
        whole.extend(self.nodes.iter().filter(|(_, node)| node.has_whole).map(|(node, _)| node.clone()));
        Ok(match ask.piece {
            None => Place::Noted,
            Some(_) if ask.unchecked => self.place_unchecked(ask, &whole, now),
            Some(index) => self.place(index, ask, &whole, now),
        })
    }

    /// The memory that it takes, about. O(nodes and claims).
    fn measured(&self) -> usize {
        let nodes = self.nodes.iter().map(|(address, node)| address.len() + node.got.bytes());
        let claims = self.claims.values().map(|(address, _)| address.len());
        nodes.chain(claims).map(|bytes| ENTRY_BYTES + bytes).sum::<usize>() + ENTRY_BYTES
    }

    /// Notes that the asker lives, what it has got, and whom it found wanting: their claims end.
    fn note(&mut self, ask: &Ask, now: Instant) -> Result<(), RegistryError> {
        self.nodes.retain(|_, node| now - node.seen < NODE_TTL);
        self.claims.retain(|piece, (node, until)| {
            let is_wanting = ask.piece == Some(*piece) && ask.avoid.contains(node);
            *until > now && !is_wanting
        });
        let Some(address) = &ask.node else { return Ok(()) };
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(address) {
            return Err(too_many());
        }
        let node = self.nodes.entry(address.clone()).or_insert_with(|| Node::new(now));
        node.seen = now;
        node.has_whole = ask.whole || node.has_whole && ask.piece.is_none();
        for index in &ask.got {
            node.got.insert(*index);
            if self.claims.get(index).is_some_and(|(node, _)| node == address) {
                self.claims.remove(index);
            }
        }
        Ok(())
    }

    fn place(&mut self, index: u64, ask: &Ask, whole: &[String], now: Instant) -> Place {
        let fits = |node: &&String| ask.node.as_ref() != Some(*node) && !ask.avoid.contains(*node);
        let holders = self.nodes.iter().filter(|(_, node)| node.got.has(index)).map(|(address, _)| address);
        let holders = holders.chain(whole).filter(fits);
        if let Some(node) = holders.min_by_key(|node| self.load(node)).cloned() {
            return self.send_to(node, now);
        }
        match self.claims.get(&index).map(|(node, _)| node).filter(fits).cloned() {
            Some(node) => self.send_to(node, now),
            None => self.claim(index, ask.node.as_ref(), now),
        }
    }

    /// For who cannot check pieces: a node with the whole blob. While there is none, one node fetches it from the origin, and
    /// the others wait for as long as that is heard of; they do not wait for one that fetches ahead, unless they do so, too.
    fn place_unchecked(&mut self, ask: &Ask, whole: &[String], now: Instant) -> Place {
        let fits = |node: &&String| ask.node.as_ref() != Some(*node) && !ask.avoid.contains(*node);
        if let Some(node) = whole.iter().filter(fits).min_by_key(|node| self.load(node)).cloned() {
            return self.send_to(node, now);
        }
        let is_waited_for = |fetcher: &Fetcher| {
            fetcher.until > now && fits(&&fetcher.node) && (ask.ahead || !fetcher.is_ahead)
        };
        if self.fetcher.as_ref().is_some_and(is_waited_for) {
            return Place::Later;
        }
        let fetcher = |node| Fetcher { node, until: now + CLAIM_TTL, is_ahead: ask.ahead };
        self.fetcher = ask.node.clone().map(fetcher);
        Place::Origin
    }

    /// How often others were sent to a node.
    fn load(&self, node: &str) -> u64 {
        self.nodes.get(node).map_or(0, |node| node.handed_out)
    }

    fn send_to(&mut self, address: String, now: Instant) -> Place {
        // One who only holds whole blobs enters here, so that its load counts.
        let node = self.nodes.entry(address.clone()).or_insert_with(|| Node::new(now));
        node.handed_out += 1;
        Place::Peer(address)
    }

    /// The origin for the asker, unless it has its share of claims already and another node will ask soon.
    fn claim(&mut self, index: u64, asker: Option<&String>, now: Instant) -> Place {
        let Some(asker) = asker else { return Place::Origin };
        let active = self.nodes.values().filter(|node| now - node.seen < ACTIVE_TTL).count().max(1);
        let own = self.claims.values().filter(|(node, _)| node == asker).count();
        if active > 1 && own >= (CLAIMS_MAX / active).max(1) {
            return Place::Later;
        }
        // One that is not noted costs at most that another fetches the same piece.
        if self.claims.len() < NODES_MAX {
            self.claims.insert(index, (asker.clone(), now + CLAIM_TTL));
        }
        Place::Origin
    }
}

/// Number of pieces of the blob asked about.
fn validate(ask: &Ask) -> Result<u64, RegistryError> {
    let count = ask.size.div_ceil(PIECE_BYTES);
    if count > PIECES_MAX {
        return Err(invalid(format!("a blob of {} bytes", ask.size)));
    }
    if let Some(piece) = ask.got.iter().chain(&ask.piece).find(|piece| **piece >= count) {
        return Err(invalid(format!("piece {piece} of {count}")));
    }
    ask.node.iter().try_for_each(|node| validate_address(node))?;
    Ok(count)
}

fn validate_address(node: &str) -> Result<(), RegistryError> {
    let is_address = reqwest::Url::parse(node).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if is_address && node.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    Err(invalid("a node's address is not http://HOST:PORT".to_owned()))
}

fn invalid(problem: String) -> RegistryError {
    crate::registry::invalid_request(problem)
}

fn too_many() -> RegistryError {
    RegistryError::InvalidRequest {
        problem: format!("there are {NODES_MAX} nodes already"),
        code: ErrorCode::Overloaded,
    }
}

#[cfg(test)]
mod tests {
    use helios_types::Digest;

    use super::{Ask, BYTES_MAX, HOLDINGS_MAX, HOLDINGS_TOTAL_MAX, Holdings, PIECES_MAX, Place, Tracker};
    use crate::transfer::PIECE_BYTES;

    const BLOB: Digest = Digest::from_bytes([7; 32]);

    fn ask(node: &str, piece: u64, got: &[u64]) -> Ask {
        let node = Some(format!("http://{node}"));
        Ask { node, size: 64 * PIECE_BYTES, got: got.to_vec(), piece: Some(piece), ..Ask::default() }
    }

    fn unchecked(node: &str) -> Ask {
        Ask { unchecked: true, ..ask(node, 0, &[]) }
    }

    fn peer(node: &str) -> Place {
        Place::Peer(format!("http://{node}"))
    }

    #[test]
    fn a_piece_is_claimed_once_and_claims_are_spread() {
        let tracker = Tracker::default();
        assert_eq!(tracker.ask(BLOB, &ask("a", 0, &[])).expect("a place"), Place::Origin);
        assert_eq!(tracker.ask(BLOB, &ask("b", 0, &[])).expect("a place"), peer("a"));
        for piece in 1..8 {
            assert_eq!(tracker.ask(BLOB, &ask("a", piece, &[])).expect("a place"), Place::Origin);
        }
        assert_eq!(tracker.ask(BLOB, &ask("a", 8, &[])).expect("a place"), Place::Later);
        assert_eq!(tracker.ask(BLOB, &ask("b", 8, &[])).expect("a place"), Place::Origin);
        assert_eq!(tracker.ask(BLOB, &ask("a", 8, &[])).expect("a place"), peer("b"));
    }

    #[test]
    fn the_least_asked_holder_is_next_and_who_is_avoided_loses_its_claim() {
        let tracker = Tracker::default();
        tracker.ask(BLOB, &ask("a", 1, &[0])).expect("claimed");
        tracker.ask(BLOB, &ask("b", 0, &[])).expect("sent to a");
        tracker.ask(BLOB, &ask("b", 2, &[0])).expect("claimed");
        assert_eq!(tracker.ask(BLOB, &ask("c", 0, &[])).expect("a place"), peer("b"));
        let avoiding = Ask { avoid: vec!["http://a".to_owned()], ..ask("c", 1, &[]) };
        assert_eq!(tracker.ask(BLOB, &avoiding).expect("a place"), Place::Origin);
    }

    #[test]
    fn who_holds_the_whole_is_asked_before_the_origin() {
        let tracker = Tracker::default();
        tracker.hold(Holdings { node: "http://h".to_owned(), blobs: vec![BLOB] }).expect("noted");
        assert_eq!(tracker.ask(BLOB, &ask("a", 5, &[])).expect("a place"), peer("h"));
    }

    #[test]
    fn without_a_tree_one_fetches_and_the_others_wait_until_it_has_the_whole() {
        let tracker = Tracker::default();
        let place = |ask: &Ask| tracker.ask(BLOB, ask).expect("a place");
        assert_eq!(place(&unchecked("a")), Place::Origin);
        assert_eq!(place(&Ask { got: vec![0], ..unchecked("a") }), Place::Origin);
        assert_eq!(place(&unchecked("b")), Place::Later);
        let avoiding = Ask { avoid: vec!["http://a".to_owned()], ..unchecked("c") };
        assert_eq!(place(&avoiding), Place::Origin, "one that was found wanting is not waited for");
        assert_eq!(place(&Ask { piece: None, whole: true, ..unchecked("c") }), Place::Noted);
        assert_eq!(place(&unchecked("b")), peer("c"));
        assert_eq!(place(&ask("d", 5, &[])), peer("c"), "who can check pieces goes there, too");
    }

    #[test]
    fn nobody_in_need_waits_for_who_fetches_ahead() {
        let tracker = Tracker::default();
        let place = |ask: &Ask| tracker.ask(BLOB, ask).expect("a place");
        let ahead = |node| Ask { ahead: true, ..unchecked(node) };
        assert_eq!(place(&ahead("a")), Place::Origin);
        assert_eq!(place(&ahead("b")), Place::Later);
        assert_eq!(place(&unchecked("b")), Place::Origin);
        assert_eq!(place(&ahead("a")), Place::Later, "it waits for the one in need");
    }

    #[test]
    fn nonsense_is_refused() {
        let tracker = Tracker::default();
        assert!(tracker.ask(BLOB, &ask("a", 64, &[])).is_err());
        assert!(tracker.ask(BLOB, &ask("a", 0, &[64])).is_err());
        assert!(tracker.ask(BLOB, &Ask { size: u64::MAX, ..ask("a", 0, &[]) }).is_err());
        assert!(
            tracker.ask(BLOB, &Ask { node: Some("file:///etc".to_owned()), ..ask("a", 0, &[]) }).is_err()
        );
    }

    fn digest(number: u32) -> Digest {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Digest::from_bytes(bytes)
    }

    /// Blobs that nobody has, of the largest size there may be: what is noted of them stays within its bound.
    #[test]
    fn invented_blobs_take_no_memory_without_end() {
        let tracker = Tracker::default();
        let last = PIECES_MAX - 1;
        let ask = |node: &str, got: &[u64]| Ask { size: PIECES_MAX * PIECE_BYTES, ..ask(node, last, got) };
        for number in 0..2_000 {
            tracker.ask(digest(number), &ask("a", &[])).expect("a place");
        }
        for number in 0..2_000 {
            tracker.ask(digest(number), &ask("a", &[last])).expect("a place");
            assert_eq!(tracker.ask(digest(number), &ask("b", &[])).expect("a place"), peer("a"));
            let bytes: usize = tracker.lock().swarms.values().map(|swarm| swarm.measured()).sum();
            assert!(bytes <= BYTES_MAX, "{bytes} bytes after {number}");
        }
    }

    #[test]
    fn what_all_nodes_hold_is_bounded_and_saying_it_again_costs_nothing() {
        let tracker = Tracker::default();
        let blobs: Vec<Digest> = (0..HOLDINGS_MAX as u32).map(digest).collect();
        let hold =
            |node: usize| tracker.hold(Holdings { node: format!("http://n{node}"), blobs: blobs.clone() });
        let nodes = HOLDINGS_TOTAL_MAX / HOLDINGS_MAX;
        for node in (0..nodes).chain(0..3) {
            hold(node).expect("noted");
        }
        hold(nodes).expect_err("over the bound");
    }
}
