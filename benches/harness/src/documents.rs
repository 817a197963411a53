//! Writes the documents that are made from kept results, or tells whether they are what they should be.

use std::fs;
use std::path::Path;

use peregrine_harness::compare::Exit;
use peregrine_harness::docs::{documents, keep};
use peregrine_harness::error::Result;
use peregrine_harness::result::{read_all, write_whole};

use crate::tell;

pub(crate) fn run(root: &Path, from: Option<&Path>, only_check: bool) -> Result<Exit> {
    if let Some(from) = from {
        let kept = keep(root, read_all(from)?.values())?;
        tell(&format!("kept in {}", kept.display()));
    }
    let mut stale = false;
    for (path, text) in documents(root)? {
        let is_fresh = fs::read_to_string(&path).is_ok_and(|there| there == text);
        match (is_fresh, only_check) {
            (true, _) => {}
            (false, true) => {
                let path = path.display();
                tell(&format!(
                    "{path} is not what benches/results says; `cargo xtask docs --fix` writes it"
                ));
                stale = true;
            }
            (false, false) => {
                write_whole(&path, &text)?;
                tell(&format!("wrote {}", path.display()));
            }
        }
    }
    Ok(if stale { Exit::Failed } else { Exit::Ok })
}
