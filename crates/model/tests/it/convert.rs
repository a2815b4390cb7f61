//! A model from one form to the other and back, in files of a bounded size.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use helios_model::convert::{FormFile, Origin};
use helios_model::{FileEntry, INDEX_FILE, MANIFEST_SCHEMA, Manifest, Role, WeightFormat, understand};
use helios_storage::{
    Blob, BlobInfo, Checkpoint, NameScheme, SafetensorsHeader, TensorNames, TensorPlan, Tiers,
};
use helios_types::TensorType;
use serde_json::Value;

use crate::tiny;

/// A store with the files of one model.
struct Stored {
    blobs: Arc<Tiers>,
    manifest: Arc<Manifest>,
}

impl Stored {
    /// What an import makes of files: a manifest with what is derived from them.
    fn new(blobs: &Arc<Tiers>, files: BTreeMap<String, BlobInfo>) -> Self {
        let role = |name: &str| match name {
            "tokenizer.json" => Role::Tokenizer,
            INDEX_FILE => Role::WeightsIndex,
            _ if name.ends_with(".gguf") || name.ends_with(".safetensors") => Role::Weights,
            _ => Role::Original,
        };
        let opened = files.iter().map(|(name, info)| (name.clone(), blobs.get(info).expect("a blob")));
        let understood =
            understand(opened.map(|(name, blob)| (name, blob.into())).collect(), None, "file:test")
                .expect("a model");
        let entry = |role, path, blob| FileEntry { role, path, blob };
        let mut entries: Vec<FileEntry> =
            files.into_iter().map(|(name, info)| entry(role(&name), name, info)).collect();
        for file in understood.derived {
            entries.push(entry(file.role, file.path, blobs.put(&file.bytes).expect("stored")));
        }
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA,
            files: entries,
            metadata: Some(understood.facts),
            profile: Some(understood.profile),
            lineage: None,
        };
        Self { blobs: blobs.clone(), manifest: Arc::new(manifest) }
    }

    fn import(blobs: &Arc<Tiers>, folder: &Path) -> Self {
        let names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
        let put = |name: &str| blobs.put(&fs::read(folder.join(name)).expect(name)).expect("stored");
        Self::new(blobs, names.map(|name| (name.to_owned(), put(name))).into())
    }

    /// The files of the other form, written.
    fn converted(&self, format: WeightFormat, shard_bytes_max: usize) -> Self {
        let name = "tiny:test".parse().expect("a name");
        let origin = Origin::open(self.blobs.clone(), name, self.manifest.clone()).expect("opened");
        let write = |file: &FormFile<'_>| match file {
            FormFile::Small { name, bytes } => (name.clone(), self.blobs.put(bytes).expect("stored")),
            FormFile::Tensors(file) => {
                let writer = self.blobs.temporary_writer(Some(file.size())).expect("a writer");
                let written = file.write(writer, &mut |_| {}).expect("written");
                (file.name.clone(), written.commit(None).expect("kept"))
            }
        };
        let files = origin.form_in_shards(format, shard_bytes_max).expect("convertible");
        Self::new(&self.blobs, files.iter().map(write).collect())
    }

    fn weights(&self) -> Vec<(String, Blob)> {
        let open = |file: &FileEntry| (file.path.clone(), self.blobs.get(&file.blob).expect("a blob"));
        self.manifest.files(Role::Weights).map(open).collect()
    }

    fn index(&self) -> Option<Blob> {
        let file = self.manifest.file(Role::WeightsIndex)?;
        Some(self.blobs.get(&file.blob).expect("a blob"))
    }
}

/// Writes the one layer of the tiny model as a checkpoint has it, in bf16, neighbours different and none infinite.
fn write_weights(path: &Path) {
    const HIDDEN: usize = 32;
    const FFN: usize = 48;
    let names = TensorNames::of(NameScheme::HuggingFace);
    let in_layer = |suffix, shape: &[usize]| (names.in_layer(0, suffix), shape.to_vec());
    let tensors = [
        (names.embedding.to_owned(), vec![258, HIDDEN]),
        (names.output_norm.to_owned(), vec![HIDDEN]),
        in_layer(names.attention_norm, &[HIDDEN]),
        in_layer(names.query, &[HIDDEN, HIDDEN]),
        in_layer(names.key, &[HIDDEN, HIDDEN]),
        in_layer(names.value, &[HIDDEN, HIDDEN]),
        in_layer(names.attention_output, &[HIDDEN, HIDDEN]),
        in_layer(names.ffn_norm, &[HIDDEN]),
        in_layer(names.gate, &[FFN, HIDDEN]),
        in_layer(names.up, &[FFN, HIDDEN]),
        in_layer(names.down, &[HIDDEN, FFN]),
    ];
    let plans = tensors.map(|(name, shape)| TensorPlan { name, tensor_type: TensorType::BF16, shape });
    let layout = SafetensorsHeader::layout("model.safetensors", &plans, &BTreeMap::new()).expect("a layout");
    let mut file = layout.header;
    let values = file.len();
    file.resize(layout.size, 0);
    for (at, value) in file[values..].chunks_exact_mut(2).enumerate() {
        value.copy_from_slice(&(0x3c00 + at as u16 % 0x400).to_le_bytes());
    }
    fs::write(path, file).expect("written");
}

#[test]
fn several_shards_say_what_they_hold_and_hold_the_same_values() {
    const SHARD_BYTES_MAX: usize = 6000;
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("model");
    tiny::hugging_face(&folder, 1);
    write_weights(&folder.join("model.safetensors"));
    let blobs = Tiers::open(&place.path().join("store"), Vec::new()).expect("a store");
    let first = Stored::import(&blobs, &folder);
    let gguf = first.converted(WeightFormat::Gguf, SHARD_BYTES_MAX);
    assert_eq!(gguf.weights().len(), 1, "a GGUF file is one");
    let back = gguf.converted(WeightFormat::Safetensors, SHARD_BYTES_MAX);

    let shards = back.weights();
    // The embedding has 16,512 bytes and is alone; the other matrices have 2,048 or 3,072.
    assert!(shards.len() >= 4, "{} shards", shards.len());
    let index: Value = serde_json::from_slice(&back.index().expect("an index")).expect("JSON");
    let mut total = 0;
    for (number, (name, blob)) in shards.iter().enumerate() {
        assert_eq!(*name, format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len()));
        let header = SafetensorsHeader::parse(name, blob).expect("a header");
        let bytes: usize = header.tensors.iter().map(|tensor| tensor.range.len()).sum();
        assert!(bytes <= SHARD_BYTES_MAX || header.tensors.len() == 1, "{name}: {bytes}");
        header.tensors.iter().for_each(|tensor| assert_eq!(index["weight_map"][&tensor.name], *name));
        total += bytes;
    }
    assert_eq!(index["metadata"]["total_size"], total);

    let original = Checkpoint::from_safetensors(first.weights(), None).expect("tensors");
    let index = back.index();
    let again = Checkpoint::from_safetensors(shards, index.as_deref()).expect("tensors");
    assert_eq!(again.tensors().count(), original.tensors().count());
    for info in original.tensors() {
        let (before, after) = (original.tensor(&info.name), again.tensor(&info.name));
        let (before, after) = (before.expect(&info.name), after.expect(&info.name));
        assert_eq!(before.info.tensor_type, after.info.tensor_type, "{}", info.name);
        assert!(before.bytes == after.bytes, "{}", info.name);
    }
}
