//! What a runner says to the harness: a line of JSON for each thing, on its standard output.
//!
//! A runner is the program with the benchmarks in it. `RUNNER list` tells what it has; `RUNNER run --group G ..` measures
//! the variants of one group in turns, in one process, and tells each of them once. Runners of two revisions speak to the
//! same harness, so a line that is not understood is refused by its version first.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::samples::Round;

/// The version of what is said. Both sides must have the same.
pub const PROTOCOL: u32 = 1;

/// `suite/op/param/impl`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// The parts in order.
    pub fn parts(&self) -> [&str; 4] {
        let mut parts = self.0.split('/');
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }

    /// The first part.
    pub fn suite(&self) -> &str {
        self.parts()[0]
    }

    /// Everything but the last part.
    pub fn group(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        // Suites are names of files too.
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.len() <= 64
                && part.chars().all(letter)
        };
        match name.split('/').count() == 4 && name.split('/').all(part) {
            true => Ok(Self(name.to_owned())),
            false => Err(Error::Name {
                name: name.chars().take(200).collect(),
            }),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// Whose work a variant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Peregrine's. Only these are gated.
    Ours,
    /// The least that the work could take, written by hand.
    Floor,
    /// What one would use instead.
    Rival,
}

/// A benchmark, as its runner describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its name.
    pub id: Id,
    /// Whose work it is.
    pub role: Role,
    /// What is done, in words; a workload that changes, changes them.
    pub workload: String,
    /// Whether its allocations and instructions are the same each time.
    pub counted: bool,
    /// Not part of a suite, but of the harness' own tests: left out unless it is named.
    #[serde(default)]
    pub hidden: bool,
}

/// What a runner says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Line {
    /// First of all, always.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// `release`, `dev`.
        profile: String,
        /// Features with which it was built.
        features: Vec<String>,
    },
    /// One of what there is.
    Benchmark(Descriptor),
    /// Setting up is over, measuring begins.
    Ready,
    /// One variant was measured.
    Measured(Measured),
    /// One variant was counted.
    Counted(Counted),
}

/// What one process measured of one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Which.
    pub id: Id,
    /// Operations measured.
    pub iterations: u64,
    /// Operations before.
    pub warmup_iterations: u64,
    /// Operations in a sample, at most.
    pub batch: u64,
    /// The samples.
    pub round: Round,
    /// Operations a second, of what ran at the same time.
    pub throughput: Option<f64>,
    /// Processor time of the calling thread, in nanoseconds.
    pub cpu_ns: u64,
    /// Its own figures.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
}

/// What one variant did, as far as it does not depend on time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Which.
    pub id: Id,
    /// Operations.
    pub iterations: u64,
    /// Allocations of all of them, on the calling thread.
    pub allocations: u64,
    /// Bytes allocated by all of them.
    pub bytes: u64,
}

impl Line {
    /// As one line, with its end.
    pub fn to_json(&self) -> String {
        let mut line = serde_json::to_string(self).expect("names are text and figures are finite or null");
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_four_parts() {
        let id: Id = "execution/single_shot/0ms/peregrine".parse().unwrap();
        assert_eq!(id.parts(), ["execution", "single_shot", "0ms", "peregrine"]);
        assert_eq!(
            (id.suite(), id.group()),
            ("execution", "execution/single_shot/0ms")
        );
        for wrong in [
            "",
            "a/b/c",
            "a/b/c/d/e",
            "a//c/d",
            "a/b/c/D",
            "../b/c/d",
            "a/b/c/d e",
            "a/b/c/d\n",
        ] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let counted = Line::Counted(Counted {
            id: "a/b/c/d".parse().unwrap(),
            iterations: 3,
            allocations: 2,
            bytes: 1,
        });
        let line = counted.to_json();
        assert!(line.starts_with(r#"{"say":"counted","id":"a/b/c/d""#), "{line}");
        assert_eq!(serde_json::from_str::<Line>(&line).unwrap(), counted);
    }
}
