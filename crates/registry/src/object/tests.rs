//! What buckets ask, of a stand-in for the HTTP client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use helios_runtime::{Clock, Instant};
use helios_storage::Blob;
use helios_types::Classify;
use http::{Method, Response, StatusCode};
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Bucket;
use crate::{FetchConfig, ObjectOptions, RegistryError};

/// A request that came.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    url: String,
    at: Instant,
}

/// What a store answers to the last request, behind those before.
type Answers = fn(&[Asked]) -> Response<Bytes>;

/// A store of any kind.
#[derive(Clone, Debug)]
struct Store {
    answers: Answers,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Store {
    fn new(answers: Answers) -> Self {
        Self { answers, asked: Arc::default() }
    }

    fn bucket(&self, address: &str, options: &[(&str, &str)]) -> Bucket {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let fetch = FetchConfig {
            object_options: ObjectOptions::new(options),
            retry_after_max: Duration::from_secs(60),
            ..FetchConfig::default()
        };
        Bucket::open_over(&address.parse().expect("an address"), &fetch, self.clone()).expect("a bucket")
    }

    fn s3(&self) -> Bucket {
        self.bucket("s3://models/some", &[("aws_skip_signature", "true"), ("aws_region", "us-east-1")])
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("a lock").clone()
    }
}

impl HttpConnector for Store {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Store {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        let (method, url) = (request.method().clone(), request.uri().to_string());
        let mut asked = self.asked.lock().expect("a lock");
        asked.push(Asked { method, url, at: Clock.now() });
        let answer = (self.answers)(&asked).map(Into::into);
        std::future::ready(Ok(answer)).boxed()
    }
}

/// An address without the escapes that one store's client makes and another's does not.
fn plain(url: &str) -> String {
    url.replace("%2F", "/").replace("%2E", ".")
}

fn status(status: StatusCode) -> Response<Bytes> {
    Response::builder().status(status).header("etag", "\"1\"").body(Bytes::new()).expect("an answer")
}

fn object(_: &[Asked]) -> Response<Bytes> {
    let answer = Response::builder().header("etag", "\"1\"").header("content-length", "5");
    let answer = answer.header("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT");
    answer.body(Bytes::from_static(b"bytes")).expect("an answer")
}

fn refused(retry_after: &str) -> Response<Bytes> {
    let answer = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
    answer.header("retry-after", retry_after).body(Bytes::new()).expect("an answer")
}

/// An address, options, and where a file of it is asked for.
type BucketCase<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn a_bucket_of_every_kind_asks_its_own_store() {
    let cases: [BucketCase<'_>; 3] = [
        (
            "s3://models/some",
            &[("aws_skip_signature", "true"), ("aws_region", "eu-west-1")],
            "https://s3.eu-west-1.amazonaws.com/models/some/tiny.gguf",
        ),
        (
            "gs://models/some",
            &[("google_skip_signature", "true"), ("aws_region", "of another store")],
            "https://storage.googleapis.com/models/some/tiny.gguf",
        ),
        (
            "az://models/some",
            &[("azure_skip_signature", "true"), ("azure_storage_account_name", "account")],
            "https://account.blob.core.windows.net/models/some/tiny.gguf",
        ),
    ];
    for (address, options, url) in cases {
        let store = Store::new(object);
        let bucket = store.bucket(address, options);
        let bytes = bucket.file("tiny.gguf").read(5).await.expect(address).expect("an object");
        assert_eq!(bytes, "bytes", "{address}");
        let asked: Vec<String> = store.asked().iter().map(|asked| plain(&asked.url)).collect();
        assert_eq!(asked, [url]);
        let error = bucket.file("tiny.gguf").read(4).await.expect_err("more than wanted");
        assert!(error.to_string().contains(&format!("{address}/tiny.gguf")), "{error}");
    }
}

/// Refuses the first request, and for good whoever comes again before a second went by.
fn limits(asked: &[Asked]) -> Response<Bytes> {
    match asked {
        [_] => refused("1"),
        [first, .., last] if last.at - first.at < Duration::from_secs(1) => status(StatusCode::FORBIDDEN),
        _ => object(asked),
    }
}

#[tokio::test]
async fn a_store_that_limits_is_asked_again_when_it_says() {
    let store = Store::new(limits);
    assert_eq!(store.s3().file("a").size().await.expect("patience helps"), Some(5));
    assert_eq!(store.asked().len(), 2);
    let store = Store::new(|_| refused("3600"));
    let error = store.s3().file("a").size().await.expect_err("too long");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)), "{error}");
    assert!(matches!(error, RegistryError::OriginStatus { status: 429, .. }), "{error}");
    assert_eq!(store.asked().len(), 1);
}

/// Takes parts of an upload, but not the second.
fn takes_no_second_part(asked: &[Asked]) -> Response<Bytes> {
    let last = asked.last().expect("a request");
    match last.method {
        Method::POST if last.url.contains("uploads") => {
            let begun = "<InitiateMultipartUploadResult><Bucket>models</Bucket><Key>some/a</Key>\
                         <UploadId>7</UploadId></InitiateMultipartUploadResult>";
            Response::new(Bytes::from_static(begun.as_bytes()))
        }
        Method::DELETE => status(StatusCode::NO_CONTENT),
        _ if last.url.contains("partNumber=2") => status(StatusCode::FORBIDDEN),
        _ => status(StatusCode::OK),
    }
}

#[tokio::test]
async fn an_upload_that_fails_leaves_no_parts_behind() {
    let store = Store::new(takes_no_second_part);
    let parts_of_8_mib = 6;
    let file = Blob::from_vec(vec![0; parts_of_8_mib * (8 << 20)]);
    let error = store.s3().file("a").write(file).await.expect_err("the second part is refused");
    assert!(error.to_string().contains("answered 403"), "{error}");
    let asked = store.asked();
    let last = asked.last().expect("requests");
    assert!(last.method == Method::DELETE && last.url.contains("uploadId=7"), "{last:?}");
    let parts = asked.iter().filter(|asked| asked.method == Method::PUT).count();
    assert!(parts < parts_of_8_mib, "it fails before everything went up, not behind it");
}

/// Answers every connection with a redirect to `location`; counts them.
#[expect(clippy::disallowed_methods, reason = "a stand-in that ends with its test")]
async fn redirecting(location: String) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let came = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
            let _read = stream.read(&mut [0; 4096]).await;
            let _written = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, came)
}

#[tokio::test]
async fn credentials_of_a_store_go_nowhere_else() {
    helios_runtime::install_tls_provider();
    let (elsewhere, came_elsewhere) = redirecting("http://127.0.0.1:1/".to_owned()).await;
    let (endpoint, came) = redirecting(format!("{elsewhere}/stolen")).await;
    let options = [
        ("aws_endpoint", endpoint.as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "secret"),
        ("aws_session_token", "token"),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let fetch = FetchConfig { object_options: ObjectOptions::new(options), ..FetchConfig::default() };
    let bucket = Bucket::open(&"s3://models/some".parse().expect("an address"), &fetch).expect("a bucket");
    let error = bucket.file("tiny.gguf").read(5).await.expect_err("not where it was asked");
    assert!(error.to_string().contains("s3://models/some/tiny.gguf"), "{error}");
    assert!(came.load(Ordering::SeqCst) > 0);
    assert_eq!(came_elsewhere.load(Ordering::SeqCst), 0, "a redirect was followed");
}
