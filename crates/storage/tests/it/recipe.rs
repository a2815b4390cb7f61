//! Recipes: files that share tensors come back byte for byte, from parts that are mapped in place.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use helios_storage::{
    Blob, BlobInfo, BlobStore, Checkpoint, DedupLimits, RecipePlan, SafetensorsHeader, StorageError,
    TensorHashes, TensorIndex, TensorPlan,
};
use helios_types::TensorType;
use proptest::prelude::*;

/// A safetensors file with tensors of these names, types and seeds, and some `__metadata__`.
pub(crate) fn file(tensors: &[(String, TensorType, usize, u64)], note: &str) -> Vec<u8> {
    let plan = |(name, tensor_type, elements, _): &(String, TensorType, usize, u64)| TensorPlan {
        name: name.clone(),
        tensor_type: *tensor_type,
        shape: vec![*elements],
    };
    let plans: Vec<TensorPlan> = tensors.iter().map(plan).collect();
    let metadata = BTreeMap::from([("note".to_owned(), note.to_owned())]);
    let layout = SafetensorsHeader::layout("x", &plans, &metadata).expect("a layout");
    let mut file = layout.header;
    file.resize(layout.size, 0);
    for (index, range) in layout.tensors {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&tensors[index].3.to_le_bytes());
        hasher.finalize_xof().fill(&mut file[range]);
    }
    file
}

pub(crate) fn hashes(bytes: &[u8]) -> TensorHashes {
    TensorHashes::of("x", &Blob::from_vec(bytes.to_vec()).into()).expect("hashes")
}

const ANY: DedupLimits = DedupLimits { shared_share_min: 0.0, saved_bytes_min: 0 };

/// Puts `base` and `variant` into a store and makes a recipe of the second, if it shares anything.
pub(crate) fn deduplicated(store: &BlobStore, base: &[u8], variant: &[u8]) -> (BlobInfo, BlobInfo, bool) {
    let base_info = store.put(base).expect("stored");
    let variant_info = store.put(variant).expect("stored");
    let mut index = TensorIndex::default();
    index.add(base_info.digest, &hashes(base));
    let plan = RecipePlan::new(variant.len() as u64, &hashes(variant), &index);
    let worth = plan.is_worth(&ANY) && base_info != variant_info;
    if worth {
        store.replace_by_recipe(&variant_info, &plan).expect("a recipe");
    }
    (base_info, variant_info, worth)
}

pub(crate) fn tensors(seeds: &[u64]) -> Vec<(String, TensorType, usize, u64)> {
    seeds
        .iter()
        .enumerate()
        .map(|(index, seed)| (format!("t{index}"), TensorType::BF16, 4096, *seed))
        .collect()
}

