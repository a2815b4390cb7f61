//! The words after a subcommand: flags, options with a value, positionals. A command takes what it knows and
//! calls [`Args::finish`], which refuses the rest.

use crate::failure::{Failure, Result};

/// The words not yet taken.
#[derive(Debug)]
pub(crate) struct Args {
    words: Vec<String>,
}

impl Args {
    /// Takes over the words after the subcommand.
    pub(crate) fn new(words: &[String]) -> Self {
        Self { words: words.to_vec() }
    }

    /// Whether the flag is there; takes it.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() != before
    }

    /// The value of `--name VALUE` or `--name=VALUE`; takes both words.
    pub(crate) fn option(&mut self, name: &str) -> Result<Option<String>> {
        let prefix = format!("{name}=");
        let Some(at) = self.words.iter().position(|word| word == name || word.starts_with(&prefix)) else {
            return Ok(None);
        };
        let word = self.words.remove(at);
        if let Some(value) = word.strip_prefix(&prefix) {
            return Ok(Some(value.to_owned()));
        }
        if at >= self.words.len() || self.words[at].starts_with("--") {
            return Err(Failure::new(format!("{name} needs a value")));
        }
        Ok(Some(self.words.remove(at)))
    }

    /// The first word that is not an option; takes it.
    pub(crate) fn positional(&mut self) -> Option<String> {
        let at = self.words.iter().position(|word| !word.starts_with('-'))?;
        Some(self.words.remove(at))
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Failure::new(format!("unexpected argument {word:?}"))
                .hint("add --help to the command to see what it takes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn takes_flags_options_and_positionals_in_any_order() {
        let mut args = args("--full gguf --seconds 5 --only=rust");
        assert!(args.flag("--full"));
        assert!(!args.flag("--full"));
        assert_eq!(args.option("--seconds").unwrap().as_deref(), Some("5"));
        assert_eq!(args.option("--only").unwrap().as_deref(), Some("rust"));
        assert_eq!(args.positional().as_deref(), Some("gguf"));
        assert!(args.finish().is_ok());
    }

    #[test]
    fn refuses_what_nobody_took_and_a_missing_value() {
        assert!(args("--ful").finish().unwrap_err().to_string().contains("--ful"));
        assert!(args("--only").option("--only").is_err());
        assert!(args("--only --full").option("--only").is_err());
    }
}
