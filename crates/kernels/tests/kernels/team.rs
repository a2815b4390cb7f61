//! The thread team: every item once, panics carried, reuse, many callers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use helios_kernels::Team;

fn counts(team: &Team, items: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
    team.run(items, &|item| {
        counts[item].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn each_item_runs_once() {
    for threads in [0, 1, 2, 3, 8] {
        let team = Team::new(threads);
        assert_eq!(team.threads(), threads.max(1));
        for items in [0, 1, 2, 3, 100, 1_000] {
            assert_eq!(counts(&team, items), vec![1; items], "{threads} threads");
        }
    }
}

#[test]
fn many_small_runs_follow_each_other() {
    let team = Team::new(3);
    let total = AtomicUsize::new(0);
    for run in 0..20_000 {
        team.run(run % 7, &|item| {
            total.fetch_add(item + 1, Ordering::Relaxed);
        });
    }
    let expected: usize = (0..20_000).map(|run| (run % 7) * (run % 7 + 1) / 2).sum();
    assert_eq!(total.into_inner(), expected);
}

#[test]
fn several_threads_take_part() {
    let team = Team::new(2);
    let barrier = std::sync::Barrier::new(2);
    // Each item waits for another one: a single thread would wait for ever.
    team.run(2, &|_| {
        barrier.wait();
    });
}

#[test]
fn parked_threads_wake_up() {
    let team = Team::new(2);
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let barrier = std::sync::Barrier::new(2);
        team.run(2, &|_| {
            barrier.wait();
        });
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_team_lives_on() {
    let team = Team::new(3);
    for round in 0..50 {
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.run(100, &|item| assert!(item != round, "item {item} fails"));
        }));
        let payload = result.expect_err("an item panicked");
        assert_eq!(payload.downcast_ref::<String>(), Some(&format!("item {round} fails")));
        assert_eq!(counts(&team, 100), vec![1; 100]);
    }
}

#[test]
fn callers_on_several_threads_and_nested_runs_do_not_disturb_each_other() {
    let team = Team::new(2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(counts(&team, 9), vec![1; 9]);
                }
            });
        }
    });
    team.run(4, &|_| assert_eq!(counts(&team, 5), vec![1; 5]));
}

#[test]
fn chunks_cover_a_slice_without_overlap() {
    let team = Team::new(2);
    for (length, chunk) in [(0, 3), (1, 3), (9, 3), (10, 3), (100, 1), (5, 100)] {
        let mut data = vec![0; length];
        team.run_chunks(&mut data, chunk, &|index, part| {
            assert_eq!(part.len(), chunk.min(length - index * chunk));
            part.iter_mut().for_each(|value| *value += index + 1);
        });
        let expected: Vec<usize> = (0..length).map(|i| i / chunk + 1).collect();
        assert_eq!(data, expected);
    }
}
