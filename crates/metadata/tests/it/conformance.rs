//! What every database must do, whatever it is made of.

use std::collections::BTreeSet;

use helios_metadata::{Change, Counts, Metadata, MetadataError, RECORD_BYTES_MAX, SimulatedMetadata};
use helios_types::Digest;

use crate::made::{
    Random, STORE, blob, digest, history, manifest, name, put, put_by, remove, remove_by, set_tag,
};

/// Runs the whole suite; `open` gives a new, empty database each time.
pub(crate) async fn conforms<M: Metadata>(mut open: impl AsyncFnMut() -> M) {
    an_empty_database_knows_nothing(&open().await).await;
    manifests_bring_and_take_their_blobs(&open().await).await;
    blobs_outlive_untagged_manifests(&open().await).await;
    tags_keep_their_history(&open().await).await;
    a_tagged_manifest_stays(&open().await).await;
    a_manifest_goes_when_no_store_has_it(&open().await).await;
    a_history_that_was_changed_meanwhile_is_not_overwritten(&open().await).await;
    records_are_replaced_listed_and_bounded(&open().await).await;
    a_manifest_may_have_thousands_of_files(&open().await).await;
    random_histories_give_the_same_answers(&mut open).await;
}

async fn an_empty_database_knows_nothing(database: &dyn Metadata) {
    assert_eq!(database.counts().await.expect("counts"), Counts::default());
    assert_eq!(database.current(&name("a")).await.expect("an answer"), None);
    assert_eq!(database.history(&name("a")).await.expect("an answer"), []);
    assert_eq!(database.manifest(&digest(1)).await.expect("an answer"), None);
    assert_eq!(database.blob(&digest(1)).await.expect("an answer"), None);
    assert_eq!(database.models().await.expect("an answer"), []);
    assert_eq!(database.referenced(&[]).await.expect("an answer"), []);
    database.commit(&[]).await.expect("nothing to do");
    let absent = [
        remove(digest(1)),
        Change::RemoveTag(name("a")),
        Change::RemoveRecord { kind: "k".to_owned(), key: "a".to_owned() },
    ];
    database.commit(&absent).await.expect("removing what is not there");
}

async fn manifests_bring_and_take_their_blobs(database: &dyn Metadata) {
    let (one, two) = (manifest("one", &[1, 2]), manifest("two", &[2, 3]));
    database.commit(&[put(&one), put(&two), put(&one)]).await.expect("committed");
    assert_eq!(database.manifest(&one.0).await.expect("an answer"), Some(one.1.to_bytes()));
    assert_eq!(database.counts().await.expect("counts"), Counts { manifests: 2, blobs: 3, tags: 0 });
    assert_eq!(database.blob(&digest(2)).await.expect("an answer"), Some(blob(2)));
    assert_eq!(database.manifest_with(&digest(2)).await.expect("an answer"), Some(two.0));
    assert_eq!(database.manifest_with(&digest(1)).await.expect("an answer"), Some(one.0));
    let mut all = [1, 2, 3].map(blob);
    all.sort_unstable_by_key(|blob| blob.digest);
    assert_eq!(database.blobs_after(None).await.expect("an answer"), all);
    assert_eq!(database.blobs_after(Some(&all[0].digest)).await.expect("an answer"), all[1..]);
    assert_eq!(database.blobs_after(Some(&all[2].digest)).await.expect("an answer"), []);
    let asked = [1, 2, 3, 4].map(digest);
    assert_eq!(set(database.referenced(&asked).await), set(Ok([1, 2, 3].map(digest).to_vec())));

    database.commit(&[remove(two.0)]).await.expect("removed");
    assert_eq!(set(database.referenced(&asked).await), set(Ok([1, 2].map(digest).to_vec())));
    assert_eq!(database.manifest_with(&digest(2)).await.expect("an answer"), Some(one.0));
    assert_eq!(database.blob(&digest(3)).await.expect("an answer"), None);
    database.commit(&[put(&two)]).await.expect("back again");
    assert_eq!(database.manifest_with(&digest(2)).await.expect("an answer"), Some(two.0));
}

