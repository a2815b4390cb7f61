//! The calls of OCI distribution, told by method and path. What is not in this list is no route.

use axum::http::Method;

use crate::names;
use crate::url_path::segments;
use crate::{Bodies, Route};

/// A call, with the variable parts of its path. Digests and tags are checked by those who answer, so that a wrong one
/// is told from a wrong path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Whether the protocol is spoken here.
    Version,
    Catalogue,
    Named {
        name: String,
        request: Request,
    },
}

/// A call about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Tags,
    Referrers { digest: String },
    ReadManifest { reference: String },
    PutManifest { reference: String },
    DeleteManifest { reference: String },
    ReadBlob { digest: String },
    BeginUpload,
    UploadState { id: String },
    UploadPiece { id: String },
    EndUpload { id: String },
    DropUpload { id: String },
}

impl Call {
    /// What the path leads to, if the protocol has it.
    pub(super) fn parse(method: &Method, path: &str) -> Option<Self> {
        let segments = segments(path)?;
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let (name, request) = match (method.as_str(), parts.as_slice()) {
            (_, ["v2"] | ["v2", ""]) if reads => return Some(Self::Version),
            (_, ["v2", "_catalog"]) if reads => return Some(Self::Catalogue),
            (_, ["v2", name @ .., "tags", "list"]) if reads => (name, Request::Tags),
            (method, ["v2", name @ .., "blobs", "uploads"] | ["v2", name @ .., "blobs", "uploads", ""]) => {
                (name, (method == "POST").then_some(Request::BeginUpload)?)
            }
            (method, ["v2", name @ .., "blobs", "uploads", id]) => (name, upload(method, id)?),
            (method, ["v2", name @ .., kind, of]) => (name, about(method, kind, of)?),
            _ => return None,
        };
        let name = name.join("/");
        names::is_artifact(&name).then_some(Self::Named { name, request })
    }

    /// What the call asks of its caller.
    pub(super) fn route(&self) -> Route {
        let writes = match self {
            Self::Version | Self::Catalogue => false,
            Self::Named { request, .. } => !matches!(
                request,
                Request::Tags
                    | Request::Referrers { .. }
                    | Request::ReadManifest { .. }
                    | Request::ReadBlob { .. }
            ),
        };
        Route { writes, bodies: Bodies::Protocol }
    }
}

fn upload(method: &str, id: &str) -> Option<Request> {
    let id = id.to_owned();
    match method {
        "GET" | "HEAD" => Some(Request::UploadState { id }),
        "PATCH" => Some(Request::UploadPiece { id }),
        "PUT" => Some(Request::EndUpload { id }),
        "DELETE" => Some(Request::DropUpload { id }),
        _ => None,
    }
}

fn about(method: &str, kind: &str, of: &str) -> Option<Request> {
    let of = of.to_owned();
    match (method, kind) {
        ("GET" | "HEAD", "manifests") => Some(Request::ReadManifest { reference: of }),
        ("PUT", "manifests") => Some(Request::PutManifest { reference: of }),
        ("DELETE", "manifests") => Some(Request::DeleteManifest { reference: of }),
        ("GET" | "HEAD", "blobs") => Some(Request::ReadBlob { digest: of }),
        ("GET" | "HEAD", "referrers") => Some(Request::Referrers { digest: of }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::{Call, Request};

    fn call(method: &str, path: &str) -> Option<Call> {
        Call::parse(&method.parse::<Method>().expect(method), path)
    }

    #[test]
    fn the_paths_of_the_specification_are_told_apart() {
        let named = |name: &str, request| Some(Call::Named { name: name.to_owned(), request });
        let text = |text: &str| text.to_owned();
        assert_eq!(call("GET", "/v2/"), Some(Call::Version));
        assert_eq!(call("GET", "/v2/_catalog"), Some(Call::Catalogue));
        assert_eq!(call("GET", "/v2/a/b/c/tags/list"), named("a/b/c", Request::Tags));
        assert_eq!(
            call("HEAD", "/v2/a/manifests/v1"),
            named("a", Request::ReadManifest { reference: text("v1") })
        );
        assert_eq!(
            call("GET", "/v2/a/b/blobs/sha256:0"),
            named("a/b", Request::ReadBlob { digest: text("sha256:0") })
        );
        assert_eq!(call("POST", "/v2/a/blobs/uploads/"), named("a", Request::BeginUpload));
        assert_eq!(
            call("PATCH", "/v2/a/blobs/uploads/7"),
            named("a", Request::UploadPiece { id: text("7") })
        );
        for (method, path) in [
            ("GET", "/v2/a"),
            ("GET", "/v2/../x/tags/list"),
            ("GET", "/v2/api/x/tags/list"),
            ("GET", "/v2/v2/x/tags/list"),
            ("GET", "/v2/a%2F..%2Fb/tags/list"),
            ("GET", "/v2//tags/list"),
            ("PUT", "/v2/a/blobs/sha256:0"),
            ("GET", "/v1/a/tags/list"),
        ] {
            assert_eq!(call(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn whatever_changes_the_store_writes() {
        let writes = |method: &str, path: &str| call(method, path).expect(path).route().writes;
        for (method, path) in [("GET", "/v2/"), ("GET", "/v2/a/blobs/x"), ("HEAD", "/v2/a/manifests/x")] {
            assert!(!writes(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/v2/a/blobs/uploads/"),
            ("GET", "/v2/a/blobs/uploads/x"),
            ("PATCH", "/v2/a/blobs/uploads/x"),
            ("PUT", "/v2/a/blobs/uploads/x"),
            ("DELETE", "/v2/a/blobs/uploads/x"),
            ("PUT", "/v2/a/manifests/x"),
            ("DELETE", "/v2/a/manifests/x"),
        ] {
            assert!(writes(method, path), "{method} {path}");
        }
    }
}
