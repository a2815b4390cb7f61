//! The cluster token: a secret that all parts of one Helios share.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use helios_types::ErrorCode;

use crate::{RegistryError, Secret};

/// Lets only requests through that carry `Authorization: Bearer TOKEN`; without a token, all.
pub fn require_token(router: Router, token: Option<Secret>) -> Router {
    let Some(token) = token else { return router };
    let token = Arc::new(token);
    router.layer(from_fn(move |request: Request, next: Next| {
        let token = Arc::clone(&token);
        async move { check(&token, request, next).await }
    }))
}

async fn check(token: &Secret, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let guess = given.and_then(|value| value.strip_prefix(b"Bearer "));
    if guess.is_some_and(|guess| token.matches(guess)) {
        return next.run(request).await;
    }
    let problem = match guess {
        None => "no cluster token".to_owned(),
        Some(_) => "wrong cluster token".to_owned(),
    };
    RegistryError::InvalidRequest { problem, code: ErrorCode::Unauthenticated }.into_response()
}
