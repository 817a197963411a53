//! The packages a crate pulls in with certain features on this platform, as a graph, from `cargo tree`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::command::cargo;
use crate::metadata::Package;
use crate::report::Problem;

/// Which features of a crate are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Features<'a> {
    None,
    Default,
    Only(&'a str),
    All,
}

impl<'a> Features<'a> {
    /// None, each alone, and all of them.
    pub(super) fn each(package: &'a Package) -> Vec<Self> {
        let alone = package.features.keys().map(|name| match name.as_str() {
            "default" => Self::Default,
            name => Self::Only(name),
        });
        std::iter::once(Self::None)
            .chain(alone)
            .chain([Self::All])
            .collect()
    }

    fn words(&self) -> Vec<&str> {
        match self {
            Self::None => vec!["--no-default-features"],
            Self::Default => vec![],
            Self::Only(name) => vec!["--no-default-features", "--features", name],
            Self::All => vec!["--all-features"],
        }
    }
}

impl fmt::Display for Features<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Default => f.write_str("default"),
            Self::Only(name) => write!(f, "only {name}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// Packages, one node for each name and version; the first line of the tree is the root.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: String,
    features: Vec<String>,
    edges: BTreeSet<usize>,
}

impl Graph {
    pub(super) fn of(package: &str, features: &Features<'_>) -> Result<Self, Problem> {
        let words = [
            "tree",
            "--package",
            package,
            "--edges",
            "normal,build",
            "--prefix",
            "depth",
        ];
        let text = cargo(words)
            .args(["--format", "{p}|{f}"])
            .args(features.words())
            .hidden()
            .captured()?;
        Self::parse(&text).map_err(Problem::Failed)
    }

    /// Reads lines of depth, package, `|` and features. A line that ends in `(*)` stands for a subtree shown before.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut graph = Self { nodes: Vec::new() };
        let mut index: BTreeMap<(String, String), usize> = BTreeMap::new();
        // The nodes from the root down to the line before.
        let mut above: Vec<usize> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let odd = || format!("`cargo tree` printed a line that is not understood: `{line}`");
            let digits = line
                .find(|letter: char| !letter.is_ascii_digit())
                .ok_or_else(odd)?;
            let depth: usize = line[..digits].parse().map_err(|_| odd())?;
            let (package, features) = line[digits..].split_once('|').ok_or_else(odd)?;
            let mut words = package.split_whitespace();
            let (name, version) = (words.next().ok_or_else(odd)?, words.next().ok_or_else(odd)?);
            let node = *index
                .entry((name.to_owned(), version.to_owned()))
                .or_insert_with(|| {
                    graph.nodes.push(Node {
                        name: name.to_owned(),
                        features: Vec::new(),
                        edges: BTreeSet::new(),
                    });
                    graph.nodes.len() - 1
                });
            let features = features.strip_suffix(" (*)").unwrap_or(features);
            let features = features
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned);
            graph.nodes[node].features.extend(features);
            if depth > above.len() {
                return Err(odd());
            }
            above.truncate(depth);
            if let Some(parent) = above.last() {
                graph.nodes[*parent].edges.insert(node);
            }
            above.push(node);
        }
        if graph.nodes.is_empty() {
            Err("`cargo tree` printed nothing".to_owned())
        } else {
            Ok(graph)
        }
    }

    pub(super) fn root(&self) -> &str {
        &self.nodes[0].name
    }

    /// How many packages there are besides the root. Two versions of one package are two.
    pub(super) fn others(&self) -> usize {
        self.nodes.len() - 1
    }

    /// The shortest way from the root to one of the packages that goes through no gate, if there is one.
    pub(super) fn path_to(
        &self,
        wanted: &[&str],
        is_gate: impl Fn(&str, &[String]) -> bool,
    ) -> Option<Vec<&str>> {
        let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            let node = &self.nodes[at];
            if at != 0 && wanted.contains(&node.name.as_str()) {
                return Some(self.way(&came_from, at));
            }
            if is_gate(&node.name, &node.features) {
                continue;
            }
            for next in node.edges.iter().copied().filter(|next| *next != 0) {
                came_from.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    at
                });
            }
        }
        None
    }

    fn way(&self, came_from: &BTreeMap<usize, usize>, end: usize) -> Vec<&str> {
        let mut way: Vec<&str> = std::iter::successors(Some(end), |at| came_from.get(at).copied())
            .map(|at| self.nodes[at].name.as_str())
            .collect();
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0a v1.0.0 (/x)|default\n1b v1.0.0 (proc-macro)|x,y\n2c v1.0.0|\n1d v2.0.0|\n2b v1.0.0| (*)\n2c v2.0.0|\n";

    #[test]
    fn a_tree_is_read_with_its_repeats() {
        let graph = Graph::parse(TREE).unwrap();
        assert_eq!(graph.root(), "a");
        assert_eq!(graph.others(), 4, "b, c in two versions, d");
        assert_eq!(graph.nodes[1].features, ["x", "y"]);
    }

    #[test]
    fn the_shortest_way_past_the_gates_is_found() {
        let graph = Graph::parse(TREE).unwrap();
        assert_eq!(graph.path_to(&["c"], |_, _| false).unwrap(), ["a", "b", "c"]);
        assert_eq!(
            graph.path_to(&["c"], |name, _| name == "b").unwrap(),
            ["a", "d", "c"]
        );
        assert_eq!(graph.path_to(&["c"], |name, _| name == "b" || name == "d"), None);
        assert_eq!(
            graph.path_to(&["c"], |_, features| features.iter().any(|f| f == "default")),
            None
        );
        assert_eq!(
            graph.path_to(&["a", "z"], |_, _| false),
            None,
            "the root is not reached by itself"
        );
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for text in ["", "warning: x", "0a|", "0a v1", "1a v1|", "0a v1|\n2b v1|"] {
            assert!(Graph::parse(text).is_err(), "{text}");
        }
    }
}
