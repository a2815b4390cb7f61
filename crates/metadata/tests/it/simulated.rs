//! The simulated database, and what only it does: faults.

use helios_metadata::{Fault, Metadata, SimulatedMetadata};

use crate::conformance::conforms;
use crate::made::{manifest, put, set_tag};

#[tokio::test]
async fn the_simulation_conforms() {
    conforms(async || SimulatedMetadata::new(1)).await;
}

#[tokio::test]
async fn a_crash_keeps_what_was_acknowledged_and_never_half_of_a_commit() {
    let (one, two) = (manifest("one", &[1]), manifest("two", &[2]));
    let mut survived = 0;
    for seed in 0..64 {
        let database = SimulatedMetadata::new(seed);
        database.plan(1, Fault::Crash);
        database.commit(&[put(&one), set_tag("a", &[one.0])]).await.expect("acknowledged");
        database.commit(&[put(&two), set_tag("b", &[two.0])]).await.expect_err("the crash");
        database.tags().await.expect_err("it is down");
        database.restart();
        let tags = database.tags().await.expect("up again").len();
        let manifests = database.counts().await.expect("counts").manifests;
        assert!(tags as u64 == manifests && (1..=2).contains(&tags), "seed {seed}: {tags} tags");
        survived += tags - 1;
    }
    assert!((8..56).contains(&survived), "{survived} of 64 survived: the seed has no say");
}
