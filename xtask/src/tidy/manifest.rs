//! Rules about `Cargo.toml` files: names, what is inherited from the workspace, and where versions are written.

use toml::{Table, Value};

use super::{File, Finding};

const PREFIX: &str = "peregrine-";
const WHOLE_NAMES: [&str; 2] = ["peregrine", "xtask"];
/// A crate is called after what it is about, not after being shared.
const EMPTY_ENDINGS: [&str; 5] = ["-common", "-util", "-utils", "-types", "-helpers"];
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];
const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
const ROOT: &str = "Cargo.toml";

struct Manifest<'a> {
    file: &'a File,
    table: Table,
}

fn manifests<'a>(files: &'a [File], findings: &mut Vec<Finding>) -> Vec<Manifest<'a>> {
    let mut manifests = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path == ROOT || file.path.ends_with("/Cargo.toml"))
    {
        match file.text.as_deref().unwrap_or_default().parse() {
            Ok(table) => manifests.push(Manifest { file, table }),
            Err(error) => findings.push(file.finding(0, format!("is not TOML: {error}"))),
        }
    }
    manifests
}

impl Manifest<'_> {
    fn package(&self) -> Option<&Table> {
        self.table.get("package")?.as_table()
    }

    /// A package of this workspace; `fuzz/` is a workspace of its own.
    fn is_member(&self) -> bool {
        self.package().is_some() && !self.table.contains_key("workspace")
    }
}

pub(super) fn names(files: &[File], findings: &mut Vec<Finding>) {
    for manifest in manifests(files, findings) {
        let Some(name) = manifest
            .package()
            .and_then(|package| package.get("name")?.as_str())
        else {
            continue;
        };
        if !name.starts_with(PREFIX) && !WHOLE_NAMES.contains(&name) {
            let message = format!("package `{name}` is not called `{PREFIX}..`");
            findings.push(manifest.file.finding(0, message));
        }
        if let Some(ending) = EMPTY_ENDINGS.iter().find(|ending| name.ends_with(**ending)) {
            let message = format!("package `{name}` ends in `{ending}`, which does not say what it is about");
            findings.push(manifest.file.finding(0, message));
        }
        let folder = manifest
            .file
            .path
            .strip_prefix("crates/")
            .and_then(|rest| rest.strip_suffix("/Cargo.toml"));
        if let Some(folder) = folder.filter(|folder| *folder != name) {
            let message = format!("package `{name}` is in the folder `{folder}`");
            findings.push(manifest.file.finding(0, message));
        }
    }
}

pub(super) fn inherits_from_the_workspace(files: &[File], findings: &mut Vec<Finding>) {
    for manifest in manifests(files, &mut Vec::new())
        .iter()
        .filter(|manifest| manifest.is_member())
    {
        for key in INHERITED {
            if !manifest
                .package()
                .and_then(|package| package.get(key))
                .is_some_and(is_inherited)
            {
                findings.push(
                    manifest
                        .file
                        .finding(0, format!("`{key}.workspace = true` is missing")),
                );
            }
        }
        if !manifest.table.get("lints").is_some_and(is_inherited) {
            findings.push(manifest.file.finding(0, "`[lints] workspace = true` is missing"));
        }
    }
}

