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
        let value = shown(key, value);
        settings.push(Setting { key: key.to_owned(), value, origin });
    });
    settings
}

/// The value, without secrets: also those inside a list.
fn shown(key: &str, value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        _ if is_secret(key) => "(hidden)".into(),
        Value::Array(items) => items.iter().map(|item| shown("", item)).collect(),
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), shown(name, value))).collect(),
        plain => plain.clone(),
    }
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
    matches!(key, "key" | "store.metadata") || key.ends_with("_key") || key.ends_with("_token")
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::shown;

    #[test]
    fn secrets_are_hidden_wherever_they_are() {
        assert_eq!(shown("proxy.api_key", &json!("sk-1")), json!("(hidden)"));
        assert_eq!(shown("proxy.api_key", &json!(null)), json!(null));
        let keys = json!([{"name": "ci", "key": "sk-2", "write_models": true}]);
        let hidden = json!([{"name": "ci", "key": "(hidden)", "write_models": true}]);
        assert_eq!(shown("proxy.keys", &keys), hidden);
    }
}
