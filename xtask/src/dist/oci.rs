//! An OCI image layout (image-spec 1.1) with one layer, written by hand: four small JSON documents and blobs named
//! by digest.

use super::gzip;
use crate::failure::{Context, Result};
use crate::process::sha256;
use std::fs;
use std::path::{Path, PathBuf};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// A layout being written.
pub(crate) struct ImageLayout {
    root: PathBuf,
}

/// A blob as other documents refer to it.
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
}

impl Descriptor {
    /// The members of the JSON object, without braces.
    fn members(&self) -> String {
        format!(r#""mediaType":"{}","digest":"sha256:{}","size":{}"#, self.media_type, self.digest, self.size)
    }
}

impl ImageLayout {
    /// Writes a layout with one layer, which is compressed in place and moved into it.
    pub(crate) fn create(root: &Path, layer_tar: &Path, version: &str) -> Result<()> {
        let layout = Self { root: root.to_path_buf() };
        let blobs = layout.blobs();
        fs::create_dir_all(&blobs).context(format!("creating {}", blobs.display()))?;
        let uncompressed = sha256(layer_tar)?;
        gzip(layer_tar)?;
        let layer = layout.add_file(LAYER_TYPE, &layer_tar.with_extension("tar.gz"))?;
        let config = layout.add_document(CONFIG_TYPE, &config_document(&uncompressed, version))?;
        let manifest = layout.add_document(MANIFEST_TYPE, &manifest_document(&config, &layer))?;
        layout.write("index.json", &index_document(&manifest, version))?;
        layout.write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn write(&self, name: &str, document: &str) -> Result<()> {
        let path = self.root.join(name);
        fs::write(&path, document).context(format!("writing {}", path.display()))
    }

    fn add_document(&self, media_type: &'static str, document: &str) -> Result<Descriptor> {
        let path = self.root.join("document.tmp");
        fs::write(&path, document).context(format!("writing {}", path.display()))?;
        self.add_file(media_type, &path)
    }

    /// Moves a file among the blobs.
    fn add_file(&self, media_type: &'static str, path: &Path) -> Result<Descriptor> {
        let digest = sha256(path)?;
        let size = fs::metadata(path).context(format!("reading {}", path.display()))?.len();
        let blob = self.blobs().join(&digest);
        fs::copy(path, &blob).context(format!("writing {}", blob.display()))?;
        fs::remove_file(path).context(format!("removing {}", path.display()))?;
        Ok(Descriptor { media_type, digest, size })
    }
}

fn config_document(uncompressed: &str, version: &str) -> String {
    format!(
        concat!(
            r#"{{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","#,
            r#""config":{{"User":"65532:65532","Entrypoint":["/usr/bin/helios"],"#,
            r#""Env":["PATH=/usr/bin","HOME=/var/lib/helios","SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],"#,
            r#""WorkingDir":"/var/lib/helios","Volumes":{{"/var/lib/helios":{{}}}},"#,
            r#""Labels":{{"org.opencontainers.image.title":"helios","#,
            r#""org.opencontainers.image.version":"{version}","#,
            r#""org.opencontainers.image.licenses":"Apache-2.0"}}}},"#,
            r#""rootfs":{{"type":"layers","diff_ids":["sha256:{uncompressed}"]}},"#,
            r#""history":[{{"created":"1970-01-01T00:00:00Z","created_by":"cargo xtask dist"}}]}}"#,
        ),
        version = version,
        uncompressed = uncompressed,
    )
}

fn manifest_document(config: &Descriptor, layer: &Descriptor) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{{}}},"layers":[{{{}}}]}}"#,
        config.members(),
        layer.members(),
    )
}

fn index_document(manifest: &Descriptor, version: &str) -> String {
    format!(
        concat!(
            r#"{{"schemaVersion":2,"mediaType":"{index_type}","manifests":[{{{manifest},"#,
            r#""platform":{{"architecture":"amd64","os":"linux"}},"#,
            r#""annotations":{{"org.opencontainers.image.ref.name":"{version}"}}}}]}}"#,
        ),
        index_type = INDEX_TYPE,
        manifest = manifest.members(),
        version = version,
    )
}
