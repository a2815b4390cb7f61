//! What the process environment says: the only place that asks.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

/// A variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The settings of object stores, by the names that the stores' own programs use.
pub(crate) fn object_stores() -> Vec<(String, String)> {
    let is_one = |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
    // Names that are no text are none of these.
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, value)| is_one(name) && !value.is_empty()).collect()
}

fn base(variable_name: &str, below_home: &str) -> Option<PathBuf> {
    let set = variable(variable_name).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| Some(PathBuf::from(variable("HOME")?).join(below_home)))
}

/// Where the store is by default.
pub(crate) fn data_dir() -> Option<PathBuf> {
    base("XDG_DATA_HOME", ".local/share").map(|base| base.join("helios"))
}

/// Where `cargo xtask yardstick` puts its builds.
pub(crate) fn yardstick_dir() -> Option<PathBuf> {
    base("XDG_CACHE_HOME", ".cache").map(|base| base.join("helios/yardstick"))
}

/// The configuration file, if there is one in the user's configuration directory.
pub(crate) fn config_file() -> Option<PathBuf> {
    let path = base("XDG_CONFIG_HOME", ".config")?.join("helios/helios.toml");
    path.exists().then_some(path)
}

/// Base URL of the server that verbs talk to.
pub(crate) fn host() -> String {
    let host = variable("HELIOS_HOST").unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    if host.contains("://") { host } else { format!("http://{host}") }
}

/// Key for that server.
pub(crate) fn api_key() -> Option<String> {
    variable("HELIOS_API_KEY")
}
