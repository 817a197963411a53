//! How an interrupt ends what is running.

use std::fmt;

/// How an interrupt ends what is running. `Immediate` is the greater of the two.
///
/// There is no third: whoever handles both has handled everything, so this enum can be matched without `_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Finish the step that is running, write the checkpoint, begin nothing new.
    Graceful = 1,
    /// Stop now: drop the model's stream, kill tools and their process groups.
    Immediate = 2,
}

impl Mode {
    pub(super) const fn level(self) -> u8 {
        self as u8
    }

    pub(super) const fn of_level(level: u8) -> Option<Self> {
        match level {
            0 => None,
            1 => Some(Self::Graceful),
            _ => Some(Self::Immediate),
        }
    }

    /// `graceful` or `immediate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::Immediate => "immediate",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
