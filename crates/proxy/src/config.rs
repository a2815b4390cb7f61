//! The proxy's configuration. Only the binary reads files, flags and the environment; this is what it hands down.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use helios_types::ModelRef;
use http::uri::Authority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ProxyError;

/// How the proxy behaves, with a bound on everything that could grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// Models that must have a ready worker before `/ready` says so; with none named, any one model will do.
    #[schemars(with = "Vec<String>")]
    pub models: Vec<ModelRef>,
    /// Host names, beside loopback ones, that requests without an API key may be addressed to.
    pub hosts: Vec<String>,
    /// Origins (`https://chat.example.org`) whose web pages may use this server.
    pub cors_origins: Vec<String>,
    /// Key that requests must carry as `Authorization: Bearer KEY`; needed off loopback.
    pub api_key: Option<ApiKey>,
    /// More keys, beside `api_key`: each is good for inference, and for writing models where `write_models` says so.
    pub keys: Vec<NamedKey>,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Longest time that a request body may take to arrive.
    pub body_ms_max: u64,
    /// Longest time that a request's headers may take to arrive.
    pub headers_ms_max: u64,
    /// Open client connections; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Inference requests being answered at once.
    pub requests_in_flight_max: usize,
    /// Inference requests waiting for one of those places; more are refused with 503.
    pub requests_waiting_max: usize,
    /// Longest wait for a place; after it, 503.
    pub wait_ms_max: u64,
    /// Longest time without a sign of life from the worker in the middle of an answer, its first token included.
    pub chunk_wait_ms_max: u64,
    /// Longest time that open answers may take to end at shutdown.
    pub drain_ms_max: u64,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            api_key: None,
            keys: Vec::new(),
            body_bytes_max: 32 << 20,
            body_ms_max: 60_000,
            headers_ms_max: 30_000,
            connections_max: 10_240,
            requests_in_flight_max: 512,
            requests_waiting_max: 512,
            wait_ms_max: 30_000,
            chunk_wait_ms_max: 300_000,
            drain_ms_max: 10_000,
        }
    }
}

impl ProxyConfig {
    /// Checks the values, and that a server on `listen` would not be open to strangers.
    ///
    /// # Errors
    /// [`ProxyError`] naming the field.
    pub fn validate(&self, listen: SocketAddr) -> Result<(), ProxyError> {
        if self.api_key.is_none() && !listen.ip().is_loopback() {
            return Err(ProxyError::OpenToNetwork { listen });
        }
        if self.api_key.as_ref().is_some_and(|key| !key.is_sendable()) {
            return Err(config("api_key", "has to be one or more visible ASCII characters"));
        }
        self.check_keys()?;
        self.hosts.iter().try_for_each(|host| check_host(host))?;
        self.cors_origins.iter().try_for_each(|origin| check_origin(origin))?;
        let bounds = [
            ("body_bytes_max", self.body_bytes_max as u64),
            ("body_ms_max", self.body_ms_max),
            ("headers_ms_max", self.headers_ms_max),
            ("connections_max", self.connections_max as u64),
            ("requests_in_flight_max", self.requests_in_flight_max as u64),
            ("chunk_wait_ms_max", self.chunk_wait_ms_max),
        ];
        match bounds.into_iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => Err(config(field, "is 0, which would refuse everything")),
            None => Ok(()),
        }
    }

    /// Named keys stand beside the main one, and each stands for one name.
    fn check_keys(&self) -> Result<(), ProxyError> {
        if self.api_key.is_none() && !self.keys.is_empty() {
            return Err(config("keys", "need `api_key` beside them, which the server's own commands use"));
        }
        let mut names = HashSet::new();
        let mut keys: HashSet<&[u8]> = self.api_key.iter().map(ApiKey::as_bytes).collect();
        for NamedKey { name, key, .. } in &self.keys {
            let problem = match () {
                () if name.is_empty() || name.chars().any(char::is_control) => "has no plain name",
                () if !names.insert(name) => "has the name of another",
                () if !key.is_sendable() => "has to be one or more visible ASCII characters",
                () if !keys.insert(key.as_bytes()) => "is the same as another",
                () => continue,
            };
            return Err(config("keys", format!("`{}` {problem}", name.escape_debug())));
        }
        Ok(())
    }

    pub(crate) fn body_time_max(&self) -> Duration {
        Duration::from_millis(self.body_ms_max)
    }

    pub(crate) fn headers_time_max(&self) -> Duration {
        Duration::from_millis(self.headers_ms_max)
    }

    pub(crate) fn wait_max(&self) -> Duration {
        Duration::from_millis(self.wait_ms_max)
    }

    pub(crate) fn chunk_wait_max(&self) -> Duration {
        Duration::from_millis(self.chunk_wait_ms_max)
    }

    pub(crate) fn drain_max(&self) -> Duration {
        Duration::from_millis(self.drain_ms_max)
    }
}

