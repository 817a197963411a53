//! Command line arguments: flags and options are taken out one by one, and what is left over at the end is an error.

use crate::report::Problem;

/// The words after the verb that nobody has asked for yet.
#[derive(Debug)]
pub(crate) struct Args {
    words: Vec<String>,
}

impl Args {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// Whether `name` was given; takes it out.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() != before
    }

    /// The value of `name VALUE` or `name=VALUE`; takes both out.
    pub(crate) fn option(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let with_equals = format!("{name}=");
        let Some(at) = self
            .words
            .iter()
            .position(|word| word == name || word.starts_with(&with_equals))
        else {
            return Ok(None);
        };
        let word = self.words.remove(at);
        if let Some(value) = word.strip_prefix(&with_equals) {
            return Ok(Some(value.to_owned()));
        }
        if at >= self.words.len() || self.words[at].starts_with("--") {
            return Err(Problem::CouldNotRun(format!("`{name}` needs a value")));
        }
        Ok(Some(self.words.remove(at)))
    }

    /// Like [`Args::option`] for a whole number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.option(name)? else {
            return Ok(None);
        };
        let number = value.parse().map_err(|_| {
            Problem::CouldNotRun(format!("`{name}` is a whole number from 0 on, `{value}` is not"))
        })?;
        Ok(Some(number))
    }

    /// All that is left, for a verb that hands it on.
    pub(crate) fn rest(self) -> Vec<String> {
        self.words
    }

    /// Refuses whatever was not taken out.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Problem::CouldNotRun(format!(
                "`{word}` is not an argument of this verb; `cargo xtask help` lists them"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn flags_and_options_are_taken_out() {
        let mut args = args("--fix --dir a --seed=7");
        assert!(args.flag("--fix"));
        assert!(!args.flag("--fix"));
        assert_eq!(args.option("--dir").unwrap().as_deref(), Some("a"));
        assert_eq!(args.number("--seed").unwrap(), Some(7));
        assert_eq!(args.number("--cases").unwrap(), None);
        assert!(args.finish().is_ok());
    }

    #[test]
    fn a_left_over_word_a_missing_value_and_a_wrong_number_are_usage_errors() {
        assert!(matches!(args("--nope").finish(), Err(Problem::CouldNotRun(_))));
        assert!(matches!(
            args("--dir").option("--dir"),
            Err(Problem::CouldNotRun(_))
        ));
        assert!(matches!(
            args("--dir --dev").option("--dir"),
            Err(Problem::CouldNotRun(_))
        ));
        assert!(matches!(
            args("--seed -1").number("--seed"),
            Err(Problem::CouldNotRun(_))
        ));
    }
}
