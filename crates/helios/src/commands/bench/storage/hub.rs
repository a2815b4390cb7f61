//! Downloads by the real `huggingface_hub`: from `helios registry`, and from a static file server that has the same files
//! and the same answers about them.
//!
//! The static server is nginx where it is installed (Debian's `nginx-light` will do), else the bench's own, which sends
//! by `sendfile` as nginx does. What it answers about the files are Helios' own answers, recorded: so the client takes
//! the same steps at both, and only who sends the bytes differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use helios_registry::{Registry, RegistryConfig};
use helios_types::ModelRef;
use serde::Deserialize;
use tokio::runtime::Handle;

use super::super::table::{Goal, Row};
use super::child::{self, Server};
use super::origin::{Content, Origin, Resource, get_small};
use super::repository::{NAME, Repository, listing_path, tags, tree_path};
use super::rows::{CPU, RATE};
use super::scratch::{Bench, remove};
use super::usage::Load;
use crate::environment;

/// What runs in the client's process.
const SCRIPT: &str = include_str!("../../../../../../python/bench/hub.py");
/// Where Debian and most others put it, beside what `PATH` says.
const NGINX: [&str; 3] = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];

/// The figures of all repeats.
#[derive(Debug, Default)]
pub(super) struct Samples {
    helios: Vec<Load>,
    plain: Vec<Load>,
    server: &'static str,
}

#[derive(Deserialize)]
struct Report {
    seconds: f64,
    cpu_seconds: f64,
    bytes: u64,
}

/// A static server of either kind.
enum Plain {
    Nginx(Server),
    Own(Origin),
}

impl Plain {
    fn address(&self) -> &str {
        match self {
            Self::Nginx(server) => &server.address,
            Self::Own(origin) => &origin.address,
        }
    }
}

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Samples> {
    let python = python()?;
    let repository = Repository::make(bench)?;
    bench.step("hub: a store with the model")?;
    let store = bench.fresh_folder("hub-store")?;
    import(&store, &repository.folder)?;
    let mut command = child::helios(bench, &store)?;
    let server = child::serve(bench, command.args(["registry", "--listen", "127.0.0.1:0"]))?;
    let (plain, kind) = start_plain(bench, recorded(&server.address, &repository)?)?;
    let mut samples = Samples { server: kind, ..Samples::default() };
    let load = |address: &str| download(bench, &python, address, repository.bytes());
    // Once each beforehand: modules and files are then in memory for both.
    bench.step("hub: first downloads")?;
    load(&server.address)?;
    load(plain.address())?;
    for repeat in bench.repeats() {
        bench.step(format!("repeat {repeat}: huggingface_hub from Helios"))?;
        samples.helios.push(load(&server.address)?);
        bench.step(format!("repeat {repeat}: huggingface_hub from {kind}"))?;
        samples.plain.push(load(plain.address())?);
    }
    drop((server, plain));
    remove(&store)?;
    Ok(samples)
}

/// What Helios answers about the files, for a server that has nothing but files.
fn recorded(helios: &str, repository: &Repository) -> anyhow::Result<BTreeMap<String, Resource>> {
    let listing = get_small(helios, &listing_path())?;
    let (commit, tags) = tags(&listing)?;
    let tree = get_small(helios, &format!("{}?recursive=true&expand=false", tree_path(&commit)))?;
    let tag = |name: &str| tags.get(name).cloned().unwrap_or_default();
    let documents = [(listing_path(), listing), (tree_path(&commit), tree)];
    Ok(repository.resources_of(documents, &commit, tag))
}

fn python() -> anyhow::Result<PathBuf> {
    let missing =
        "no Python environment with huggingface_hub\nhint: make it with `cargo xtask yardstick storage`";
    let python = environment::yardstick_dir().context(missing)?.join("hub-client/bin/python");
    if python.exists() { Ok(python) } else { bail!(missing) }
}

/// A store with the model, closed again.
fn import(store: &Path, folder: &Path) -> anyhow::Result<()> {
    let name: ModelRef = NAME.parse()?;
    Handle::current().block_on(async {
        let registry = Registry::open(store, RegistryConfig::default()).await?;
        registry.import(folder, Some(name), &mut |_| {}).await?;
        anyhow::Ok(())
    })
}

