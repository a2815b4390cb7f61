//! Layers: a crate depends on crates of lower layers only, so that the parts can be read, tested and replaced from
//! the bottom up.

use super::Finding;

/// Every crate and its layer. A crate that is not here may not be in the workspace.
const LAYERS: [(&str, u8); 15] = [
    ("types", 0),
    ("api", 1),
    ("runtime", 1),
    ("kernels", 1),
    ("prefetch", 1),
    ("storage", 2),
    ("text", 2),
    ("model", 3),
    ("metadata", 4),
    ("engine", 4),
    ("registry", 5),
    ("distribution", 6),
    ("worker", 6),
    ("proxy", 6),
    ("helios", 7),
];

/// Dependencies that point up or sideways. Development dependencies are free.
pub(crate) fn check(files: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files {
        let crate_name = path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml"));
        if let Some(name) = crate_name.filter(|name| !name.contains('/')) {
            findings.extend(check_manifest(path, name, text));
        }
    }
    findings
}

fn check_manifest(path: &str, name: &str, text: &str) -> Vec<Finding> {
    let Some(layer) = layer_of(name) else {
        return vec![Finding::new(
            path,
            1,
            format!("crate `{name}` has no layer in xtask/src/tidy/layers.rs"),
        )];
    };
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            let section = line.trim().trim_matches(['[', ']']);
            in_dependencies = section == "dependencies" || section.ends_with(".dependencies");
        }
        let dependency = line.trim().strip_prefix("helios-").map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default()
        });
        if let (true, Some(below)) = (in_dependencies, dependency)
            && layer_of(below).is_none_or(|lower| lower >= layer)
        {
            findings.push(Finding::new(
                path,
                index + 1,
                format!("`{name}` may not depend on `helios-{below}`"),
            ));
        }
    }
    findings
}

fn layer_of(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, manifest: &str) -> usize {
        check(&[(format!("crates/{name}/Cargo.toml"), manifest.to_owned())]).len()
    }

    #[test]
    fn up_and_sideways_are_found_down_is_not() {
        assert_eq!(findings("engine", "[dependencies]\nhelios-storage.workspace = true\n"), 0);
        assert_eq!(findings("engine", "[dependencies]\nhelios-registry.workspace = true\n"), 1);
        assert_eq!(
            findings("text", "[target.'cfg(unix)'.dependencies]\nhelios-proxy = { path = \"x\" }\n"),
            1
        );
        assert_eq!(findings("text", "[dev-dependencies]\nhelios-proxy.workspace = true\n"), 0);
        assert_eq!(findings("novel", "[dependencies]\n"), 1);
    }
}
