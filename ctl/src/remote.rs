//! `-H USER@HOST`: the same command there, over ssh.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use crate::{Exit, Failure};

/// What ssh itself ends with when it cannot connect.
const SSH_FAILED: i32 = 255;

/// Runs `ringctl` with these arguments, `-H` and its value removed, on `host`.
pub fn run(host: &str, arguments: Vec<OsString>) -> Result<Exit, Failure> {
    if host.is_empty() || host.starts_with('-') {
        return Err(Failure::BadInput(format!("`{host}` is no USER@HOST")));
    }
    let status = Command::new("ssh")
        .args(["--", host])
        .arg(command_line(arguments)?)
        .status()
        .map_err(|error| Failure::Missing(format!("cannot run ssh: {error}")))?;
    match status.code() {
        Some(SSH_FAILED) | None => Err(Failure::Missing(format!("ssh to {host} failed"))),
        Some(code) => Ok(Exit::Remote(u8::try_from(code).unwrap_or(u8::MAX))),
    }
}

/// One word for the shell on the other side.
fn command_line(arguments: Vec<OsString>) -> Result<OsString, Failure> {
    let mut words = vec![b"ringctl".to_vec()];
    words.extend(without_host(arguments).iter().map(|word| word.as_bytes().to_vec()));
    let line = shlex::bytes::try_join(words.iter().map(Vec::as_slice))
        .map_err(|_| Failure::BadInput("an argument holds a NUL byte".to_owned()))?;
    Ok(OsStr::from_bytes(&line).to_owned())
}

/// The arguments without `-H HOST`, `-HHOST`, `--host HOST` and `--host=HOST`. No other option begins so, and clap
/// has already refused an option's value that looks like an option; after `--` there are no options.
fn without_host(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut kept = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            kept.push(argument);
            kept.extend(rest);
            break;
        }
        let bytes = argument.as_bytes();
        if argument == "-H" || argument == "--host" {
            rest.next();
        } else if !bytes.starts_with(b"-H") && !bytes.starts_with(b"--host=") {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> String {
        command_line(arguments.iter().map(OsString::from).collect()).unwrap().into_string().unwrap()
    }

    #[test]
    fn the_host_is_taken_out_wherever_it_stands() {
        for arguments in
            [&["-H", "a@b", "status"][..], &["status", "-H", "a@b"], &["-Ha@b", "status"], &["--host=a@b", "status"]]
        {
            assert_eq!(line(arguments), "ringctl status");
        }
        assert_eq!(line(&["set", "add", "jail", "--", "-H"]), "ringctl set add jail -- -H");
    }

    #[test]
    fn the_shell_over_there_sees_each_argument_whole() {
        let hostile = "it's $(reboot); `x` \\ \"y\"\nz *";
        let line = line(&["-H", "h", "deny", "192.0.2.1", "--reason", hostile, ""]);
        let output = Command::new("sh").args(["-c", &line.replacen("ringctl", "printf '%s|'", 1)]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("deny|192.0.2.1|--reason|{hostile}||"));
    }
}
