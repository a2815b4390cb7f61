//! Who may ask at all: web pages only from configured origins, strangers only with the key.
//!
//! Without a key the server listens on loopback only (`ProxyConfig::validate`), and what must be kept out is a web page
//! in a browser on this machine. A page that calls across origins is told by its `Origin`; one that had a host name of
//! its own point at 127.0.0.1 is told by its `Host`; one that sends blindly cannot send `application/json`.

use std::net::IpAddr;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helios_api::ApiError;
use helios_types::ErrorCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Response};
use subtle::ConstantTimeEq;

use crate::routes::cors;
use crate::{Access, ApiKey, Bodies, NamedKey, Permission, ProxyConfig};

/// Content types that a page may send to another origin without asking first (Fetch standard, "CORS-safelisted").
const PAGE_TYPES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

/// The rules, from the configuration.
#[derive(Debug)]
pub(crate) struct Guard {
    hosts: Vec<String>,
    cors_origins: Vec<String>,
    api_key: Option<ApiKey>,
    keys: Vec<NamedKey>,
}

impl Guard {
    pub(crate) fn new(config: &ProxyConfig) -> Self {
        let (hosts, cors_origins) = (config.hosts.clone(), config.cors_origins.clone());
        Self { hosts, cors_origins, api_key: config.api_key.clone(), keys: config.keys.clone() }
    }

    /// Everything that is asked of every request before its route sees it. A response instead of the route's is the
    /// answer to a browser that asks before it sends the request proper; browsers do so without a key.
    pub(crate) fn check(
        &self,
        access: Option<Access>,
        parts: &Parts,
        has_body: bool,
    ) -> Result<Option<Response<Body>>, ApiError> {
        let is_from_page = self.origin(parts)?.is_some();
        self.check_host(parts)?;
        if is_from_page && cors::is_preflight(parts) {
            return Ok(Some(cors::preflight(parts)));
        }
        self.check_key(access.map(|access| access.permission), parts)?;
        if let Some(access) = access {
            check_content_type(access.bodies, parts, has_body)?;
        }
        Ok(None)
    }

    /// The allowed origin that the request comes from; `None` if it does not come from a web page.
    pub(crate) fn origin<'a>(&self, parts: &'a Parts) -> Result<Option<&'a str>, ApiError> {
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(None) };
        let origin = origin.to_str().unwrap_or_default();
        if origins.next().is_none() && self.cors_origins.iter().any(|allowed| allowed == origin) {
            return Ok(Some(origin));
        }
        Err(denied(
            "web pages of this origin may not use this server\n  hint: allow them with `cors_origins`",
        ))
    }

    /// Without a key, the request has to be addressed to this machine by a name that is known to mean it.
    fn check_host(&self, parts: &Parts) -> Result<(), ApiError> {
        if self.api_key.is_some() {
            return Ok(());
        }
        let header = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = parts.headers.get_all(HOST).iter().map(header);
        let target = parts.uri.authority().map(ToString::to_string);
        let named: Vec<String> = headers.chain(target).collect();
        if !named.is_empty() && named.iter().all(|host| self.is_own(host)) {
            return Ok(());
        }
        Err(denied(
            "this host name is not one of the server's\n  hint: use 127.0.0.1 or localhost, or allow the name with `hosts`",
        ))
    }

    fn is_own(&self, host_and_port: &str) -> bool {
        let Ok(authority) = host_and_port.parse::<Authority>() else { return false };
        if host_and_port.contains('@') {
            return false;
        }
        let host = authority.host();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_named = |name: &String| name.eq_ignore_ascii_case(host);
        is_loopback || host.eq_ignore_ascii_case("localhost") || self.hosts.iter().any(is_named)
    }

    /// Where a key is set, everything but open routes needs it; what is no route at all counts as closed.
    fn check_key(&self, permission: Option<Permission>, parts: &Parts) -> Result<(), ApiError> {
        let Some(key) = &self.api_key else { return Ok(()) };
        if permission == Some(Permission::Open) {
            return Ok(());
        }
        let sent = credentials(parts).ok_or_else(|| {
            unauthenticated("no API key was sent\n  hint: send it as `authorization: Bearer KEY`")
        })?;
        // Each comparison takes the same time wherever the first difference is, and all are made; only lengths can be
        // learned.
        let is = |key: &ApiKey| bool::from(key.as_bytes().ct_eq(&sent));
        let named = self.keys.iter().filter(|named| is(&named.key)).collect::<Vec<_>>();
        match (is(key), named.first()) {
            (false, None) => Err(unauthenticated("this API key is wrong")),
            (is_main, named) => permit(permission, is_main, named.is_some_and(|named| named.write_models)),
        }
    }
}

