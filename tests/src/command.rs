//! Running a tool to its end, with an error that shows what it was asked and what it said.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Runs `program` with the words of `arguments`; its standard output.
///
/// # Errors
/// It cannot be started, or ends with anything but 0: the error quotes its standard error.
pub fn run(program: &str, arguments: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    output(&mut command)
}

/// Runs a prepared command to its end; its standard output.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("starting `{shown}`"))?;
    success(&shown, output)
}

/// A command as one would type it in a shell.
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// In single quotes where a shell would read more into the word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    match word.is_empty() || !word.chars().all(plain) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word.to_owned(),
    }
}

fn success(shown: &str, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}: {}", output.status, stderr.trim());
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_what_the_tool_said() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("broken") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_command_is_shown_so_that_a_shell_would_run_it() {
        let mut command = Command::new("nextest");
        command.args(["--lib", "-E", "binary(/^a/) | test(b)", "it's", ""]);
        assert_eq!(show(&command), r"nextest --lib -E 'binary(/^a/) | test(b)' 'it'\''s' ''");
    }
}