fn set(digests: Result<Vec<Digest>, MetadataError>) -> BTreeSet<Digest> {
    digests.expect("an answer").into_iter().collect()
}

async fn blobs_outlive_untagged_manifests(database: &dyn Metadata) {
    let (kept, gone, other) = (manifest("kept", &[1, 2]), manifest("gone", &[2, 3]), manifest("other", &[4]));
    let changes = [put(&kept), put(&gone), put(&other), set_tag("m:v", &[kept.0])];
    database.commit(&changes).await.expect("committed");
    assert_eq!(outliving(database, STORE).await, BTreeSet::from([(digest(2), gone.0)]));
    database.commit(&[Change::RemoveTag(name("m:v"))]).await.expect("removed");
    assert_eq!(outliving(database, STORE).await, BTreeSet::new());
}

async fn outliving(database: &dyn Metadata, store: &str) -> BTreeSet<(Digest, Digest)> {
    database.outlive(store).await.expect("an answer").into_iter().collect()
}

async fn tags_keep_their_history(database: &dyn Metadata) {
    let (one, two) = (manifest("one", &[1]), manifest("two", &[2]));
    let tag = |digests: &[Digest]| set_tag("m:v", digests);
    database.commit(&[put(&one), put(&two), tag(&[one.0])]).await.expect("committed");
    database.commit(&[tag(&[one.0, two.0, one.0]), set_tag("a/b:x", &[two.0])]).await.expect("moved");
    let expected = history(&[one.0, two.0, one.0]);
    assert_eq!(database.history(&name("m:v")).await.expect("an answer"), expected);
    assert_eq!(database.current(&name("m:v")).await.expect("an answer").as_ref(), expected.last());
    assert_eq!(database.tags().await.expect("an answer"), [name("a/b:x"), name("m:v")]);
    database.commit(&[set_tag("m:w", &[one.0]), set_tag("m/n:v", &[one.0])]).await.expect("tagged");
    assert_eq!(database.tags_of("m").await.expect("an answer"), [name("m:v"), name("m:w")]);
    assert_eq!(database.tags_of("n").await.expect("an answer"), []);
    database.commit(&["m:w", "m/n:v"].map(|tag| Change::RemoveTag(name(tag)))).await.expect("removed");
    let models = database.models().await.expect("an answer");
    assert_eq!(models.iter().map(|model| model.digest).collect::<Vec<_>>(), [two.0, one.0]);
    assert_eq!((models[1].changed_at, models[1].size), (1_002, one.1.size()));
    assert_eq!(models[1].metadata, one.1.metadata);

    // A tag of a manifest that is not here is kept, but there is nothing to list.
    database.commit(&[set_tag("lost", &[digest(9)]), Change::RemoveTag(name("a/b:x"))]).await.expect("ok");
    assert_eq!(database.models().await.expect("an answer").len(), 1);
    assert_eq!(database.current(&name("lost")).await.expect("an answer").expect("there").digest, digest(9));
    assert_eq!(database.history(&name("a/b:x")).await.expect("an answer"), []);
}

async fn a_tagged_manifest_stays(database: &dyn Metadata) {
    let made: Vec<_> = (1..=3).map(|number| manifest(&number.to_string(), &[number])).collect();
    let puts: Vec<Change> = made.iter().map(put).collect();
    database.commit(&puts).await.expect("committed");
    database.commit(&[set_tag("m", &[made[0].0, made[1].0])]).await.expect("tagged");
    assert_eq!(database.untagged(STORE).await.expect("an answer"), [made[2].0]);
    let removals: Vec<Change> = made.iter().map(|made| remove(made.0)).collect();
    database.commit(&removals).await.expect("those that may go");
    for (index, stays) in [true, true, false].into_iter().enumerate() {
        let body = database.manifest(&made[index].0).await.expect("an answer");
        assert_eq!(body.is_some(), stays, "manifest {index}");
        let info = database.blob(&digest(index as u32 + 1)).await.expect("an answer");
        assert_eq!(info.is_some(), stays, "blob {index}");
    }
}

