//! The one TLS provider of the process.

/// Makes aws-lc-rs the provider for every TLS connection. First thing in `main` and in tests that open any.
pub fn install_tls_provider() {
    // An error only says that a provider is installed already, which is what is wanted.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
