//! Who gets in: web pages, names of hosts, content types, keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helios_proxy::{Access, ApiKey, Bodies, Mount, NamedKey, Permission, ProxyConfig, ROUTES, refusal};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::support::{Server, envelope, fake_worker, start};

async fn start_guarded(config: ProxyConfig) -> Server {
    let (worker, _endings) = fake_worker(Ok(Vec::new()));
    start(config, vec![worker.member("w1")], Vec::new()).await
}

fn keyed() -> ProxyConfig {
    ProxyConfig { api_key: Some(ApiKey::new("sk-right")), ..ProxyConfig::default() }
}

/// A request to every route of the table by every method it takes, and to a path that is no route.
fn requests(server: &Server) -> Vec<(RequestBuilder, &'static str, Option<Permission>)> {
    let request = |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        server.client.request(method, format!("{}{}", server.url, path.replace('*', "bytes:tiny")))
    };
    let mut requests = vec![(request("GET", "/nowhere"), "/nowhere", None)];
    for route in &ROUTES {
        for method in route.methods {
            requests.push((request(method, route.path), route.path, Some(route.permission)));
        }
    }
    requests
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.expect("a response").status().as_u16()
}

#[tokio::test]
async fn nothing_but_health_and_readiness_answers_without_the_key() {
    let server = start_guarded(keyed()).await;
    for wrong in
        [None, Some("Bearer sk-wrong"), Some("Bearer sk-righ"), Some("Basic sk-right"), Some("sk-right")]
    {
        for (request, path, permission) in requests(&server) {
            let request =
                wrong.into_iter().fold(request, |request, key| request.header("authorization", key));
            let is_refused = status(request).await == 401;
            assert_eq!(is_refused, permission != Some(Permission::Open), "{path} with {wrong:?}");
        }
    }
    for (request, path, _) in requests(&server) {
        assert_ne!(status(request.bearer_auth("sk-right")).await, 401, "{path}");
    }
    let refused = server.get("/v1/models").await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(envelope(&body)["code"], "invalid_api_key");
}

#[tokio::test]
async fn foreign_pages_are_refused_everywhere_and_allowed_ones_get_cors() {
    let page = "https://chat.example.org";
    let config = ProxyConfig { cors_origins: vec![page.to_owned()], ..ProxyConfig::default() };
    let server = start_guarded(config).await;
    for foreign in
        ["https://evil.example", "null", "http://chat.example.org", "https://chat.example.org.evil"]
    {
        for (request, path, _) in requests(&server) {
            assert_eq!(status(request.header("origin", foreign)).await, 403, "{path} from {foreign}");
        }
    }
    let response = server.client.get(format!("{}/v1/models", server.url)).header("origin", page).send().await;
    let response = response.expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["access-control-allow-origin"], page);
    assert_eq!(response.headers()["vary"], "origin");
    let none = server.get("/v1/models").await;
    assert!(!none.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn pages_may_ask_first_without_the_key() {
    let page = "https://chat.example.org";
    let config = ProxyConfig { cors_origins: vec![page.to_owned()], ..keyed() };
    let server = start_guarded(config).await;
    let ask = |origin: &'static str| {
        let request = server.client.request(Method::OPTIONS, format!("{}/v1/chat/completions", server.url));
        let request = request.header("access-control-request-headers", "authorization,content-type");
        request.header("origin", origin).header("access-control-request-method", "POST").send()
    };
    let allowed = ask("https://chat.example.org").await.expect("a response");
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization,content-type");
    assert_eq!(allowed.headers()["access-control-allow-origin"], page);
    assert_eq!(ask("https://evil.example").await.expect("a response").status(), 403);
}

#[tokio::test]
async fn names_that_others_gave_this_machine_are_refused_without_a_key() {
    let config = ProxyConfig { hosts: vec!["box.lan".to_owned()], ..ProxyConfig::default() };
    let server = start_guarded(config).await;
    for (request, path, _) in requests(&server) {
        assert_eq!(status(request.header("host", "rebound.example")).await, 403, "{path}");
    }
    for own in ["localhost:1", "[::1]:8080", "box.lan"] {
        let request = server.client.get(format!("{}/health", server.url)).header("host", own);
        assert_eq!(status(request).await, 200, "{own}");
    }
    let server = start_guarded(keyed()).await;
    let request = server.client.get(format!("{}/v1/models", server.url)).bearer_auth("sk-right");
    assert_eq!(status(request.header("host", "any.name")).await, 200, "the key is proof enough");
}

#[tokio::test]
async fn bodies_that_a_page_can_send_blindly_are_refused() {
    let server = start_guarded(ProxyConfig::default()).await;
    let blind = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""];
    for (request, path, permission) in requests(&server) {
        if permission.is_none() {
            continue;
        }
        for content_type in blind {
            let request = request.try_clone().expect("a plain request").body("{}");
            let request = match content_type {
                "" => request,
                named => request.header("content-type", named),
            };
            assert_eq!(status(request).await, 415, "{path} with `{content_type}`");
        }
    }
    let json = server.client.post(format!("{}/v1/completions", server.url)).body("{}");
    let json = json.header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(status(json).await, 400, "read as JSON, and lacking a model");
}

/// `GET /store/x` reads, `PUT /store/x` writes; nothing else is there.
fn store() -> Mount {
    let access = |method: &Method, path: &str| {
        let permission = match *method {
            _ if path != "/store/x" => return None,
            Method::GET => Permission::Inference,
            Method::PUT => Permission::WriteModels,
            _ => return None,
        };
        Some(Access { permission, bodies: Bodies::Protocol })
    };
    let route = axum::routing::any(async || "reached");
    Mount { name: "store", access, refusal, router: axum::Router::new().fallback(route) }
}

#[tokio::test]
async fn only_a_key_with_the_flag_writes_and_a_named_key_is_no_administrator() {
    let named = |name: &str, write_models| NamedKey {
        name: name.to_owned(),
        key: ApiKey::new(format!("sk-{name}")),
        write_models,
    };
    let config = ProxyConfig { keys: vec![named("reader", false), named("writer", true)], ..keyed() };
    let server = start(config, Vec::new(), vec![store()]).await;
    let basic = format!("Basic {}", STANDARD.encode("anyone:sk-writer"));
    let cases = [
        ("Bearer sk-wrong", [401, 401, 401, 401]),
        ("Bearer sk-right", [200, 403, 404, 200]),
        ("Bearer sk-reader", [200, 403, 404, 403]),
        ("Bearer sk-writer", [200, 200, 404, 403]),
        (basic.as_str(), [200, 200, 404, 403]),
    ];
    for (key, expected) in cases {
        let calls =
            [("GET", "/store/x"), ("PUT", "/store/x"), ("GET", "/store/y"), ("GET", "/admin/v1/workers")];
        for ((method, path), expected) in calls.into_iter().zip(expected) {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let request = server.client.request(method.clone(), format!("{}{path}", server.url));
            assert_eq!(
                status(request.header("authorization", key)).await,
                expected,
                "{method} {path} with {key}"
            );
        }
    }
}

#[tokio::test]
async fn on_loopback_without_keys_writing_is_granted_but_not_to_pages() {
    let server = start(ProxyConfig::default(), Vec::new(), vec![store()]).await;
    let put = || server.client.put(format!("{}/store/x", server.url)).body("bytes");
    assert_eq!(status(put()).await, 200);
    assert_eq!(status(put().header("origin", "https://evil.example")).await, 403);
    assert_eq!(status(put().header("host", "rebound.example")).await, 403);
}
