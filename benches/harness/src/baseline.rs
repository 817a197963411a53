//! Counts that are kept in the repository, one file for each target, so that a change of them is seen in review.
//!
//! Only what does not drift is kept: allocations, bytes, instructions. The file is changed by `bench --save baseline` and by
//! nothing else, in a commit of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::compare::{Comparison, Metric, Row};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::protocol::Role;
use crate::result::{Counts, SuiteResult, write_whole};

/// What was counted once, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// 1.
    pub version: u32,
    /// For which target.
    pub target: String,
    /// With which compiler; instructions of another are not compared.
    pub rustc: String,
    /// On which processor; likewise.
    pub cpu_model: String,
    /// The counts of ours, by name.
    pub counts: BTreeMap<String, Kept>,
}

/// The counts of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What is done; other work is not compared.
    pub workload: String,
    /// Allocations of an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<f64>,
    /// Bytes allocated by an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
    /// Instructions of an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<f64>,
}

impl Kept {
    fn counts(&self) -> Counts {
        Counts {
            allocations_per_op: self.allocations,
            bytes_per_op: self.bytes,
            instructions_per_op: self.instructions,
        }
    }
}

impl Baseline {
    /// The counts of results. What was there before stays, where the results do not count it anew and were made alike.
    pub fn of<'a>(suites: impl IntoIterator<Item = &'a SuiteResult>, before: Option<Self>) -> Option<Self> {
        let mut baseline: Option<Self> = None;
        for suite in suites {
            let Environment {
                target,
                rustc,
                cpu_model,
                ..
            } = suite.environment.clone();
            let baseline = baseline.get_or_insert_with(|| Self {
                version: 1,
                target: target.unwrap_or_default(),
                rustc: rustc.unwrap_or_default(),
                cpu_model: cpu_model.unwrap_or_default(),
                counts: BTreeMap::new(),
            });
            for result in suite
                .benchmark_results
                .iter()
                .filter(|result| result.role == Role::Ours)
            {
                let counts = result.counts;
                if counts == Counts::default() {
                    continue;
                }
                let kept = Kept {
                    workload: result.workload.clone(),
                    allocations: counts.allocations_per_op,
                    bytes: counts.bytes_per_op,
                    instructions: counts.instructions_per_op,
                };
                baseline.counts.insert(result.name.clone(), kept);
            }
        }
        let mut baseline = baseline?;
        if let Some(before) = before
            && (&before.target, &before.rustc, &before.cpu_model)
                == (&baseline.target, &baseline.rustc, &baseline.cpu_model)
        {
            for (name, kept) in before.counts {
                baseline.counts.entry(name).or_insert(kept);
            }
        }
        Some(baseline)
    }

    /// Reads one; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Format`].
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_path_buf();
                return Err(Error::Read { path, source });
            }
        };
        let wrong = |message| Error::Format {
            path: path.to_path_buf(),
            message,
        };
        let baseline: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match baseline.version {
            1 => Ok(Some(baseline)),
            version => Err(wrong(format!("its version is {version}, this program reads 1"))),
        }
    }

    /// Writes it, readable line by line.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("names are text and figures are finite");
        text.push('\n');
        write_whole(path, &text)
    }

    /// Compares the counts of results with these. What was not run is not missing.
    pub fn compare<'a>(&self, suites: impl IntoIterator<Item = &'a SuiteResult>) -> Comparison {
        let before = Environment {
            target: Some(self.target.clone()),
            rustc: Some(self.rustc.clone()),
            cpu_model: Some(self.cpu_model.clone()),
            ..Environment::default()
        };
        let mut comparison = Comparison::default();
        for suite in suites {
            let now = Environment {
                // A baseline is always of the profile and the features of the harness.
                profile: String::new(),
                features: Vec::new(),
                ..suite.environment.clone()
            };
            for result in &suite.benchmark_results {
                let Some(kept) = self.counts.get(&result.name) else {
                    continue;
                };
                for metric in Metric::COUNTED {
                    let values = metric.of(&kept.counts()).zip(metric.of(&result.counts));
                    let Some((base, head)) = values else { continue };
                    let why_not = match metric {
                        _ if kept.workload != result.workload => Some("another workload".to_owned()),
                        Metric::Instructions => before.why_instructions_differ(&now),
                        _ => before.why_counts_differ(&now),
                    };
                    comparison
                        .rows
                        .push(Row::counted(result, metric, base, head, why_not));
                }
            }
        }
        let mut sorted = Comparison::default();
        sorted.extend(comparison);
        sorted
    }
}