/// What a known key is good for: the main one for everything but writing models, a named one for inference, and for
/// writing models where its flag says so.
fn permit(permission: Option<Permission>, is_main: bool, may_write: bool) -> Result<(), ApiError> {
    match permission {
        Some(Permission::WriteModels) if !may_write => Err(denied(
            "this API key may not write models\n  hint: use one of `proxy.keys` that has `write_models = true`",
        )),
        Some(Permission::Admin | Permission::Registry) if !is_main => {
            Err(denied("this API key is for inference\n  hint: use the server's own, `proxy.api_key`"))
        }
        _ => Ok(()),
    }
}

/// A body has to be of a type that a page cannot send without asking.
fn check_content_type(bodies: Bodies, parts: &Parts, has_body: bool) -> Result<(), ApiError> {
    let sent = parts.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    // A page may use other methods only after asking.
    let is_simple = matches!(parts.method, Method::GET | Method::HEAD | Method::POST);
    let is_free = bodies == Bodies::Any || (bodies == Bodies::Protocol && !is_simple);
    if is_free || (sent.is_none() && !has_body) {
        return Ok(());
    }
    let essence = sent.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = match bodies {
        Bodies::Json => essence == "application/json",
        Bodies::Protocol | Bodies::Any => !essence.is_empty() && !PAGE_TYPES.contains(&essence.as_str()),
    };
    if fits {
        return Ok(());
    }
    let message = match sent {
        Some(sent) => format!("a body of type `{sent}` is not accepted here, only `application/json`"),
        None => "a body without a content type is not accepted, only `application/json`".to_owned(),
    };
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// The key that was sent: as a bearer's token, or as a password under any user name, which is how registry clients send
/// theirs.
fn credentials(parts: &Parts) -> Option<Vec<u8>> {
    let (scheme, sent) = parts.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(sent.trim().as_bytes().to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(sent.trim()).ok())??;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn denied(message: &str) -> ApiError {
    ApiError::new(ErrorCode::PermissionDenied, message)
}

fn unauthenticated(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Parts;

    use super::Guard;
    use crate::ProxyConfig;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let guard = Guard::new(&ProxyConfig { hosts: vec!["box.lan".to_owned()], ..ProxyConfig::default() });
        for own in
            ["127.0.0.1", "127.9.9.9:8080", "[::1]", "[::1]:80", "LocalHost:1", "box.lan:8080", "BOX.lan"]
        {
            assert!(guard.check_host(&parts("/", &[("host", own)])).is_ok(), "{own}");
        }
        let foreign = [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "x@localhost",
            "0.0.0.0",
            "192.168.0.1",
            "[::ffff:1.2.3.4]",
            "127.1",
        ];
        for foreign in foreign {
            assert!(guard.check_host(&parts("/", &[("host", foreign)])).is_err(), "{foreign}");
        }
        assert!(guard.check_host(&parts("/", &[])).is_err(), "no host at all");
        assert!(guard.check_host(&parts("http://localhost/", &[])).is_ok(), "HTTP/2 names it in the target");
        assert!(guard.check_host(&parts("http://evil.example/", &[("host", "localhost")])).is_err());
        assert!(guard.check_host(&parts("/", &[("host", "localhost"), ("host", "evil.example")])).is_err());
    }
}
