//! The calls of the hub's protocol, told by method and path. What is not in this list is no route.

use axum::http::Method;
use helios_types::Digest;

use crate::names;
use crate::url_path::segments;
use crate::{Bodies, Route};

/// A call, with the variable parts of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Whoami,
    ValidateCard,
    List,
    CreateRepository,
    DeleteRepository,
    Repository { repository: String, request: Request },
}

/// A call about one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Info {
        revision: String,
    },
    Tree {
        revision: String,
        path: String,
    },
    PathsInfo {
        revision: String,
    },
    Refs,
    Resolve {
        revision: String,
        path: String,
    },
    Preupload {
        revision: String,
    },
    Commit {
        revision: String,
    },
    /// A new branch from the revision in the body.
    Branch {
        name: String,
    },
    /// A new tag, named in the body, on a revision.
    Tag {
        revision: String,
    },
    XetToken,
    LfsBatch,
    LfsUpload {
        digest: Digest,
    },
}

/// The revision meant where none is given.
pub(super) const MAIN: &str = "main";

impl Call {
    /// What the path leads to, if the hub's protocol has it.
    pub(super) fn parse(method: &Method, path: &str) -> Option<Self> {
        let segments = segments(path)?;
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match (method.as_str(), parts.as_slice()) {
            (_, ["api", "whoami-v2"]) if reads => Some(Self::Whoami),
            ("POST", ["api", "validate-yaml"]) => Some(Self::ValidateCard),
            ("POST", ["api", "repos", "create"]) => Some(Self::CreateRepository),
            ("DELETE", ["api", "repos", "delete"]) => Some(Self::DeleteRepository),
            (_, ["api", "models"]) if reads => Some(Self::List),
            (_, ["api", "models", parts @ ..]) => about_repository(parts, |rest| verb(method, rest)),
            (_, ["api", ..]) => None,
            ("POST", parts) => lfs_batch(parts),
            (_, parts) => about_repository(parts, |rest| file(method, rest)),
        }
    }

    /// What the call asks of its caller.
    pub(super) fn route(&self) -> Route {
        let writes = match self {
            Self::Whoami | Self::ValidateCard | Self::List => false,
            Self::CreateRepository | Self::DeleteRepository => true,
            Self::Repository { request, .. } => request.writes(),
        };
        let form = matches!(self, Self::Repository { request: Request::PathsInfo { .. }, .. });
        let bodies = if form { Bodies::Any } else { Bodies::Protocol };
        Route { writes, bodies }
    }
}

impl Request {
    fn writes(&self) -> bool {
        match self {
            Self::Info { .. }
            | Self::Tree { .. }
            | Self::PathsInfo { .. }
            | Self::Refs
            | Self::Resolve { .. } => false,
            Self::Preupload { .. }
            | Self::Commit { .. }
            | Self::Branch { .. }
            | Self::Tag { .. }
            | Self::XetToken
            | Self::LfsBatch
            | Self::LfsUpload { .. } => true,
        }
    }
}

/// A repository, then what is asked of it. One part first: what a call has behind it is no second part of a name
/// ([`names`]).
fn about_repository(parts: &[&str], asked: impl Fn(&[&str]) -> Option<Request>) -> Option<Call> {
    [1, 2].into_iter().find_map(|length| {
        let (repository, rest) = parts.split_at_checked(length)?;
        Some(Call::Repository { repository: repository_of(repository)?, request: asked(rest)? })
    })
}

/// What is asked below `/api/models/REPOSITORY`.
fn verb(method: &Method, rest: &[&str]) -> Option<Request> {
    let text = |text: &str| text.to_owned();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (method.as_str(), rest) {
        (_, []) if reads => Some(Request::Info { revision: text(MAIN) }),
        (_, ["revision", revision]) if reads => Some(Request::Info { revision: text(revision) }),
        (_, ["tree", revision, path @ ..]) if reads => {
            Some(Request::Tree { revision: text(revision), path: path.join("/") })
        }
        (_, ["refs"]) if reads => Some(Request::Refs),
        (_, ["xet-write-token", _]) if reads => Some(Request::XetToken),
        ("POST", ["paths-info", revision]) => Some(Request::PathsInfo { revision: text(revision) }),
        ("POST", ["preupload", revision]) => Some(Request::Preupload { revision: text(revision) }),
        ("POST", ["commit", revision]) => Some(Request::Commit { revision: text(revision) }),
        ("POST", ["branch", name]) => Some(Request::Branch { name: text(name) }),
        ("POST", ["tag", revision]) => Some(Request::Tag { revision: text(revision) }),
        ("PUT", ["lfs", hex]) => Some(Request::LfsUpload { digest: format!("sha256:{hex}").parse().ok()? }),
        _ => None,
    }
}

/// What is asked below `/REPOSITORY`.
fn file(method: &Method, rest: &[&str]) -> Option<Request> {
    match rest {
        ["resolve", revision, path @ ..] if !path.is_empty() => {
            let reads = matches!(*method, Method::GET | Method::HEAD);
            reads.then(|| Request::Resolve { revision: (*revision).to_owned(), path: path.join("/") })
        }
        _ => None,
    }
}

/// `/REPOSITORY.git/info/lfs/objects/batch`.
fn lfs_batch(parts: &[&str]) -> Option<Call> {
    let (last, before) = parts.strip_suffix(&["info", "lfs", "objects", "batch"])?.split_last()?;
    let repository = [before, &[last.strip_suffix(".git")?]].concat();
    Some(Call::Repository { repository: repository_of(&repository)?, request: Request::LfsBatch })
}