async fn a_manifest_goes_when_no_store_has_it(database: &dyn Metadata) {
    let (shared, own) = (manifest("shared", &[1, 2]), manifest("own", &[2]));
    let puts = [put_by("a", &shared), put_by("b", &shared), put_by("b", &own), put_by("a", &shared)];
    database.commit(&puts).await.expect("committed");
    assert_eq!(database.untagged("a").await.expect("an answer"), [shared.0]);
    assert_eq!(set(database.untagged("b").await), BTreeSet::from([shared.0, own.0]));
    assert_eq!(database.untagged("c").await.expect("an answer"), []);
    database.commit(&[remove_by("a", shared.0), remove_by("a", own.0)]).await.expect("given up");
    assert_eq!(database.untagged("a").await.expect("an answer"), []);
    assert_eq!(database.counts().await.expect("counts"), Counts { manifests: 2, blobs: 2, tags: 0 });
    database.commit(&[set_tag("m", &[own.0])]).await.expect("tagged");
    database.commit(&[remove_by("b", shared.0), remove_by("b", own.0)]).await.expect("given up");
    assert_eq!(database.counts().await.expect("counts"), Counts { manifests: 1, blobs: 1, tags: 1 });
    // A store does not give up what is tagged: else nobody would collect it later.
    database.commit(&[Change::RemoveTag(name("m"))]).await.expect("removed");
    assert_eq!(database.untagged("b").await.expect("an answer"), [own.0]);
    database.commit(&[remove_by("b", own.0)]).await.expect("given up");
    assert_eq!(database.counts().await.expect("counts"), Counts::default());
}

async fn a_history_that_was_changed_meanwhile_is_not_overwritten(database: &dyn Metadata) {
    let from = |tag: &str, from: &[Digest], to: &[Digest]| Change::SetTag {
        reference: name(tag),
        history: history(to),
        from: Some(history(from)),
    };
    let [one, two, three] = [1, 2, 3].map(digest);
    database.commit(&[from("m", &[], &[one]), from("n", &[], &[one])]).await.expect("new tags");
    database.commit(&[from("m", &[one], &[one, two])]).await.expect("moved");
    for stale in [&[][..], &[one], &[two], &[one, three], &[one, two, three]] {
        let changes = [record("k", "a", "1"), from("n", &[one], &[three]), from("m", stale, &[three])];
        let refused = database.commit(&changes).await;
        assert!(
            matches!(&refused, Err(MetadataError::Conflict { tag, .. }) if *tag == name("m")),
            "{refused:?}"
        );
    }
    assert_eq!(database.history(&name("m")).await.expect("an answer"), history(&[one, two]));
    assert_eq!(database.history(&name("n")).await.expect("an answer"), history(&[one]));
    assert_eq!(database.record("k", "a").await.expect("an answer"), None, "nothing of the commit is there");
    database.commit(&[Change::RemoveTag(name("m"))]).await.expect("removed");
    let refused = database.commit(&[from("m", &[one, two], &[one, two, three])]).await;
    assert!(matches!(refused, Err(MetadataError::Conflict { .. })), "{refused:?}");
    database.commit(&[from("m", &[], &[three])]).await.expect("new again");
}

