//! Read-only file tools, confined to the given paths.
//!
//! | file | what |
//! |---|---|
//! | `roots` | the given paths as capabilities; the only place that opens files |
//! | `walk` | every file below them, in one order, within bounds |
//! | `text` | bytes to text, or "binary" |
//! | `passages`, `terms`, `search` | ranked search |
//!
//! Invariant: whatever a model asks for, a tool answers with text or with an error in words; it never writes,
//! never leaves the given paths, never waits for a pipe and never reads more than its [`Bounds`].

mod passages;
mod roots;
mod search;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peregrine::ToolSpec;
use peregrine::core::JsonSchema;
use peregrine::tools::{Danger, Effect, FnTool, Registry, RegistryBuilder, ToolError, ToolInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use roots::Roots;
use text::{Content, clip};

/// How much the tools look at and give back. Everything is bounded.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// How many names a walk looks at.
    pub(crate) max_entries: usize,
    /// How many files a walk visits.
    pub(crate) max_files: usize,
    /// How deep folders may be nested.
    pub(crate) max_depth: usize,
    /// How much of one file is read.
    pub(crate) max_file_bytes: u64,
    /// How much a search reads in all.
    pub(crate) max_searched_bytes: u64,
    /// How many files a listing names.
    pub(crate) max_listed: usize,
    /// How many passages a search gives.
    pub(crate) max_hits: usize,
    /// How many lines `read_file` gives, whatever is asked for.
    pub(crate) max_lines: usize,
    /// How long the answer of one call may be.
    pub(crate) max_output_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_entries: 50_000,
            max_files: 10_000,
            max_depth: 32,
            max_file_bytes: 4 << 20,
            max_searched_bytes: 64 << 20,
            max_listed: 500,
            max_hits: 12,
            max_lines: 1_000,
            max_output_bytes: 32 << 10,
        }
    }
}

/// How many lines `read_file` gives unless asked otherwise.
const USUAL_LINES: usize = 200;
/// How long a line of a file may be before it is cut.
const MAX_LINE_BYTES: usize = 4 << 10;

/// What a tool gives back: text for the model, or what went wrong, also for the model.
type Answer = Result<String, String>;

/// Opens the given files and folders, and gives the tools `search_files`, `read_file` and `list_files` on them.
///
/// # Errors
///
/// Which path could not be opened and why.
pub(crate) fn tools(paths: &[PathBuf], bounds: Bounds) -> std::io::Result<RegistryBuilder> {
    let roots = Roots::open(paths)?;
    let files = Arc::new(Files { roots, bounds });
    let [search, read, list] = specs();
    Ok(Registry::builder()
        .with(tool(&files, search, Work::Search))
        .with(tool(&files, read, Work::Read))
        .with(tool(&files, list, Work::List)))
}

/// A tool on these files: it only reads, and only what was given.
fn tool<A: DeserializeOwned + 'static>(files: &Arc<Files>, spec: ToolSpec, work: fn(A) -> Work) -> FnTool {
    let info = ToolInfo::new(spec)
        .with_effect(Effect::ReadOnly)
        .with_danger(Danger::Safe);
    let (files, name) = (Arc::clone(files), info.name().to_owned());
    FnTool::raw(info, move |_, arguments| {
        let files = Arc::clone(&files);
        // They fit the schema; only a number may be too large.
        let work = serde_json::from_value(arguments)
            .map(work)
            .map_err(|error| format!("these are no arguments for {name}: {error}"));
        async move {
            let answer = match work {
                Ok(work) => run(files, work).await,
                Err(problem) => Err(problem),
            };
            answer.map_err(ToolError::model)
        }
    })
}

async fn run(files: Arc<Files>, work: Work) -> Answer {
    let guard = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&guard.0);
    // Disks may be slow or gone; the run must stay cancellable meanwhile.
    tokio::task::spawn_blocking(move || files.run(work, &stop))
        .await
        .unwrap_or_else(|error| Err(format!("the tool failed: {error}")))
}

#[derive(Debug)]
struct Files {
    roots: Roots,
    bounds: Bounds,
}

/// Tells the walk to end when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Work {
    List(ListFiles),
    Search(SearchFiles),
    Read(ReadFile),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFiles {
    #[serde(default)]
    folder: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchFiles {
    query: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    path: String,
    #[serde(default)]
    start_line: Option<usize>,
    #[serde(default)]
    max_lines: Option<usize>,
}

/// What the tools are called. All of them only read.
pub(crate) fn names() -> impl Iterator<Item = String> {
    specs().into_iter().map(|spec| spec.name)
}

/// Whether one of the tools has this name.
pub(crate) fn is_tool(name: &str) -> bool {
    specs().iter().any(|spec| spec.name == name)
}

fn specs() -> [ToolSpec; 3] {
    let schema = |properties: Value, required: &[&str]| {
        JsonSchema::new(json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        }))
    };
    [
        ToolSpec::new(
            "search_files",
            "Searches the text of all given files and returns the passages that best match, best first, each as \
             `file:line: text`. Use it first: ask with the words that the answer would contain.",
            schema(
                json!({"query": {"type": "string", "description": "The words to look for."}}),
                &["query"],
            ),
        ),
        ToolSpec::new(
            "read_file",
            "Returns lines of one text file. Use it to read more around a passage that was found.",
            schema(
                json!({
                    "path": {"type": "string", "description": "The file, as search_files and list_files name it."},
                    "start_line": {"type": "integer", "minimum": 1, "description": "The first line; 1 unless given."},
                    "max_lines": {"type": "integer", "minimum": 1, "description": "How many lines; 200 unless given."},
                }),
                &["path"],
            ),
        ),
        ToolSpec::new(
            "list_files",
            "Lists the names and sizes of the given files. Use it to see which files there are.",
            schema(
                json!({"folder": {"type": "string", "description": "Only files in this folder."}}),
                &[],
            ),
        ),
    ]
}

