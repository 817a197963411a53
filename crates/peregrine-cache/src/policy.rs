//! What may be cached, for how long, and who decides: the cache's settings, and what one call says instead.

use std::time::Duration;

use crate::Tag;

/// How long an answer stays fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is removed or there is no more room.
    Never,
    /// For this long.
    After(Duration),
    /// Not at all: it is not stored.
    NoStore,
}

impl Default for Ttl {
    /// An hour.
    fn default() -> Self {
        Self::After(Duration::from_secs(3600))
    }
}

/// What a call does with the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// It takes what is there and stores nothing.
    Read,
    /// It asks anew, by a call of its own, and stores the answer, which replaces what is there.
    Write,
    /// It takes what is there, and stores what is not.
    #[default]
    ReadWrite,
}

impl Mode {
    /// Whether it takes what is there.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether it stores.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// What one call says; what it does not say is as the cache is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Control {
    /// What to do with the cache.
    pub mode: Option<Mode>,
    /// How long the answer stays fresh. Where equal calls share an answer, the one that began it decides.
    pub ttl: Option<Ttl>,
    /// How old an answer may be at most to be taken.
    pub max_age: Option<Duration>,
    /// By what the answer can be removed later. Where equal calls share an answer, the one that began it decides.
    pub tags: Vec<Tag>,
    /// Use the cache although the rules of the cache say that this kind of call is not for it.
    pub anyway: bool,
}

impl Control {
    /// As the cache is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what to do with the cache.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Says how long the answer stays fresh.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Says how old an answer may be.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Adds a label by which the answer can be removed.
    #[must_use]
    pub fn with_tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Uses the cache against its rules.
    #[must_use]
    pub fn anyway(mut self) -> Self {
        self.anyway = true;
        self
    }
}

/// How a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Served {
    /// From the cache.
    Hit,
    /// From the cache, past its time; a new answer is on its way.
    Stale,
    /// With the answer to an equal call that was under way.
    Coalesced,
    /// From the cache, with the answer to a similar request.
    Similar,
    /// By a call of its own, which the cache did not know the answer to.
    Miss,
    /// By a call of its own: the cache was not asked.
    Bypass,
}

impl Served {
    /// The word: `hit`, `stale`, `coalesced`, `similar`, `miss` or `bypass`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Coalesced => "coalesced",
            Self::Similar => "similar",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }

    /// Whether it cost nothing.
    pub const fn is_free(self) -> bool {
        !matches!(self, Self::Miss | Self::Bypass)
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
