//! The HTTP client of object stores, which follows no redirect: a store's own credential headers, such as the token of a
//! session, would go along to wherever one leads.

use std::time::Duration;

use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::{ClientOptions, Error};
use reqwest::{Client, ClientBuilder, NoProxy, Proxy};

/// Makes the clients. Of the options of `object_store` it takes those about proxies, plain HTTP and certificates; time limits
/// are the fetcher's own.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) connect_timeout: Duration,
    /// Between two pieces of an answer.
    pub(super) read_timeout: Duration,
}

impl HttpConnector for Direct {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let is_set = |key| options.get_config_value(&key).is_some_and(|value| value == "true");
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("helios/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .http1_only()
            .https_only(!is_set(ClientConfigKey::AllowHttp))
            .tls_danger_accept_invalid_certs(is_set(ClientConfigKey::AllowInvalidCertificates));
        let client = with_proxy(builder, options).and_then(ClientBuilder::build);
        let failed = |error| Error::Generic { store: "HTTP client", source: Box::new(error) };
        Ok(HttpClient::new(client.map_err(failed)?))
    }
}

fn with_proxy(builder: ClientBuilder, options: &ClientOptions) -> reqwest::Result<ClientBuilder> {
    let Some(url) = options.get_config_value(&ClientConfigKey::ProxyUrl) else { return Ok(builder) };
    let excludes = options.get_config_value(&ClientConfigKey::ProxyExcludes);
    let excludes = excludes.and_then(|hosts| NoProxy::from_string(&hosts));
    Ok(builder.proxy(Proxy::all(url)?.no_proxy(excludes)))
}
