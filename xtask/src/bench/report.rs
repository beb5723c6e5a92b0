//! What a benchmark says, and where it is kept.

use std::fmt;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::BenchError;
use super::kept::{self, Run};
use super::options::Options;

/// A benchmark that runs.
pub(crate) struct Report<'a> {
    bench: &'static str,
    workspace: &'a Path,
    options: &'a Options,
    started: Instant,
    lines: Vec<Value>,
    details: Vec<Value>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(bench: &'static str, workspace: &'a Path, options: &'a Options) -> Self {
        Self {
            bench,
            workspace,
            options,
            started: Instant::now(),
            lines: Vec::new(),
            details: Vec::new(),
        }
    }

    /// Takes a line of JSON; they are printed when all is measured. What it is made of is only kept.
    pub(crate) fn add(&mut self, line: Value, details: Vec<Value>) {
        self.lines.push(line);
        self.details.extend(details);
    }

    /// Prints the lines if that was asked for, and keeps them beside the code that they are of.
    ///
    /// `facts` say how it was measured.
    pub(crate) fn finish(self, facts: &Value) -> Result<(), BenchError> {
        if self.options.json {
            self.lines.iter().for_each(print);
        }
        if self.options.save { self.save(facts) } else { Ok(()) }
    }

    fn save(self, facts: &Value) -> Result<(), BenchError> {
        let directory = self.workspace.join("docs").join("results");
        let path = directory.join(self.bench).with_extension("json");
        let run = Run {
            command: format!("cargo xtask bench {} {}", self.bench, self.options.said),
            seconds: self.started.elapsed().as_secs(),
            facts: facts.clone(),
            lines: self.lines,
            details: self.details,
        };
        // One that is not there, or of another form, is written anew.
        let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let result = kept::after(before.as_ref(), self.workspace, &run);
        let failed = |source| BenchError::Write { path: path.display().to_string(), source };
        fs::create_dir_all(&directory).map_err(failed)?;
        fs::write(&path, format!("{result:#}\n")).map_err(failed)
    }
}

#[expect(clippy::print_stdout, reason = "a command talks to its user")]
pub(crate) fn print(line: &(impl fmt::Display + ?Sized)) {
    println!("{line}");
}

/// Shows what is being done, on a line of a terminal that the next one takes the place of; elsewhere it is not shown.
pub(crate) fn progress(doing: &(impl fmt::Display + ?Sized)) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // A terminal that is gone reads nothing.
        drop(write!(terminal, "\r\x1b[K{doing}").and_then(|()| terminal.flush()));
    }
}
