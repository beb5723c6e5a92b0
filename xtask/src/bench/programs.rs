//! The processes of a benchmark.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::BenchError;

/// Runs cargo and shows what it says.
pub(crate) fn cargo(workspace: &Path, arguments: &[&str]) -> Result<(), BenchError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let program = format!("cargo {}", arguments.join(" "));
    let status = Command::new(cargo).args(arguments).current_dir(workspace).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(BenchError::Program { program, text: status.to_string() }),
        Err(source) => Err(BenchError::Start { program, source }),
    }
}

/// Where cargo puts what it builds.
pub(crate) fn target(workspace: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |target| workspace.join(target))
}

/// The load programs, built for speed, and their certificates; both go when this is dropped.
pub(crate) struct Programs {
    binary: PathBuf,
    directory: PathBuf,
}

impl Programs {
    /// Builds them, and makes their certificates in a directory of their own.
    pub(crate) fn build(workspace: &Path) -> Result<Self, BenchError> {
        cargo(workspace, &["build", "--quiet", "--release", "--package", "aegis-bench"])?;
        let built = target(workspace).join("release").join("aegis-bench");
        let directory = std::env::temp_dir().join(format!("aegis-bench-{}", std::process::id()));
        let programs = Self { binary: directory.join("aegis-bench"), directory };
        // What is built meanwhile is not what is measured.
        let copied = fs::create_dir_all(&programs.directory)
            .and_then(|()| fs::copy(&built, &programs.binary));
        copied.map_err(|source| BenchError::Write {
            path: programs.binary.display().to_string(),
            source,
        })?;
        programs.output(&["certs"])?;
        Ok(programs)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--certs").arg(&self.directory);
        command
    }

    /// Runs one to its end; what it printed.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<String, BenchError> {
        let program = arguments.join(" ");
        let output = self
            .command(arguments)
            .output()
            .map_err(|source| BenchError::Start { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(BenchError::Program { program, text })
    }

    /// Runs one to its end; the JSON that it printed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value, BenchError> {
        let text = self.output(arguments)?;
        serde_json::from_str(&text).map_err(|error| BenchError::Program {
            program: arguments.join(" "),
            text: format!("it printed {text:?}: {error}"),
        })
    }

    /// Starts a client, whose end can be waited for.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Client, BenchError> {
        let program = arguments.join(" ");
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Ok(process) => Ok(Client { process, program }),
            Err(source) => Err(BenchError::Start { program, source }),
        }
    }

    /// Starts a server; it listens when this returns.
    pub(crate) fn serve(&self, system: &str, options: &[&str]) -> Result<Server, BenchError> {
        let program = format!("serve {system}");
        let failed = |source| BenchError::Start { program: program.clone(), source };
        let mut command = self.command(&["serve", system]);
        command.args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server =
            Server { process: command.spawn().map_err(failed)?, address: String::new() };
        if let Some(stdout) = server.process.stdout.take() {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
            line.trim().clone_into(&mut server.address);
        }
        if server.address.is_empty() {
            let mut text = String::new();
            if let Some(mut stderr) = server.process.stderr.take() {
                stderr.read_to_string(&mut text).map_err(failed)?;
            }
            return Err(BenchError::Program { program, text: text.trim().to_owned() });
        }
        Ok(server)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // What is left of it is a development CA that nothing trusts.
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// A server that runs until this is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn pid(&self) -> String {
        self.process.id().to_string()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        let sent = pid.map_or(Err(Errno::SRCH), |pid| kill_process(pid, signal));
        let program = format!("kill {}", self.process.id());
        sent.map_err(|errno| BenchError::Start { program, source: errno.into() })
    }

    /// Sends a signal that ends it, and waits until it has.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<(), BenchError> {
        self.signal(signal)?;
        match self.process.wait() {
            Ok(_) => Ok(()),
            Err(source) => {
                let program = format!("wait {}", self.process.id());
                Err(BenchError::Start { program, source })
            }
        }
    }
}

/// A client that runs until it ends or this is dropped.
pub(crate) struct Client {
    process: Child,
    program: String,
}

impl Client {
    /// Waits for its end; the JSON that it printed.
    pub(crate) fn end(mut self) -> Result<Value, BenchError> {
        let (mut text, mut complaint) = (String::new(), String::new());
        let failed = |source| BenchError::Start { program: self.program.clone(), source };
        if let Some(mut stdout) = self.process.stdout.take() {
            stdout.read_to_string(&mut text).map_err(failed)?;
        }
        if let Some(mut stderr) = self.process.stderr.take() {
            stderr.read_to_string(&mut complaint).map_err(failed)?;
        }
        serde_json::from_str(&text).map_err(|error| BenchError::Program {
            program: self.program.clone(),
            text: format!("it printed {text:?}: {error}; {}", complaint.trim()),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