fn arbitrary_tensors() -> impl Strategy<Value = Vec<(String, TensorType, usize, u64)>> {
    let types = prop_oneof![Just(TensorType::F32), Just(TensorType::BF16), Just(TensorType::F16)];
    let one = (types, prop_oneof![1..40_usize, 2000..2100_usize, 4096..9000_usize], 0..6_u64);
    prop::collection::vec(one, 0..12).prop_map(|tensors| {
        let named =
            |(index, (tensor_type, elements, seed))| (format!("t{index}"), tensor_type, elements, seed);
        tensors.into_iter().enumerate().map(named).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn variants_read_back_byte_identical_and_gc_keeps_what_they_need(
        first in arbitrary_tensors(),
        second in arbitrary_tensors(),
        shared in 0..12_usize,
        live_base in any::<bool>(),
        live_variant in any::<bool>(),
    ) {
        let mut variant = second;
        let common = first.iter().take(shared).enumerate();
        variant.extend(common.map(|(index, (_, kind, elements, seed))| (format!("s{index}"), *kind, *elements, *seed)));
        let (base, variant) = (file(&first, "base"), file(&variant, "another"));
        let dir = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(dir.path()).expect("a store");
        let (base_info, variant_info, is_recipe) = deduplicated(&store, &base, &variant);
        prop_assert_eq!(store.path(&variant_info.digest).exists(), !is_recipe);

        let opened = store.open_file(&variant_info).expect("opened");
        prop_assert_eq!(opened.len(), variant.len());
        prop_assert!(*opened.to_blob() == *variant);
        prop_assert!(*store.get(&variant_info).expect("in one piece") == *variant);
        let checkpoint = Checkpoint::from_safetensors(vec![("x".to_owned(), opened)], None).expect("a checkpoint");
        let whole = SafetensorsHeader::parse("x", &variant).expect("a header");
        for info in &whole.tensors {
            let view = checkpoint.tensor(&info.name).expect("there");
            prop_assert!(view.bytes == &variant[info.range.clone()]);
            prop_assert!(view.info.range.start.is_multiple_of(info.tensor_type.block_bytes().min(4)));
        }

        let mut live = HashSet::new();
        live.extend(live_base.then_some(base_info.digest));
        live.extend(live_variant.then_some(variant_info.digest));
        let sources = store.recipe_sources(&live).expect("readable");
        live.extend(sources);
        let whole = store.list().expect("listed").into_iter().map(|(digest, _)| digest);
        for digest in store.recipes().expect("listed").into_iter().chain(whole) {
            if !live.contains(&digest) {
                store.remove(&digest).expect("removed");
            }
        }
        let store = BlobStore::open(dir.path()).expect("opened again");
        prop_assert_eq!(store.contains(&variant_info.digest), live_variant || (live_base && base_info == variant_info));
        if live_variant {
            prop_assert!(*store.open_file(&variant_info).expect("still there").to_blob() == *variant);
        }
        if live_base {
            prop_assert!(*store.get(&base_info).expect("still there") == *base);
        }
    }
}

#[test]
fn shared_tensors_are_mapped_in_place_and_own_ones_begin_pages() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = BlobStore::open(dir.path()).expect("a store");
    let (base, variant) =
        (file(&tensors(&[1, 2, 3, 4]), "base"), file(&tensors(&[1, 9, 3, 4]), "a longer note"));
    let (base_info, variant_info, is_recipe) = deduplicated(&store, &base, &variant);
    assert!(is_recipe);
    let recipe = store.recipe(&variant_info.digest).expect("readable").expect("a recipe");
    assert_eq!(recipe.parts.len(), 4, "header, one shared, one own, the rest shared: {:?}", recipe.parts);
    assert!(recipe.own.size < 3 * 4096 + 8192);
    let own = &recipe.parts[2];
    assert_eq!((own.blob, own.offset % 4096, own.length), (recipe.own.digest, 0, 8192));
    let opened = store.open_file(&variant_info).expect("opened");
    let header = SafetensorsHeader::parse("x", &variant).expect("a header");
    let (blob, _) = opened.locate(header.tensors[2].range.clone()).expect("in one part");
    assert_eq!(blob.len() as u64, base_info.size, "the base's own map");
    assert_eq!(store.recipes().expect("listed"), [variant_info.digest]);
}

#[test]
fn a_corrupt_or_lost_part_is_a_clear_error_and_the_whole_file_heals_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = BlobStore::open(dir.path()).expect("a store");
    let (base, variant) = (file(&tensors(&[1, 2, 3]), "base"), file(&tensors(&[1, 2, 9]), "variant"));
    let (base_info, variant_info, _) = deduplicated(&store, &base, &variant);
    store.open_file(&variant_info).expect("whole");
    let path = store.path(&base_info.digest);
    let mut wrong = base.clone();
    let at = wrong.len() - 8192 - 100;
    wrong[at] ^= 1;
    fs::remove_file(&path).expect("removed");
    fs::write(&path, wrong).expect("written");
    let error = store.open_file(&variant_info).expect_err("corrupt");
    assert!(matches!(error, StorageError::RecipeBroken { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&base_info.digest.to_string()) && text.contains("hint: pull"), "{text}");
    assert!(!store.contains(&variant_info.digest) && !path.exists(), "the part is in the quarantine");
    let text = store.open_file(&variant_info).expect_err("gone").to_string();
    assert!(text.contains("is gone"), "{text}");
    store.put(&variant).expect("pulled again");
    assert!(*store.open_file(&variant_info).expect("healed").to_blob() == *variant);

    fs::write(dir.path().join("recipes").join(format!("{}.json", base_info.digest.hex())), b"{}")
        .expect("written");
    let text = store.open_file(&base_info).expect_err("no recipe").to_string();
    assert!(text.contains("missing field"), "{text}");
}

#[test]
fn the_hashes_of_a_file_read_back() {
    let hashes = hashes(&file(&tensors(&[1, 2]), "x"));
    assert_eq!(TensorHashes::from_bytes("x", &hashes.to_bytes()).expect("hashes"), hashes);
    assert!(TensorHashes::from_bytes("x", &[0; 57]).is_err());
}
