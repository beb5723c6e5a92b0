use std::error::Error;
use std::fmt;

/// An error with its causes on one line, as a log or a person reads it.
///
/// ```
/// use aegis_core::Chain;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("cannot write the log")]
/// struct NoLog(#[source] std::io::Error);
///
/// let error = NoLog(std::io::Error::other("the disk is full"));
/// assert_eq!(error.to_string(), "cannot write the log"); // an error does not repeat its cause
/// assert_eq!(Chain::new(&error).to_string(), "cannot write the log: the disk is full");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl<'a> Chain<'a> {
    /// Wraps an error; nothing is copied.
    pub fn new(error: &'a (dyn Error + 'static)) -> Self {
        Self(error)
    }
}

/// The error and its causes, joined by colons; a cause whose text the one before ends with is left out, since some
/// errors repeat their cause.
impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[track_caller]
    fn check(texts: &[&'static str], expected: &str) {
        let link = |source: Option<Link>, text: &&'static str| {
            Some(Link { text, source: source.map(Box::new) })
        };
        let error = texts.iter().rev().fold(None, link).unwrap();
        assert_eq!(Chain::new(&error).to_string(), expected);
    }

    #[test]
    fn causes_follow_and_are_said_once() {
        check(&["a"], "a");
        check(&["a", "b", "c"], "a: b: c");
        check(&["cannot a: b", "b", "c"], "cannot a: b: c");
    }
}