/// One download into an empty cache, which is then deleted.
fn download(bench: &Bench, python: &Path, address: &str, bytes: u64) -> anyhow::Result<Load> {
    let cache = bench.fresh_folder("hub-cache")?;
    let mut command = Command::new(python);
    command
        .arg("-c")
        .arg(SCRIPT)
        .arg(NAME)
        .env("HF_HOME", &cache)
        .env("HF_ENDPOINT", format!("http://{address}"));
    let finished = child::run(bench, &mut command).context("huggingface_hub failed")?;
    let line = finished.output.lines().next_back().unwrap_or_default();
    let report: Report = serde_json::from_str(line).context("the client printed no figures")?;
    anyhow::ensure!(report.bytes == bytes, "{} bytes came instead of {bytes}", report.bytes);
    remove(&cache)?;
    Ok(Load { bytes, seconds: report.seconds, cpu_seconds: report.cpu_seconds })
}

fn start_plain(
    bench: &Bench,
    resources: BTreeMap<String, Resource>,
) -> anyhow::Result<(Plain, &'static str)> {
    let Some(nginx) = NGINX.iter().map(Path::new).find(|path| path.is_file()) else {
        bench.say("nginx is not installed, so the bench's own static server is the peer\nhint: apt-get install -y nginx-light");
        return Ok((Plain::Own(Origin::start(resources)?), "static server, sendfile"));
    };
    // Free until nginx takes it.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let folder = bench.fresh_folder("nginx")?;
    let file = folder.join("nginx.conf");
    helios_storage::write_atomic(&file, nginx_config(&folder, &address, &resources)?.as_bytes())?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(&folder).arg("-e").arg("stderr").arg("-c").arg(&file);
    let errors = folder.join("errors");
    Ok((Plain::Nginx(child::serve_at(&bench.stop, &mut command, &address, &errors)?), "nginx"))
}

/// One process in the foreground, as the user who runs the bench.
fn nginx_config(
    folder: &Path,
    address: &str,
    resources: &BTreeMap<String, Resource>,
) -> anyhow::Result<String> {
    let mut config = format!(
        "daemon off; master_process off; pid \"{folder}/pid\"; events {{ worker_connections 256; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; etag off; keepalive_timeout 60;\n\
         client_body_temp_path \"{folder}\"; proxy_temp_path \"{folder}\"; fastcgi_temp_path \"{folder}\";\n\
         uwsgi_temp_path \"{folder}\"; scgi_temp_path \"{folder}\";\n\
         server {{ listen {address};\n",
        folder = folder.display()
    );
    for (index, (path, resource)) in resources.iter().enumerate() {
        let file = match &resource.content {
            Content::File(file, _) => file.clone(),
            Content::Bytes(bytes) => {
                let file = folder.join(format!("answer-{index}"));
                helios_storage::write_atomic(&file, bytes)?;
                file
            }
        };
        write!(
            config,
            "location = {path} {{ alias \"{}\"; default_type application/octet-stream;",
            file.display()
        )?;
        for (name, value) in resource.headers.iter().filter(|(name, _)| *name != "content-type") {
            write!(config, " add_header {name} '{value}';")?;
        }
        config.push_str(" }\n");
    }
    config.push_str("} }\n");
    Ok(config)
}

/// The rows, measured or not.
pub(super) fn rows(samples: &Samples) -> Vec<Row> {
    let rates = |loads: &[Load]| loads.iter().map(Load::rate).collect::<Vec<_>>();
    let cpu = |loads: &[Load]| loads.iter().map(Load::cpu_per_gb).collect::<Vec<_>>();
    let Samples { helios, plain, server } = samples;
    let server = if server.is_empty() { "static file server" } else { server };
    vec![
        Row::reported("download by huggingface_hub", RATE, &rates(helios), Some((server, &rates(plain))))
            .with_goal(Goal::RatioAtLeast(1.0)),
        Row::reported(
            "download by huggingface_hub: CPU of the client",
            CPU,
            &cpu(helios),
            Some((server, &cpu(plain))),
        ),
    ]
}
