//! Words to options, as the popt library reads them: long options in one word (`--weight=5`) or two, short
//! ones glued (`-Ln`, `-w5`, `-w=5`), words that are no options kept aside, `--` ends the options.
//!
//! Deliberately absent: abbreviated long options and option aliases from files, which the classic tool
//! lacks or nobody uses.

use crate::option::{OPTIONS, Opt, Takes};

/// An option as found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) meaning: crate::option::Meaning,
    pub(crate) argument: Option<&'a str>,
    /// The last word this option used; messages quote it.
    pub(crate) word: &'a str,
}

/// Why a word is no option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanError<'a> {
    Unknown(&'a str),
    MissingArgument(&'a str),
    UnwantedArgument(&'a str),
}

impl<'a> ScanError<'a> {
    /// The word as typed and what is wrong with it.
    pub(crate) fn parts(&self) -> (&'a str, &'static str) {
        match self {
            Self::Unknown(word) => (word, "unknown option"),
            Self::MissingArgument(word) => (word, "missing argument"),
            Self::UnwantedArgument(word) => (word, "option does not take an argument"),
        }
    }
}

/// Reads the words of one command line from left to right.
pub(crate) struct Scanner<'a> {
    words: &'a [String],
    next: usize,
    /// The word whose glued short options are being read, and the rest of it.
    glued: Option<(&'a str, &'a str)>,
    /// Words that are no options, in order.
    pub(crate) left_over: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(words: &'a [String]) -> Self {
        Self { words, next: 0, glued: None, left_over: Vec::new() }
    }

    /// The next option; `None` at the end of the words.
    pub(crate) fn next_option(&mut self) -> Option<Result<Found<'a>, ScanError<'a>>> {
        if let Some((word, rest)) = self.glued.take() {
            return Some(self.short(word, rest));
        }
        while let Some(word) = self.take_word() {
            if word == "--" {
                while let Some(word) = self.take_word() {
                    self.left_over.push(word);
                }
            } else if let Some(long) = word.strip_prefix("--") {
                return Some(self.long(word, long));
            } else if let Some(short) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
                return Some(self.short(word, short));
            } else {
                self.left_over.push(word);
            }
        }
        None
    }

    fn take_word(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn long(&mut self, word: &'a str, text: &'a str) -> Result<Found<'a>, ScanError<'a>> {
        let (name, joined) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let option = OPTIONS.iter().find(|o| o.long == name).ok_or(ScanError::Unknown(word))?;
        if option.takes == Takes::Nothing && joined.is_some() {
            return Err(ScanError::UnwantedArgument(word));
        }
        self.finish(option, word, joined)
    }

    /// Reads one short option from `text`, the rest of `word`, which is not empty.
    fn short(&mut self, word: &'a str, text: &'a str) -> Result<Found<'a>, ScanError<'a>> {
        let mut characters = text.chars();
        let letter = characters.next();
        let rest = characters.as_str();
        let option = OPTIONS
            .iter()
            .find(|o| o.short.is_some() && o.short == letter)
            .ok_or(ScanError::Unknown(word))?;
        if option.takes == Takes::Nothing {
            if rest.starts_with('=') {
                return Err(ScanError::UnwantedArgument(word));
            }
            self.glued = (!rest.is_empty()).then_some((word, rest));
            return self.finish(option, word, None);
        }
        let glued = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        self.finish(option, word, glued)
    }

    fn finish(
        &mut self,
        option: &Opt,
        word: &'a str,
        argument: Option<&'a str>,
    ) -> Result<Found<'a>, ScanError<'a>> {
        let meaning = option.meaning;
        if option.takes == Takes::Nothing || argument.is_some() {
            return Ok(Found { meaning, argument, word });
        }
        let optional = option.takes == Takes::MaybeWord;
        let starts_option = self.words.get(self.next).is_none_or(|w| w.starts_with('-'));
        if optional && starts_option {
            return Ok(Found { meaning, argument: None, word });
        }
        let argument = self.take_word().ok_or(ScanError::MissingArgument(word))?;
        Ok(Found { meaning, argument: Some(argument), word: argument })
    }
}