pub(super) fn versions_are_in_the_workspace(files: &[File], findings: &mut Vec<Finding>) {
    for Manifest { file, table } in manifests(files, &mut Vec::new()).iter().filter(|m| m.is_member()) {
        let of_platforms = table
            .get("target")
            .and_then(Value::as_table)
            .into_iter()
            .flatten();
        let of_platforms = of_platforms.filter_map(|(_, target)| target.as_table());
        let tables = std::iter::once(table).chain(of_platforms);
        let tables = tables.flat_map(|table| DEPENDENCY_TABLES.map(|key| table.get(key)?.as_table()));
        for (name, dependency) in tables.flatten().flatten() {
            if !is_inherited(dependency) {
                let message = format!("dependency `{name}` does not say `workspace = true`");
                findings.push(file.finding(0, message));
            }
        }
    }
    for Manifest { file, table } in manifests(files, &mut Vec::new())
        .iter()
        .filter(|m| m.file.path == ROOT)
    {
        let shared = table
            .get("workspace")
            .and_then(|workspace| workspace.get("dependencies"));
        for (name, dependency) in shared.and_then(Value::as_table).into_iter().flatten() {
            let ours = dependency.get("path").is_some();
            let pinned = dependency.get("default-features").and_then(Value::as_bool) == Some(false);
            if !ours && !pinned {
                let message = format!("dependency `{name}` does not say `default-features = false`");
                findings.push(file.finding(0, message));
            }
        }
    }
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    const GOOD: &str = r#"
        [package]
        name = "peregrine-core"
        version.workspace = true
        edition.workspace = true
        rust-version.workspace = true
        license.workspace = true
        [dependencies]
        serde.workspace = true
        tokio = { workspace = true, optional = true }
        [target.'cfg(unix)'.dev-dependencies]
        libc.workspace = true
        [lints]
        workspace = true
    "#;
    const PATH: &str = "crates/peregrine-core/Cargo.toml";

    #[test]
    fn a_good_manifest_passes() {
        for rule in [names, inherits_from_the_workspace, versions_are_in_the_workspace] {
            assert!(found(rule, &[(PATH, GOOD)]).is_empty());
        }
    }

    #[test]
    fn a_name_says_what_the_crate_is_about() {
        let check = |path: &str, name: &str| {
            let text = GOOD.replace("peregrine-core", name);
            found(names, &[(path, &text)]).len()
        };
        assert_eq!(check("xtask/Cargo.toml", "xtask"), 0);
        assert_eq!(check("crates/peregrine/Cargo.toml", "peregrine"), 0);
        assert_eq!(check("benches/Cargo.toml", "peregrine-benches"), 0);
        assert_eq!(check("tools/Cargo.toml", "falcon"), 1);
        assert_eq!(check("crates/peregrine-utils/Cargo.toml", "peregrine-utils"), 1);
        assert_eq!(check("crates/peregrine-types/Cargo.toml", "peregrine-types"), 1);
        assert_eq!(check("crates/core/Cargo.toml", "peregrine-core"), 1);
        assert_eq!(found(names, &[(PATH, "[package")]).len(), 1);
    }

    #[test]
    fn what_belongs_to_the_workspace_is_inherited() {
        let check = |from: &str, to: &str| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            found(inherits_from_the_workspace, &[(PATH, &text)]).len()
        };
        assert_eq!(check("edition.workspace = true", "edition = \"2024\""), 1);
        assert_eq!(check("rust-version.workspace = true", ""), 1);
        assert_eq!(check("license.workspace = true", "license = \"MIT\""), 1);
        assert_eq!(check("[lints]\n        workspace = true", ""), 1);
        assert_eq!(
            check(
                "[lints]\n        workspace = true",
                "[lints.rust]\nunsafe_code = \"allow\""
            ),
            1
        );
        assert_eq!(
            check("license.workspace = true", "license = \"MIT\"\n[workspace]\n[x]"),
            0,
            "its own workspace"
        );
    }

    #[test]
    fn versions_are_written_once() {
        let check =
            |from: &str, to: &str| found(versions_are_in_the_workspace, &[(PATH, &GOOD.replace(from, to))]);
        let message = format!("{PATH}: dependency `serde` does not say `workspace = true`");
        assert_eq!(check("serde.workspace = true", "serde = \"1\""), [message]);
        assert_eq!(
            check("libc.workspace = true", "libc = { version = \"1\" }").len(),
            1
        );
        assert_eq!(
            check("serde.workspace = true", "peregrine-x = { path = \"../x\" }").len(),
            1
        );

        let root = |line: &str| {
            let text = format!("[workspace]\nmembers = []\n[workspace.dependencies]\n{line}\n");
            found(versions_are_in_the_workspace, &[(ROOT, &text)]).len()
        };
        assert_eq!(root("serde = { version = \"1\", default-features = false }"), 0);
        assert_eq!(
            root("peregrine-core = { path = \"crates/peregrine-core\", version = \"0.1.0\" }"),
            0
        );
        assert_eq!(root("serde = { version = \"1\" }"), 1);
        assert_eq!(root("serde = \"1\""), 1);
        assert_eq!(root("serde = { version = \"1\", default-features = true }"), 1);
    }
}
