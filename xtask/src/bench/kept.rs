//! What is kept of a benchmark, in `docs/results`.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

/// What one run measured.
pub(crate) struct Run {
    pub(crate) command: String,
    pub(crate) seconds: u64,
    /// How it was measured.
    pub(crate) facts: Value,
    pub(crate) lines: Vec<Value>,
    pub(crate) details: Vec<Value>,
}

/// The file's contents after a run.
///
/// A long benchmark is run in parts, so what another run measured of the same commit, on the same machine and in the same
/// way stays, unless this one measured it too.
pub(crate) fn after(before: Option<&Value>, workspace: &Path, run: &Run) -> Value {
    let conditions = json!({
        "commit": said_by(workspace, "git", &["rev-parse", "--short=12", "HEAD"]),
        "machine": said_by(workspace, "uname", &["-srm"]),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "how": run.facts,
    });
    merged(before, &conditions, run)
}

fn merged(before: Option<&Value>, conditions: &Value, run: &Run) -> Value {
    let same = |before: &&Value| {
        let kept = |(name, condition): (&String, &Value)| before.get(name) == Some(condition);
        conditions.as_object().is_some_and(|conditions| conditions.iter().all(kept))
    };
    let before = before.filter(same);
    let list =
        |name: &str| before.and_then(|it| it.get(name)?.as_array().cloned()).unwrap_or_default();
    let mut commands = list("commands");
    let command = Value::from(run.command.clone());
    commands.retain(|it| *it != command);
    commands.push(command);
    let took = before.and_then(|it| it.get("took_seconds")?.as_u64()).unwrap_or_default();
    let mut result = conditions.as_object().cloned().unwrap_or_default();
    result.insert("commands".to_owned(), commands.into());
    result.insert("took_seconds".to_owned(), (took + run.seconds).into());
    result.insert("results".to_owned(), joined(list("results"), &run.lines));
    result.insert("detail".to_owned(), joined(list("detail"), &run.details));
    Value::Object(result)
}

/// Both lists; what is of the same subject becomes one, in which the new figures count.
fn joined(mut old: Vec<Value>, new: &[Value]) -> Value {
    for new in new {
        match old.iter_mut().find(|old| subject(old) == subject(new)) {
            Some(old) => overlay(old, new),
            None => old.push(new.clone()),
        }
    }
    old.into()
}

/// What is not measured but said.
fn subject(line: &Value) -> Map<String, Value> {
    let said = |(name, value): &(&String, &Value)| value.is_string() || *name == "in_flight";
    let line = line.as_object().into_iter().flatten().filter(said);
    line.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn overlay(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, new) in new {
                overlay(old.entry(name.clone()).or_insert(Value::Null), new);
            }
        }
        (old, new) => *old = new.clone(),
    }
}

fn said_by(workspace: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(workspace).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, runtime: &str, ratios: &Value) -> Run {
        let line = json!({ "bench": "busy", "runtime": runtime, "throughput_ratio": ratios });
        Run {
            command: command.to_owned(),
            seconds: 2,
            facts: json!({ "rounds": 7 }),
            lines: vec![line],
            details: Vec::new(),
        }
    }

    #[test]
    fn parts_of_a_benchmark_add_up_and_the_later_one_counts() {
        let conditions = json!({ "commit": "a" });
        let first = run("one", "x", &json!({ "20us": { "16": 1.0 }, "2ms": { "16": 1.0 } }));
        let second = run("two", "x", &json!({ "2ms": { "16": 2.0 } }));
        let third = run("three", "y", &json!({ "2ms": { "16": 3.0 } }));
        let kept =
            [&second, &third].into_iter().fold(merged(None, &conditions, &first), |before, run| {
                merged(Some(&before), &conditions, run)
            });
        let ratios = |index: usize| kept.get("results")?.get(index)?.get("throughput_ratio");
        let both = json!({ "20us": { "16": 1.0 }, "2ms": { "16": 2.0 } });
        assert_eq!(ratios(0), Some(&both));
        assert_eq!(ratios(1), Some(&json!({ "2ms": { "16": 3.0 } })));
        assert_eq!(kept.get("took_seconds"), Some(&json!(6)));
        assert_eq!(kept.get("commands"), Some(&json!(["one", "two", "three"])));
    }

    #[test]
    fn nothing_is_kept_of_another_commit() {
        let old = merged(None, &json!({ "commit": "a" }), &run("one", "x", &json!({ "2ms": 1.0 })));
        let new = run("two", "y", &json!({ "2ms": 2.0 }));
        let kept = merged(Some(&old), &json!({ "commit": "b" }), &new);
        assert_eq!(kept.get("results"), Some(&Value::from(new.lines)));
    }
}