impl Files {
    fn run(&self, work: Work, stop: &AtomicBool) -> Answer {
        match work {
            Work::List(list) => self.list(list.folder.as_deref().unwrap_or_default(), stop),
            Work::Search(search) => self.search(&search.query, stop),
            Work::Read(read) => self.read(&read),
        }
    }

    fn list(&self, folder: &str, stop: &AtomicBool) -> Answer {
        let wanted = folder.trim().trim_start_matches("./").trim_end_matches('/');
        let inside = |path: &str| {
            matches!(wanted, "" | ".")
                || path
                    .strip_prefix(wanted)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let (mut listing, mut listed, mut unlisted) = (String::new(), 0, 0);
        let missed = walk::walk(&self.roots, &self.bounds, stop, &mut |found| {
            if !inside(found.path) {
                return ControlFlow::Continue(());
            }
            if listed == self.bounds.max_listed
                || listing.len() + found.path.len() > self.bounds.max_output_bytes
            {
                unlisted += 1;
            } else {
                listed += 1;
                // Writing to a string cannot fail.
                let _ = writeln!(listing, "{} ({} bytes)", found.path, found.bytes);
            }
            ControlFlow::Continue(())
        });
        if listed == 0 {
            let place = if wanted.is_empty() {
                String::new()
            } else {
                format!(" in {}", clip(wanted, 200))
            };
            listing = format!("there are no files{place}\n");
        }
        if unlisted > 0 {
            let _ = writeln!(listing, "[and {unlisted} more; name a folder to see its files]");
        }
        Ok(listing.trim_end().to_owned() + &missed.note())
    }

    fn search(&self, query: &str, stop: &AtomicBool) -> Answer {
        if query.trim().is_empty() {
            return Err("the query is empty; give the words to look for".to_owned());
        }
        let hits = search::search(&self.roots, &self.bounds, stop, query, self.bounds.max_hits);
        let mut answer = String::new();
        let mut shown = 0;
        for hit in &hits.best {
            if answer.len() + hit.text.len() > self.bounds.max_output_bytes {
                break;
            }
            let _ = writeln!(answer, "{}:{}: {}", hit.path, hit.line, hit.text);
            shown += 1;
        }
        if hits.matching == 0 {
            let _ = writeln!(
                answer,
                "no passage of the {} files matches; try other words, or list_files",
                hits.files
            );
        } else if hits.matching > shown {
            let _ = writeln!(
                answer,
                "[the best {shown} of {} passages that match]",
                hits.matching
            );
        }
        Ok(answer.trim_end().to_owned() + &hits.missed.note())
    }

    fn read(&self, asked: &ReadFile) -> Answer {
        let name = clip(&asked.path, 200);
        let refuse = |why: &dyn std::fmt::Display| format!("{name:?} is not read: {why}");
        if name.trim().is_empty() {
            return Err("the path is empty; list_files names the files there are".to_owned());
        }
        let file = self
            .roots
            .open_file(&asked.path)
            .map_err(|refusal| refuse(&refusal))?;
        let content = text::read(file, self.bounds.max_file_bytes).map_err(|error| refuse(&error))?;
        let Content::Text { text, lossy, cut } = content else {
            return Err(refuse(&"it is not text but binary"));
        };
        let start = asked.start_line.unwrap_or(1).max(1);
        let wanted = asked
            .max_lines
            .unwrap_or(USUAL_LINES)
            .clamp(1, self.bounds.max_lines);
        let total = text.lines().count();
        if total == 0 {
            return Ok(format!("{name} is empty"));
        }
        if start > total {
            return Err(refuse(&format!(
                "line {start} is behind its end, it has {total} lines"
            )));
        }
        let (mut body, mut last) = (String::new(), start - 1);
        for line in text.lines().skip(start - 1).take(wanted) {
            let clipped = clip(line, MAX_LINE_BYTES);
            if body.len() + clipped.len() > self.bounds.max_output_bytes {
                break;
            }
            body.push_str(clipped);
            if clipped.len() < line.len() {
                let _ = write!(
                    body,
                    " [the line goes on for {} bytes]",
                    line.len() - clipped.len()
                );
            }
            body.push('\n');
            last += 1;
        }
        let mut notes = Vec::new();
        if last < total {
            notes.push(format!("more: read_file with start_line {}", last + 1));
        }
        if cut {
            notes.push(format!(
                "only the first {} bytes of the file were read",
                self.bounds.max_file_bytes
            ));
        }
        if lossy {
            notes.push("bytes that are not UTF-8 are shown as \u{fffd}".to_owned());
        }
        let notes = if notes.is_empty() {
            String::new()
        } else {
            format!("[{}]\n", notes.join("; "))
        };
        Ok(
            format!("{name}, lines {start} to {last} of {total}:\n{body}{notes}")
                .trim_end()
                .to_owned(),
        )
    }
}
