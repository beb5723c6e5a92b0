// For the programs of the quickstart: the documentation's test starts itself again as the program that is shown.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A program of the guide; killed when dropped.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env("NO_COLOR", "1")
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let errors = send.clone();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let err = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || err.lines().map_while(Result::ok).try_for_each(|line| errors.send(line)));
        Self { child, lines }
    }

    /// The next line that has this in it, from there on.
    pub fn line_with(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(20)) {
            if let Some(at) = line.find(text) {
                return line[at..].to_owned();
            }
            seen.push(line);
        }
        panic!("it never printed {text:?}, but {seen:#?}");
    }

    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Waits for its end, which has to be a good one.
    pub fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    /// Waits for its end, which has to be that of a program that failed.
    pub fn fail(mut self) {
        assert_eq!(self.child.wait().unwrap().code(), Some(1));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
