//! The protocols over a registry: a store in a temporary folder, clients on loopback.

#![allow(clippy::disallowed_methods, reason = "tests touch files as anybody may")]

mod archives;
mod collected;
mod deduplicated;
mod downloaded_uses;
mod hub;
mod left;
mod lineage;
mod mirrored;
#[path = "../../../registry/tests/it/models.rs"]
#[allow(dead_code, reason = "the registry's own tests need more of it")]
mod models;
mod oci;
#[path = "../../../registry/tests/it/origin.rs"]
#[allow(dead_code, reason = "the registry's own tests need more of it")]
mod origin;
#[path = "../../../model/tests/it/tiny.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod tiny;
#[path = "../../../registry/tests/it/variants.rs"]
mod variants;

/// Serves some routes; the address.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