fn record(kind: &str, key: &str, value: &str) -> Change {
    Change::PutRecord { kind: kind.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

async fn records_are_replaced_listed_and_bounded(database: &dyn Metadata) {
    let put =
        [record("pin", "b", "1"), record("pin", "a", "2"), record("pool", "a", "3"), record("pin", "b", "4")];
    database.commit(&put).await.expect("committed");
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(database.records("pin").await.expect("an answer"), pairs(&[("a", "2"), ("b", "4")]));
    assert_eq!(database.record("pool", "a").await.expect("an answer").as_deref(), Some("3"));
    let large = "x".repeat(RECORD_BYTES_MAX + 1);
    let refused = database.commit(&[record("pin", "c", "5"), record("pin", "d", &large)]).await;
    assert!(matches!(refused, Err(MetadataError::OverLimit { .. })), "{refused:?}");
    assert_eq!(database.record("pin", "c").await.expect("an answer"), None);
    let removal = |key: &str| Change::RemoveRecord { kind: "pin".to_owned(), key: key.to_owned() };
    database.commit(&[removal("b"), removal("none")]).await.expect("removed");
    assert_eq!(database.records("pin").await.expect("an answer"), pairs(&[("a", "2")]));
}

async fn a_manifest_may_have_thousands_of_files(database: &dyn Metadata) {
    let numbers: Vec<u32> = (0..4_096).collect();
    let large = manifest("large", &numbers);
    database.commit(&[put(&large)]).await.expect("committed");
    assert_eq!(database.counts().await.expect("counts").blobs, 4_096);
    let digests: Vec<Digest> = (0..5_000).map(digest).collect();
    assert_eq!(database.referenced(&digests).await.expect("an answer").len(), 4_096);
    database.commit(&[remove(large.0)]).await.expect("removed");
    assert_eq!(database.counts().await.expect("counts"), Counts::default());
}

/// Random changes on the database and on the simulated one: every answer is the same.
async fn random_histories_give_the_same_answers<M: Metadata>(open: &mut impl AsyncFnMut() -> M) {
    for seed in 0..4 {
        let mut random = Random(seed + 1);
        let (database, model) = (open().await, SimulatedMetadata::new(seed));
        for _ in 0..40 {
            let changes: Vec<Change> = (0..random.below(6)).map(|_| random.change()).collect();
            database.commit(&changes).await.expect("committed");
            model.commit(&changes).await.expect("committed");
            assert_eq!(answers(&database).await, answers(&model).await, "seed {seed}: {changes:?}");
        }
    }
}

/// Everything a database says, as text.
async fn answers(database: &dyn Metadata) -> Vec<String> {
    let mut said = vec![
        format!("{:?}", database.counts().await.expect("counts")),
        format!("{:?}", database.models().await.expect("models")),
        format!("{:?}", database.tags().await.expect("tags")),
        format!("{:?}", set(database.untagged(STORE).await)),
        format!("{:?}", set(database.untagged("another").await)),
        format!("{:?}", outliving(database, STORE).await),
        format!("{:?}", outliving(database, "another").await),
        format!("{:?}", database.records("k").await.expect("records")),
        format!("{:?}", database.record_kinds().await.expect("kinds")),
    ];
    for tag in 0..4 {
        said.push(format!("{:?}", database.history(&name(&format!("t{tag}"))).await.expect("a history")));
    }
    for number in 0..8 {
        said.push(format!("{:?}", database.blob(&digest(number)).await.expect("a blob")));
        said.push(format!("{:?}", database.manifest_with(&digest(number)).await.expect("a manifest")));
    }
    said
}

impl Random {
    fn change(&mut self) -> Change {
        let made = manifest(&self.below(6).to_string(), &[self.below(8), 8 + self.below(8)]);
        let tag = format!("t{}", self.below(4));
        let key = self.below(3).to_string();
        match self.below(11) {
            0..=2 => put(&made),
            3 => remove(made.0),
            9 => put_by("another", &made),
            10 => remove_by("another", made.0),
            4 => set_tag(&tag, &[made.0]),
            5 => set_tag(&tag, &[manifest("0", &[self.below(8), 8]).0, made.0]),
            6 => Change::RemoveTag(name(&tag)),
            7 => Change::RemoveRecord { kind: "k".to_owned(), key },
            _ => record("k", &key, &tag),
        }
    }
}
