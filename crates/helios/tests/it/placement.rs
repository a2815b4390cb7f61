//! Where a model fits, as a running server knows it.

use serde_json::Value;

use crate::harness::{Deployment, MODEL, helios, store_with_model};

#[test]
fn a_placement_is_answered_from_the_proxy_and_names_its_workers() {
    let deployment = Deployment::three_processes(&[MODEL], store_with_model());
    let ask = |args: &[&str]| -> Value {
        let elsewhere = deployment.store.path().join("elsewhere");
        let mut command = helios(&elsewhere);
        command.env("HELIOS_HOST", &deployment.url).args(["fit", MODEL, "--json"]).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let told = ask(&[]);
    let [here, worker] = told["fits"].as_array().unwrap().as_slice() else { panic!("two places: {told}") };
    assert_eq!(here["place"], "this machine");
    let place = worker["place"].as_str().unwrap();
    assert!(place.starts_with("worker ") && place.ends_with(MODEL), "{place}");
    assert!(
        worker["fits"].as_bool().unwrap() && worker["device_bytes"].as_u64().unwrap() > 1 << 28,
        "{worker}"
    );
    assert_eq!(ask(&["--device", "24GiB"])["fits"].as_array().unwrap().len(), 1, "only what was asked about");
    let (_, metrics) = deployment.get("/metrics");
    for line in ["helios_profile_cache_misses_total 1", "helios_profile_cache_hits_total 1"] {
        assert!(metrics.lines().any(|told| told == line), "{line}: {metrics}");
    }
}