fn config(field: &'static str, problem: impl Into<String>) -> ProxyError {
    ProxyError::Config { field, problem: problem.into() }
}

fn check_host(host: &str) -> Result<(), ProxyError> {
    let is_host = host.parse::<Authority>().is_ok_and(|authority| authority.host() == host);
    match is_host {
        true => Ok(()),
        false => Err(config("hosts", format!("has `{host}`, which is not a host name without port"))),
    }
}

fn check_origin(origin: &str) -> Result<(), ProxyError> {
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let is_origin = authority.is_some_and(|rest| rest.parse::<Authority>().is_ok() && !rest.contains('@'));
    match is_origin {
        true => Ok(()),
        false => Err(config(
            "cors_origins",
            format!("has `{origin}`, which is not an origin such as `https://chat.example.org`"),
        )),
    }
}

/// A key of one of several users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedKey {
    /// Whose it is.
    pub name: String,
    /// The key.
    pub key: ApiKey,
    /// Whether it may add versions of models by the hub's protocol and by OCI distribution.
    #[serde(default)]
    pub write_models: bool,
}

/// A key that never shows in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key, to be sent by a client in this process.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn is_sendable(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, NamedKey, ProxyConfig};

    fn on(listen: &str, config: &ProxyConfig) -> Result<(), String> {
        config.validate(listen.parse().expect("an address")).map_err(|error| error.to_string())
    }

    #[test]
    fn only_loopback_goes_without_a_key() {
        let open = ProxyConfig::default();
        assert_eq!(on("127.0.0.1:8080", &open), Ok(()));
        assert_eq!(on("[::1]:8080", &open), Ok(()));
        let refused = on("0.0.0.0:8080", &open).expect_err("open to the network");
        assert!(refused.contains("hint: set an API key"), "{refused}");
        let keyed = ProxyConfig { api_key: Some(ApiKey::new("sk-1")), ..open };
        assert_eq!(on("0.0.0.0:8080", &keyed), Ok(()));
        assert!(!format!("{keyed:?}").contains("sk-1"));
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let with = |change: fn(&mut ProxyConfig)| {
            let mut config = ProxyConfig::default();
            change(&mut config);
            on("127.0.0.1:1", &config).expect_err("a refusal")
        };
        assert!(with(|config| config.api_key = Some(ApiKey::new("a b"))).contains("api_key"));
        assert!(with(|config| config.hosts = vec!["box:80".to_owned()]).contains("box:80"));
        for origin in ["*", "null", "https://a/", "ftp://a", "https://u@a"] {
            let config = ProxyConfig { cors_origins: vec![origin.to_owned()], ..ProxyConfig::default() };
            assert!(on("127.0.0.1:1", &config).is_err(), "{origin}");
        }
        assert!(with(|config| config.body_bytes_max = 0).contains("body_bytes_max"));
    }

    #[test]
    fn named_keys_stand_beside_the_main_one_and_are_told_apart() {
        let named = |name: &str, key: &str| NamedKey {
            name: name.to_owned(),
            key: ApiKey::new(key),
            write_models: false,
        };
        let with = |api_key: Option<&str>, keys: Vec<NamedKey>| {
            let api_key = api_key.map(ApiKey::new);
            on("127.0.0.1:1", &ProxyConfig { api_key, keys, ..ProxyConfig::default() })
        };
        assert_eq!(with(Some("main"), vec![named("ci", "a"), named("ops", "b")]), Ok(()));
        for (keys, problem) in [
            (vec![named("ci", "main")], "same as another"),
            (vec![named("ci", "a"), named("ops", "a")], "same as another"),
            (vec![named("ci", "a"), named("ci", "b")], "name of another"),
            (vec![named("", "a")], "no plain name"),
            (vec![named("ci", "a b")], "visible ASCII"),
        ] {
            assert!(with(Some("main"), keys).expect_err(problem).contains(problem), "{problem}");
        }
        assert!(with(None, vec![named("ci", "a")]).expect_err("no main key").contains("`api_key`"));
        assert!(!format!("{:?}", named("ci", "sk-1")).contains("sk-1"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<ProxyConfig>(r#"{"api_keys": "x"}"#).expect_err("unknown");
        assert!(error.to_string().contains("api_keys"));
    }
}