/// A repository's name, if it is one; never one that begins like another route.
fn repository_of(parts: &[&str]) -> Option<String> {
    let repository = parts.join("/");
    names::is_repository(&repository).then_some(repository)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::{Call, Request};
    use crate::names::is_repository;

    fn call(method: &str, path: &str) -> Option<Call> {
        Call::parse(&method.parse::<Method>().expect(method), path)
    }

    fn about(repository: &str, request: Request) -> Option<Call> {
        Some(Call::Repository { repository: repository.to_owned(), request })
    }

    #[test]
    fn the_paths_of_the_hub_are_told_apart() {
        let main = || "main".to_owned();
        assert_eq!(
            call("GET", "/api/models/org/name"),
            about("org/name", Request::Info { revision: main() })
        );
        assert_eq!(call("GET", "/api/models/name"), about("name", Request::Info { revision: main() }));
        assert_eq!(
            call("GET", "/api/models/org/name/tree/refs%2Fpr%2F1/sub/folder"),
            about(
                "org/name",
                Request::Tree { revision: "refs/pr/1".to_owned(), path: "sub/folder".to_owned() }
            )
        );
        assert_eq!(
            call("HEAD", "/org/name/resolve/main/sub/a%20file"),
            about("org/name", Request::Resolve { revision: main(), path: "sub/a file".to_owned() })
        );
        assert_eq!(
            call("POST", "/org/name.git/info/lfs/objects/batch"),
            about("org/name", Request::LfsBatch)
        );
        assert_eq!(call("POST", "/name.git/info/lfs/objects/batch"), about("name", Request::LfsBatch));
        for path in
            ["/", "/api", "/api/datasets/org/name", "/org/name", "/org/name/blob/main/x", "/a/resolve/x"]
        {
            assert_eq!(call("GET", path), None, "{path}");
        }
    }

    /// However a model is called: what may be a name leads to that model and to nothing else.
    #[test]
    fn words_of_the_protocol_in_names_confuse_nobody() {
        const WORDS: [&str; 12] = [
            "refs",
            "resolve",
            "revision",
            "tree",
            "paths-info",
            "preupload",
            "commit",
            "branch",
            "tag",
            "lfs",
            "main",
            "xet-write-token",
        ];
        let names = WORDS
            .iter()
            .flat_map(|word| [(*word).to_owned(), format!("org/{word}"), format!("helios/{word}")]);
        for name in names.filter(|name| is_repository(name)) {
            for (word, path) in WORDS.iter().flat_map(|word| WORDS.map(|path| (word, path))) {
                let (revision, path) = ((*word).to_owned(), path.to_owned());
                let api = format!("/api/models/{name}");
                for (method, called, request) in [
                    ("GET", api.clone(), Request::Info { revision: "main".to_owned() }),
                    ("GET", format!("{api}/refs"), Request::Refs),
                    ("GET", format!("{api}/revision/{word}"), Request::Info { revision: revision.clone() }),
                    (
                        "GET",
                        format!("{api}/tree/{word}/{path}"),
                        Request::Tree { revision: revision.clone(), path: path.clone() },
                    ),
                    ("POST", format!("{api}/commit/{word}"), Request::Commit { revision: revision.clone() }),
                    (
                        "POST",
                        format!("{api}/paths-info/{word}"),
                        Request::PathsInfo { revision: revision.clone() },
                    ),
                    ("HEAD", format!("/{name}/resolve/{word}/{path}"), Request::Resolve { revision, path }),
                ] {
                    assert_eq!(call(method, &called), about(&name, request), "{method} {called}");
                }
            }
        }
        for name in ["org/refs", "org/resolve", "org/revision", "org/tree", "org/xet-write-token"] {
            assert!(!is_repository(name), "{name}");
        }
    }

    #[test]
    fn only_what_changes_the_store_writes_and_names_of_routes_lead_nowhere() {
        let writes = |method: &str, path: &str| call(method, path).map(|call| call.route().writes);
        assert_eq!(writes("GET", "/api/models"), Some(false));
        assert_eq!(writes("POST", "/api/models/a/b/paths-info/main"), Some(false));
        assert_eq!(writes("POST", "/api/models/a/b/commit/main"), Some(true));
        assert_eq!(writes("POST", "/api/repos/create"), Some(true));
        assert_eq!(writes("DELETE", "/api/repos/delete"), Some(true));
        for changed in ["preupload/main", "branch/b", "tag/main"] {
            assert_eq!(writes("POST", &format!("/api/models/a/b/{changed}")), Some(true), "{changed}");
        }
        assert_eq!(writes("POST", "/a/b.git/info/lfs/objects/batch"), Some(true));
        assert_eq!(writes("PUT", &format!("/api/models/a/b/lfs/{}", "0".repeat(64))), Some(true));
        for (method, path) in [
            ("PUT", "/api/models/a/b/lfs/../../x"),
            ("PUT", "/api/models/a/b/lfs/0123"),
            ("POST", "/org/name/resolve/main/x"),
            ("GET", "/v2/name/resolve/main/x"),
            ("GET", "/registry/v1/resolve/main/x"),
            ("GET", "/..%2f/name/resolve/main/x"),
            ("GET", "/a/b/c/resolve/main/x"),
            ("GET", "/a%00/b/resolve/main/x"),
        ] {
            assert_eq!(writes(method, path), None, "{method} {path}");
        }
    }
}
