//! Workers come, go, break and recover.

use helios_api::worker::v1::FinishReason;
use helios_model::MemoryProfile;
use helios_model::profile::fit::Fit;
use helios_proxy::{ProxyConfig, WorkerList};
use serde_json::json;

use crate::support::{MODEL, digest, fake_worker, ready_status, says, soon, start, start_with};

#[tokio::test]
async fn a_worker_that_cannot_be_watched_gets_nothing_until_it_can() {
    let (server, worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    worker.status.send_replace(None);
    server.wait_ready(false).await;
    let (status, _) = server.complete(json!({})).await;
    assert_eq!(status, 503);
    assert_eq!(worker.requests().len(), 0);
    worker.status.send_replace(Some(ready_status()));
    server.wait_ready(true).await;
    assert_eq!(server.complete(json!({})).await.0, 200);
}

#[tokio::test]
async fn a_draining_or_loading_worker_takes_nothing() {
    let (server, worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    for change in [
        |status: &mut helios_api::worker::v1::Status| status.draining = true,
        |status: &mut helios_api::worker::v1::Status| status.ready = false,
    ] {
        worker.status.send_modify(|status| change(status.as_mut().expect("a status")));
        server.wait_ready(false).await;
        worker.status.send_replace(Some(ready_status()));
        server.wait_ready(true).await;
    }
}

#[tokio::test]
async fn the_list_decides_who_is_there() {
    let (server, worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    server.members.0.send_replace(Vec::new());
    server.wait_ready(false).await;
    server.members.0.send_replace(vec![worker.member("w1")]);
    server.wait_ready(true).await;
    let list: WorkerList = server.get("/admin/v1/workers").await.json().await.expect("JSON");
    let [seen] = list.workers.as_slice() else { panic!("one worker, not {list:?}") };
    assert_eq!((seen.id.as_str(), seen.ready, seen.kv_blocks_total), ("w1", true, 10));
    assert_eq!((seen.context_tokens_max, seen.memory_bytes), (200, 1 << 30));
}

#[tokio::test]
async fn a_worker_of_another_version_than_listed_is_not_used() {
    let (worker, _endings) = fake_worker(Ok(says(&["x"], FinishReason::Stop)));
    let mut member = worker.member("w1");
    member.manifest_digest = digest(2);
    let server = start(ProxyConfig::default(), vec![member], Vec::new()).await;
    let listed = async {
        loop {
            let list: WorkerList = server.get("/admin/v1/workers").await.json().await.expect("JSON");
            if let [seen] = list.workers.as_slice() {
                break seen.ready;
            }
        }
    };
    assert!(!soon(listed).await);
    assert_eq!(server.complete(json!({})).await.0, 503);
}

#[tokio::test]
async fn requests_spread_over_equal_workers_and_avoid_busy_ones() {
    let ((first, _a), (second, _b)) = (
        fake_worker(Ok(says(&["x"], FinishReason::Stop))),
        fake_worker(Ok(says(&["x"], FinishReason::Stop))),
    );
    let server =
        start(ProxyConfig::default(), vec![first.member("w1"), second.member("w2")], Vec::new()).await;
    let both = async {
        loop {
            let list: WorkerList = server.get("/admin/v1/workers").await.json().await.expect("JSON");
            if list.workers.iter().filter(|worker| worker.ready).count() == 2 {
                break;
            }
        }
    };
    soon(both).await;
    for _ in 0..10 {
        assert_eq!(server.complete(json!({})).await.0, 200);
    }
    assert_eq!((first.requests().len(), second.requests().len()), (5, 5));
    first.status.send_modify(|status| status.as_mut().expect("a status").queued_prefill_tokens = 500);
    let avoided = async {
        loop {
            let list: WorkerList = server.get("/admin/v1/workers").await.json().await.expect("JSON");
            if list.workers.iter().any(|worker| worker.queued_prefill_tokens == 500) {
                break;
            }
        }
    };
    soon(avoided).await;
    for _ in 0..4 {
        assert_eq!(server.complete(json!({})).await.0, 200);
    }
    assert_eq!((first.requests().len(), second.requests().len()), (5, 9));
}

#[tokio::test]
async fn a_question_of_placement_is_answered_from_the_cached_profile() {
    let server = start(ProxyConfig::default(), Vec::new(), Vec::new()).await;
    let ask = async |model: &str, query: &str| {
        let answer = server.get(&format!("/admin/v1/fit?model={model}&{query}")).await;
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let (status, text) = ask(MODEL, "memory_bytes=1073741824&sequences=4").await;
    let answer: Fit = serde_json::from_str(&text).expect(&text);
    assert!(status == 200 && answer.fits && answer.sequences == 4, "{answer:?}");
    let (_, text) = ask(MODEL, "memory_bytes=1000000").await;
    let answer: Fit = serde_json::from_str(&text).expect(&text);
    assert!(!answer.fits && answer.left_bytes < 0, "{answer:?}");
    for bad in ["", "memory_bytes=1&devices=0", "memory_bytes=1&sequences=0", "memory_bytes=1&colour=red"] {
        let (status, text) = ask(MODEL, bad).await;
        assert_eq!(status, 400, "{bad}: {text}");
    }
    assert_eq!(server.profiles_asked(), [digest(1)]);
    assert_eq!(ask("asleep", "memory_bytes=1").await.0, 200);
    assert_eq!(ask("bytes", "memory_bytes=1").await.0, 200);
    let profile = server.get(&format!("/admin/v1/profile?model={MODEL}")).await;
    let profile: MemoryProfile = profile.json().await.expect("a profile");
    assert_eq!(profile, helios_registry::CATALOGUE[0].memory_profile());
    assert_eq!(server.profiles_asked(), [digest(1), digest(9)], "one question for each version");
    // No other test of this process asks for profiles.
    assert_eq!(server.metric("helios_profile_cache_hits_total").await, Some(3.0));
    assert_eq!(server.metric("helios_profile_cache_misses_total").await, Some(2.0));
    let grows = async {
        // The gauge is that of the proxy whose metrics were read last.
        while server.metric("helios_profile_cache_age_seconds").await.is_none_or(|age| age == 0.0) {}
    };
    soon(grows).await;
}
