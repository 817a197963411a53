//! How many packages each crate pulls in, as a table for people and one for the README.

use super::tree::{Features, Graph};
use super::{SIZES, Size, UNLISTED};
use crate::metadata::Package;
use crate::report::Problem;

pub(super) struct Row {
    package: String,
    features: String,
    count: usize,
    at_most: Option<usize>,
}

impl Row {
    pub(super) fn too_large(&self) -> Option<String> {
        let Self {
            package,
            features,
            count,
            at_most,
        } = self;
        let limit = at_most.filter(|limit| count > limit)?;
        Some(format!(
            "{package} ({features}) pulls in {count} packages; at most {limit}"
        ))
    }
}

pub(super) fn rows(workspace: &[Package]) -> Result<Vec<Row>, Problem> {
    let mut rows = Vec::new();
    for package in workspace
        .iter()
        .filter(|package| !UNLISTED.contains(&package.name.as_str()))
    {
        let listed: Vec<&Size> = SIZES.iter().filter(|size| size.package == package.name).collect();
        let unlimited = Size {
            package: "",
            features: Features::Default,
            at_most: None,
        };
        let sizes = if listed.is_empty() {
            vec![&unlimited]
        } else {
            listed
        };
        for Size {
            features, at_most, ..
        } in sizes
        {
            let count = Graph::of(&package.name, features)?.others();
            let features = features.to_string();
            rows.push(Row {
                package: package.name.clone(),
                features,
                count,
                at_most: *at_most,
            });
        }
    }
    Ok(rows)
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut lines = vec![format!(
        "{:<24} {:<18} {:>8} {:>6}",
        "crate", "features", "packages", "limit"
    )];
    for Row {
        package,
        features,
        count,
        at_most,
    } in rows
    {
        let limit = at_most.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        lines.push(format!("{package:<24} {features:<18} {count:>8} {limit:>6}"));
    }
    lines.join("\n")
}

pub(super) fn markdown(rows: &[Row]) -> String {
    let mut lines = vec![
        "| crate | features | packages it pulls in | limit |".to_owned(),
        "|---|---|---:|---:|".to_owned(),
    ];
    for Row {
        package,
        features,
        count,
        at_most,
    } in rows
    {
        let limit = at_most.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        lines.push(format!("| `{package}` | {features} | {count} | {limit} |"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_over_its_limit_is_found() {
        let row = |count| Row {
            package: "a".into(),
            features: "default".into(),
            count,
            at_most: Some(20),
        };
        assert_eq!(row(20).too_large(), None);
        assert_eq!(
            row(21).too_large().unwrap(),
            "a (default) pulls in 21 packages; at most 20"
        );
        assert!(markdown(&[row(3)]).ends_with("| `a` | default | 3 | 20 |"));
        assert!(
            Row {
                at_most: None,
                ..row(999)
            }
            .too_large()
            .is_none()
        );
    }
}
