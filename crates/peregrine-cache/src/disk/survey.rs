//! What a directory holds, and what was done with it, for whoever asks from outside: another process, a person.

use super::{DiskStore, Files, totals};
use crate::sync::{MutexGuard, lock};
use crate::{Error, Result, Selector, Survey, Totals};

impl DiskStore {
    /// What it holds at this time, other processes' entries included.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read.
    pub fn survey(&self, now: u64) -> Result<Survey> {
        let files = self.current()?;
        let survey = lock(&self.0.index).survey(now);
        Ok(Survey {
            bytes: Some(self.0.bytes(&files)),
            ..survey
        })
    }

    /// How many entries a removal would take away; those past their time are not counted.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read.
    pub fn count(&self, what: &Selector, now: u64) -> Result<u64> {
        let _files = self.current()?;
        let index = lock(&self.0.index);
        Ok(index
            .keys(what)
            .iter()
            .filter(|key| index.is_kept(key, now))
            .count() as u64)
    }

    /// What caches over this directory did that [added](Self::add_totals) theirs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        totals::read(&self.0.dir)
            .map_err(|source| Error::io("the totals of the cache cannot be read", source))
    }

    /// Adds what a cache did to the totals of this directory: at its end, or now and then [what came to
    /// it](Totals::since).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written.
    pub fn add_totals(&self, more: &Totals) -> Result<()> {
        let now = crate::Clock::unix_ms(&crate::SystemTimeClock);
        totals::add(&self.0.dir, more, now)
            .map_err(|source| Error::io("the totals of the cache cannot be written", source))
    }

    /// The files, with what other processes wrote.
    fn current(&self) -> Result<MutexGuard<'_, Files>> {
        let mut files = lock(&self.0.files);
        self.0
            .refresh(&mut files)
            .map_err(|source| Error::io("the directory of the cache cannot be read", source))?;
        Ok(files)
    }
}
