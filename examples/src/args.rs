//! Values on the command lines of the examples.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use lexopt::ValueExt as _;

/// What the examples' mains return: the first error, as a person reads it.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs an example: exit code 0 when it is well, else 1 with the error and its causes on standard error.
#[expect(clippy::print_stderr, reason = "a program's error goes to standard error")]
pub fn report(result: Outcome<std::process::ExitCode>) -> std::process::ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprint!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            std::process::ExitCode::FAILURE
        }
    }
}

/// The value of an option, parsed; an error names the option.
pub fn value<T>(option: &str, parser: &mut lexopt::Parser) -> Outcome<T>
where
    T: FromStr,
    T::Err: Display,
{
    let text = parser.value()?.string()?;
    text.parse().map_err(|error: T::Err| {
        // Our own names say their value themselves, numbers do not.
        let error = error.to_string();
        let value = if error.contains(&text) { String::new() } else { format!(" {text:?}") };
        format!("--{option}{value}: {error}").into()
    })
}

/// The value of an option that is one of a few words.
pub fn choice<T: Copy>(
    option: &str,
    parser: &mut lexopt::Parser,
    choices: &[(&str, T)],
) -> Outcome<T> {
    let text = parser.value()?.string()?;
    if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*choice);
    }
    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
    Err(format!("--{option}: {text:?} is none of {}", words.join(", ")).into())
}

/// The value of an option that is a duration: `500ms`, `5s`, `2m` or plain seconds (`1.5`).
pub fn duration(option: &str, parser: &mut lexopt::Parser) -> Outcome<Duration> {
    let text = parser.value()?.string()?;
    parse_duration(&text).map_err(|error| format!("--{option}: {error}").into())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c != '.' && !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{text:?} is no duration: write 500ms, 5s or plain seconds")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no duration: write 500ms, 5s or plain seconds"))?;
    Duration::try_from_secs_f64(number * scale)
        .map_err(|error| format!("{text:?} is no duration: {error}"))
}

/// The value of an option that must have been given.
pub fn required<T>(value: Option<T>, option: impl Display) -> Outcome<T> {
    value.ok_or_else(|| format!("{option} is missing").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, millis) in [
            ("500ms", 500),
            ("5s", 5_000),
            ("5", 5_000),
            ("1.5", 1_500),
            ("0.2s", 200),
            ("2m", 120_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5 s", "5h", "-1", "1e3", "NaN", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }
}
