//! Which files of a repository or folder make a model.

use crate::ModelError;

/// The small files that belong to a model in the Hugging Face form.
const SMALL_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    INDEX_FILE,
];

/// Tells which shard has which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Endings of pickled checkpoints.
const PICKLE_SUFFIXES: [&str; 6] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

/// Names that an error lists.
const LISTED_MAX: usize = 10;

/// The files to take of those of a folder, which `subject` names in errors: the safetensors checkpoint with its small
/// files, else the one GGUF file.
///
/// # Errors
/// [`ModelError::Invalid`] if there is none, or more than one to choose from.
pub fn select<'a>(subject: &str, names: &[&'a str]) -> Result<Vec<&'a str>, ModelError> {
    let refuse = |problem: String| Err(ModelError::invalid(subject, problem));
    let weights = checkpoint(names);
    if !weights.is_empty() {
        let small = names.iter().copied().filter(|name| SMALL_FILES.contains(name));
        return Ok(small.chain(weights).collect());
    }
    let gguf: Vec<&str> = names.iter().copied().filter(|name| name.ends_with(".gguf")).collect();
    match gguf.as_slice() {
        [one] => Ok(vec![one]),
        [] => match names.iter().find(|name| is_pickle(name)) {
            Some(name) => Err(refuse_pickle(subject, name)),
            None => refuse("it has neither safetensors nor GGUF files".to_owned()),
        },
        several => {
            let listed = several.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
            refuse(format!("it has {} GGUF files; name one of: {listed}", several.len()))
        }
    }
}

/// Whether a name ends like a pickled checkpoint's.
pub fn is_pickle(name: &str) -> bool {
    PICKLE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The error for a checkpoint that runs code when it is read.
pub fn refuse_pickle(subject: &str, name: &str) -> ModelError {
    let problem = format!(
        "`{name}` is a pickle, which can run any code when it is read\n\
         hint: take the safetensors form of the model; its publisher makes one with `save_pretrained`"
    );
    ModelError::invalid(subject, problem)
}

/// `model.safetensors`, or its shards, or the one safetensors file there is.
fn checkpoint<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let files: Vec<&str> =
        names.iter().copied().filter(|name| name.ends_with(".safetensors") && !name.contains('/')).collect();
    if files.contains(&"model.safetensors") {
        return vec!["model.safetensors"];
    }
    let shards: Vec<&str> = files.iter().copied().filter(|name| name.starts_with("model-")).collect();
    if !shards.is_empty() {
        return shards;
    }
    if files.len() == 1 { files } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn checkpoints_come_before_gguf_and_without_strangers() {
        let names = ["README.md", "config.json", "consolidated.safetensors", "model.safetensors", "a.gguf"];
        assert_eq!(select("x", &names).expect("a checkpoint"), ["config.json", "model.safetensors"]);
        let names =
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "other.safetensors"];
        assert_eq!(select("x", &names).expect("shards").len(), 2);
        assert_eq!(select("x", &["README.md", "a.gguf"]).expect("one file"), ["a.gguf"]);
    }

    #[test]
    fn a_choice_that_is_not_ours_is_refused() {
        let error = select("hf:a/b", &["q4.gguf", "q8.gguf"]).expect_err("two files").to_string();
        assert!(error.contains("q4.gguf, q8.gguf"), "{error}");
        for pickle in ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"] {
            let error = select("x", &["README.md", pickle]).expect_err("a pickle").to_string();
            assert!(error.contains(pickle) && error.contains("hint: take the safetensors form"), "{error}");
        }
    }
}
