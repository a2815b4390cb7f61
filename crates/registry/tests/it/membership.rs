//! Leases of workers.

use std::time::Duration;

use helios_registry::{Members, WorkerLease, WorkerRole};
use helios_types::NumericsId;

pub(crate) fn worker(id: &str) -> WorkerLease {
    WorkerLease {
        id: id.to_owned(),
        address: format!("http://{id}:1"),
        models: Vec::new(),
        role: WorkerRole::Unified,
        numerics_id: NumericsId::new("f32", 1, "f16", "test"),
    }
}

#[tokio::test]
async fn renewing_alone_changes_nothing_and_changes_are_seen() {
    let members = Members::new(Duration::from_secs(60));
    let empty = members.snapshot();
    assert!(empty.rebuilding && empty.workers.is_empty());
    members.renew(worker("a"), Duration::from_secs(60)).expect("renewed");
    let one = members.changed(empty.version).await;
    assert_eq!(one.workers, [worker("a")]);
    members.renew(worker("a"), Duration::from_secs(60)).expect("renewed");
    assert_eq!(members.snapshot(), one);
    let moved = WorkerLease { address: "http://elsewhere:1".to_owned(), ..worker("a") };
    members.renew(moved.clone(), Duration::from_secs(60)).expect("renewed");
    assert_eq!(members.changed(one.version).await.workers, [moved]);
    assert!(members.leave("a") && !members.leave("a"));
    assert!(members.snapshot().workers.is_empty());
}

#[tokio::test]
async fn a_lease_ends_by_itself_and_those_who_wait_are_told() {
    let members = Members::new(Duration::from_millis(10));
    members.renew(worker("a"), Duration::from_millis(100)).expect("renewed");
    let mut snapshot = members.snapshot();
    let first = snapshot.version;
    while snapshot.rebuilding || !snapshot.workers.is_empty() {
        snapshot = members.changed(snapshot.version).await;
    }
    assert!(snapshot.version > first);
}

#[tokio::test]
async fn a_wait_ends_when_another_changes_the_list() {
    let members = Members::new(Duration::from_secs(60));
    let seen = members.snapshot().version;
    let (snapshot, ()) = tokio::join!(members.changed(seen), async {
        tokio::task::yield_now().await;
        members.renew(worker("b"), Duration::from_secs(60)).expect("renewed");
    });
    assert_eq!(snapshot.workers.len(), 1);
    // A version of before a restart is not waited for.
    assert_eq!(members.changed(seen - 1000).await, snapshot);
}

#[test]
fn leases_over_the_bounds_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let members = Members::new(Duration::ZERO);
        for id in ["", &"x".repeat(501), "a\nb"] {
            assert!(members.renew(worker(id), Duration::from_secs(1)).is_err(), "{id:?}");
        }
    });
}
