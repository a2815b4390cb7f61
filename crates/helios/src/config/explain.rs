//! Every setting, its value and where that came from.

use figment::{Figment, Metadata};
use serde::Serialize;
use serde_json::Value;

use super::Config;

/// One setting.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    /// Dotted path, such as `proxy.body_bytes_max`.
    pub(crate) key: String,
    /// The value in force; secrets are hidden.
    pub(crate) value: Value,
    /// The layer that set it.
    pub(crate) origin: String,
}

/// Lists all settings, sorted by key.
pub(crate) fn explain(config: &Config, figment: &Figment) -> Vec<Setting> {
    let tree = serde_json::to_value(config).unwrap_or_default();
    let mut settings = Vec::new();
    walk("", &tree, &mut |key, value| {
        let origin = figment.find_metadata(key).map_or_else(|| "default".to_owned(), origin);
        let value = if is_secret(key) && !value.is_null() { "(hidden)".into() } else { value.clone() };
        settings.push(Setting { key: key.to_owned(), value, origin });
    });
    settings
}

fn walk(prefix: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                walk(&key, value, visit);
            }
        }
        leaf => visit(prefix, leaf),
    }
}

fn is_secret(key: &str) -> bool {
    key.ends_with("_key") || key.ends_with("_token")
}

/// The layer in a person's words.
pub(super) fn origin(metadata: &Metadata) -> String {
    match (&metadata.source, metadata.name.as_ref()) {
        (Some(figment::Source::File(path)), _) => format!("file {}", path.display()),
        (_, name) if name.contains("environment") => "environment".to_owned(),
        (_, name) if name == super::flags::LAYER => name.to_owned(),
        _ => "default".to_owned(),
    }
}
