//! BLAKE3 trees: any range is verified alone, and nothing else passes.

use std::fs;
use std::os::unix::fs::FileExt;

use helios_storage::{BlobStore, LEAF_BYTES, StorageError, Tree};
use helios_types::{Classify, ErrorCode};
use proptest::prelude::*;

use crate::blob_store::{bytes, names, store};
use crate::recipe::{self, deduplicated, file};

const LEAF: usize = LEAF_BYTES as usize;

/// Sizes around everything that matters to the shape of a tree.
fn sizes() -> Vec<usize> {
    let leaves = [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31];
    let around = |leaves: usize| [(leaves * LEAF).saturating_sub(1), leaves * LEAF, leaves * LEAF + 1];
    let mut sizes: Vec<usize> = leaves.into_iter().flat_map(around).chain([1023, 1024, 1025]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[test]
fn the_root_is_the_blake3_hash_and_the_bytes_are_the_tree() {
    for size in sizes() {
        let content = bytes(size);
        let tree = Tree::build(&content);
        assert_eq!(tree.root(), *blake3::hash(&content).as_bytes(), "{size} bytes");
        assert_eq!(tree.to_bytes().len() as u64, Tree::bytes_of(size as u64));
        let again = Tree::from_bytes(tree.root(), size as u64, &tree.to_bytes()).expect("its own leaves");
        assert_eq!(again, tree);
        tree.verify(0, &content).expect("the whole");
    }
}

#[test]
fn leaves_that_are_not_the_roots_are_refused() {
    for size in [LEAF + 1, 5 * LEAF, 5 * LEAF + 77] {
        let tree = Tree::build(&bytes(size));
        let leaves = tree.to_bytes();
        let refused = |root, size: usize, leaves: &[u8]| {
            let error = Tree::from_bytes(root, size as u64, leaves).expect_err("refused");
            assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
        };
        refused([0; 32], size, &leaves);
        refused(tree.root(), size, &leaves[32..]);
        refused(tree.root(), size + LEAF, &leaves);
        refused(tree.root(), LEAF, &leaves);
        let mut swapped = leaves.clone();
        swapped.rotate_left(32);
        refused(tree.root(), size, &swapped);
        for leaf in 0..leaves.len() / 32 {
            let mut wrong = leaves.clone();
            wrong[leaf * 32 + leaf % 32] ^= 1;
            refused(tree.root(), size, &wrong);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_aligned_range_is_verified_and_every_flipped_bit_is_seen(
        size in 1..7 * LEAF,
        range in any::<[proptest::sample::Index; 2]>(),
        flip in any::<proptest::sample::Index>(),
    ) {
        let content = bytes(size);
        let tree = Tree::build(&content);
        let (a, b) = (range[0].index(size + 1), range[1].index(size + 1));
        let aligned = tree.align(&(a.min(b) as u64..a.max(b) as u64));
        prop_assert!(aligned.start <= a.min(b) as u64 && a.max(b) as u64 <= aligned.end);
        let part = &content[aligned.start as usize..aligned.end as usize];
        prop_assert!(tree.verify(aligned.start, part).is_ok());
        if !part.is_empty() {
            let mut wrong = part.to_vec();
            let at = flip.index(wrong.len());
            wrong[at] ^= 0x40;
            prop_assert!(tree.verify(aligned.start, &wrong).is_err());
            prop_assert!(tree.verify(aligned.start, &part[..part.len() - 1]).is_err());
            prop_assert!(tree.verify(aligned.start + 1, part).is_err());
        }
    }
}

#[test]
fn a_range_is_read_and_verified_without_the_rest() {
    let (dir, store) = store();
    let content = bytes(5 * LEAF + 1000);
    let info = store.put(&content).expect("stored");
    // Damage in the last leaf: the first ones are served, a range that touches the last is not.
    let file = fs::File::options().write(true).open(store.path(&info.digest)).expect("the blob");
    file.write_all_at(&[!content[5 * LEAF]], 5 * LEAF as u64).expect("written");
    for range in [0..10, 100..LEAF as u64 + 5, 4 * LEAF as u64..5 * LEAF as u64, 7..7] {
        let expected = &content[range.start as usize..range.end as usize];
        assert_eq!(store.read_range(&info, range).expect("right"), expected);
    }
    let error = store.read_range(&info, 5 * LEAF as u64 - 1..5 * LEAF as u64 + 1).expect_err("damaged");
    assert!(matches!(error, StorageError::BlobCorrupt { .. }), "{error}");
    assert_eq!(names(&dir, "quarantine"), [info.digest.hex()]);
    let error = store.read_range(&info, 0..1).expect_err("quarantined");
    assert_eq!(error.code(), ErrorCode::NotFound);
    let error = store.read_range(&info, 0..info.size + 1).expect_err("too long");
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[test]
fn a_swapped_file_is_found_out_by_the_first_range() {
    for other in [bytes(3 * LEAF + 6), vec![0; 3 * LEAF + 5]] {
        let (_dir, store) = store();
        let info = store.put(&bytes(3 * LEAF + 5)).expect("stored");
        fs::write(store.path(&info.digest), other).expect("swapped");
        let error = store.read_range(&info, 20..21).expect_err("another file");
        assert!(matches!(error, StorageError::BlobCorrupt { .. }), "{error}");
    }
}

#[test]
fn a_lost_or_wrong_tree_is_built_again() {
    let (dir, store) = store();
    let content = bytes(3 * LEAF + 5);
    let info = store.put(&content).expect("stored");
    let path = dir.path().join("trees").join(info.digest.hex());
    let right = fs::read(&path).expect("written with the blob");
    assert_eq!(right, Tree::build(&content).to_bytes());
    let damages: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&path).expect("removed"),
        &|| fs::write(&path, &right[..50]).expect("cut"),
        &|| fs::write(&path, vec![7; right.len()]).expect("replaced"),
    ];
    let forget = || fs::remove_dir_all(dir.path().join("verified")).expect("removed");
    for damage in damages {
        damage();
        forget();
        let reopened = BlobStore::open(dir.path()).expect("a store");
        assert_eq!(reopened.read_range(&info, 5..9).expect("right"), &content[5..9]);
        assert_eq!(fs::read(&path).expect("built again"), right);
    }
    fs::remove_file(&path).expect("removed");
    forget();
    BlobStore::open(dir.path()).expect("a store").get(&info).expect("right");
    assert_eq!(fs::read(&path).expect("a whole read brings it back, too"), right);
}

#[test]
fn a_tree_goes_with_its_blob() {
    let (dir, store) = store();
    let kept = store.put(&bytes(2 * LEAF)).expect("stored");
    let gone = store.put(&bytes(2 * LEAF + 1)).expect("stored");
    store.put(&bytes(LEAF)).expect("one leaf needs no tree");
    assert_eq!(names(&dir, "trees").len(), 2);
    store.remove(&gone.digest).expect("removed");
    assert_eq!(names(&dir, "trees"), [kept.digest.hex()]);
    fs::remove_file(store.path(&kept.digest)).expect("removed by somebody else");
    assert_eq!(store.remove_leftovers().expect("removed"), Tree::bytes_of(kept.size));
    assert!(names(&dir, "trees").is_empty());
}

#[test]
fn a_recipe_keeps_its_tree_and_has_it_built_again() {
    let (dir, store) = store();
    let tensors: Vec<u64> = (0..64).collect();
    let changed: Vec<u64> = tensors.iter().map(|seed| if *seed < 2 { seed + 900 } else { *seed }).collect();
    let (base, variant) = (file(&recipe::tensors(&tensors), "a"), file(&recipe::tensors(&changed), "b"));
    let (_, info, is_recipe) = deduplicated(&store, &base, &variant);
    assert!(is_recipe && variant.len() > 2 * LEAF, "a recipe with a tree");
    let path = dir.path().join("trees").join(info.digest.hex());
    store.remove_leftovers().expect("nothing to remove");
    let right = fs::read(&path).expect("the whole file's tree stays");
    assert_eq!(right, Tree::build(&variant).to_bytes());
    fs::remove_file(&path).expect("removed");
    let reopened = BlobStore::open(dir.path()).expect("a store");
    assert_eq!(reopened.tree(&info).expect("built again").to_bytes(), right);
    assert_eq!(fs::read(&path).expect("and kept"), right);
    reopened.remove(&info.digest).expect("removed");
    assert!(!path.exists());
}
