//! The rules about layers and gates, applied to what cargo says.

use super::tree::Graph;
use super::{GATED, LAYERS, NEVER};
use crate::metadata::Package;

/// The crates that name one of ours which they may not, or have no row.
pub(super) fn layers(workspace: &[Package]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Package {
        name, dependencies, ..
    } in workspace
    {
        let Some((_, below)) = LAYERS.iter().find(|(row, _)| row == name) else {
            wrong.push(format!("{name} has no row in LAYERS of xtask/src/deps.rs"));
            continue;
        };
        let is_ours = |dependency: &&String| workspace.iter().any(|package| package.name == **dependency);
        for dependency in dependencies.iter().filter(is_ours) {
            if !below.iter().any(|names| names.contains(&dependency.as_str())) {
                wrong.push(format!("{name} may not depend on {dependency}"));
            }
        }
    }
    wrong
}

/// What the graph reaches and may not, each with the way there.
pub(super) fn reached(graph: &Graph) -> Vec<String> {
    let root = graph.root();
    let mut wrong = Vec::new();
    for (_, groups) in NEVER.iter().filter(|(name, _)| *name == root) {
        for packages in *groups {
            if let Some(path) = graph.path_to(packages, |_, _| false) {
                wrong.push(format!("{root} may never reach {}", path.join(" -> ")));
            }
        }
    }
    for gated in GATED
        .iter()
        .filter(|gated| gated.of.is_empty() || gated.of.contains(&root))
    {
        let is_gate = |name: &str, features: &[String]| {
            // The gate `*` means ours: a `sqlite` feature of somebody else opens nothing.
            let ours = LAYERS.iter().any(|(known, _)| *known == name);
            gated.gates.iter().any(|gate| {
                let is_it = gate.package == name || (gate.package == "*" && ours);
                is_it
                    && gate
                        .feature
                        .is_none_or(|wanted| features.iter().any(|on| on == wanted))
            })
        };
        if let Some(path) = graph.path_to(gated.packages, is_gate) {
            let what = gated.what;
            wrong.push(format!(
                "{root} reaches {what} past its gates: {}",
                path.join(" -> ")
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::SIZES;
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
        Package {
            name: name.to_owned(),
            dependencies,
            ..Package::default()
        }
    }

    /// What is wrong with a tree in the format of `cargo tree`.
    fn wrong(tree: &str) -> Vec<String> {
        reached(&Graph::parse(tree).unwrap())
    }

    #[test]
    fn a_crate_names_only_lower_layers() {
        let workspace = [
            package("peregrine-core", &["serde"]),
            package("peregrine-providers", &["peregrine-core", "reqwest"]),
            package("peregrine-testkit", &["peregrine-core", "peregrine-providers"]),
        ];
        assert_eq!(layers(&workspace), Vec::<String>::new());
        let upward = [
            package("peregrine-core", &["peregrine-providers"]),
            package("peregrine-providers", &[]),
        ];
        assert_eq!(
            layers(&upward),
            ["peregrine-core may not depend on peregrine-providers"]
        );
        assert_eq!(layers(&[package("peregrine-new", &[])]).len(), 1);
    }

    #[test]
    fn every_name_in_a_rule_has_a_row() {
        let known = |name: &str| name == "*" || LAYERS.iter().any(|(row, _)| *row == name);
        for (name, below) in LAYERS {
            assert!(below.iter().copied().flatten().all(|name| known(name)), "{name}");
        }
        let gates = GATED
            .iter()
            .flat_map(|gated| gated.gates)
            .map(|gate| gate.package);
        let others = GATED
            .iter()
            .flat_map(|gated| gated.of)
            .copied()
            .chain(NEVER.iter().map(|(name, _)| *name));
        for name in gates.chain(others).chain(SIZES.iter().map(|size| size.package)) {
            assert!(known(name), "{name}");
        }
    }

    #[test]
    fn core_reaches_neither_tokio_nor_http() {
        assert!(wrong("0peregrine-core v0.1.0|\n1serde v1.0.0|std\n").is_empty());
        let found = wrong("0peregrine-core v0.1.0|\n1a v1.0.0|\n2tokio v1.0.0|rt\n");
        assert_eq!(
            found,
            ["peregrine-core may never reach peregrine-core -> a -> tokio"]
        );
        // Types are refused twice: core never has them, and there is no gate on the way.
        assert_eq!(wrong("0peregrine-core v0.1.0|\n1http v1.0.0|\n").len(), 2);
    }

    #[test]
    fn http_is_reached_only_through_a_gate() {
        let through = "0peregrine-agent v0.1.0|\n1peregrine-providers v0.1.0|default,http\n2hyper v1.0.0|\n";
        assert!(wrong(through).is_empty());
        assert_eq!(wrong(&through.replace("default,http", "default")).len(), 1);
        let past = format!("{through}1other v1.0.0|\n2hyper v1.0.0| (*)\n");
        let found = wrong(&past);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].ends_with("peregrine-agent -> other -> hyper"),
            "{found:?}"
        );
        assert!(wrong("0peregrine-cli v0.1.0|\n1reqwest v0.13.0|\n").is_empty());
        assert!(wrong("0peregrine-providers v0.1.0|\n1http v1.0.0|\n").is_empty());
        assert_eq!(
            wrong("0peregrine-providers v0.1.0|\n1reqwest v0.13.0|\n").len(),
            1
        );
    }

    #[test]
    fn sql_and_the_layer_have_gates_too() {
        assert!(wrong("0peregrine-memory v0.1.0|sqlite\n1sqlx v0.9.0|sqlite\n").is_empty());
        assert_eq!(wrong("0peregrine-memory v0.1.0|\n1sqlx v0.9.0|sqlite\n").len(), 1);
        assert_eq!(
            wrong("0peregrine-limits v0.1.0|\n1peregrine-core v0.1.0|\n").len(),
            1
        );
        assert!(wrong("0peregrine-limits v0.1.0|layer\n1peregrine-core v0.1.0|\n").is_empty());
        assert!(wrong("0peregrine-tools v0.1.0|\n1peregrine-core v0.1.0|\n").is_empty());
    }
}
