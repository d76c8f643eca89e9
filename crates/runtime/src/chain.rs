//! An error with its causes on one line.
//!
//! Error types of this project never repeat their cause in `Display`; this is the one place that walks the
//! chain.

use std::error::Error;
use std::fmt;
use std::io::Write as _;

/// Causes shown at most; a longer chain is cut with `...` (a chain that loops must not hang the program).
const CAUSES_MAX: usize = 32;

/// Displays an error as `what: cause: cause of the cause`.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        for _ in 0..CAUSES_MAX {
            let Some(cause) = next else { return Ok(()) };
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        if next.is_some() { f.write_str(": ...") } else { Ok(()) }
    }
}

/// Writes `error: a: b: c` to standard error; where that is the journal, with the priority of an error.
pub fn print_error(error: &(dyn Error + '_)) {
    let text = format!("error: {}", Chain(error));
    if crate::logging::is_journal() {
        tell(format_args!("<3>{}", text.replace('\n', "\n<3>")));
    } else {
        tell(text);
    }
}

/// Writes a line to standard error. Where that is full, or its reader has gone, nobody is left to tell, which is no failure of
/// its own: unlike `eprintln!` this does not panic then.
pub fn tell(text: impl fmt::Display) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open /nowhere")]
    struct Middle(#[source] std::io::Error);

    /// An error that is its own cause.
    #[derive(Debug)]
    struct Loop;

    impl fmt::Display for Loop {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }

    impl Error for Loop {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Loop)
        }
    }

    #[test]
    fn every_cause_is_named_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        assert_eq!(Chain(&Outer(Middle(io))).to_string(), "cannot start: cannot open /nowhere: no such file");
    }

    #[test]
    fn a_looping_chain_ends() {
        let text = Chain(&Loop).to_string();
        assert_eq!(text.matches("again").count(), CAUSES_MAX + 1);
        assert!(text.ends_with(": ..."));
    }
}
