//! Child processes that cannot outlive the tests, even when those are killed.
//! A shell holds the child and reads from a pipe that only the test process can write to; when the
//! pipe ends, for whatever reason, the shell kills the child and removes its files.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use crate::wait;

/// Arguments: the directory of the child's files, where its stdout and stderr go, the child's command.
const KEEPER: &str = r#"
dir=$1 out=$2 err=$3
shift 3
: >>"$out" 2>>"$err"
exec 3<&0
"$@" </dev/null >>"$out" 2>>"$err" 3<&- &
child=$!
echo "$child"
(read -r line <&3; : >"$dir/orphan"; kill -KILL "$child") >/dev/null 2>&1 &
watch=$!
wait "$child"
code=$?
kill -KILL "$watch" 2>/dev/null
[ ! -e "$dir/orphan" ] || rm -rf "$dir"
exit "$code"
"#;

/// A running child. Dropping it kills the child and removes the directory of its files.
pub struct Leash {
    keeper: Child,
    /// Held apart from `keeper`, whose `wait` would close it.
    line: Option<ChildStdin>,
    pid: u32,
}

impl Leash {
    /// A command for [`Leash::tie`] that runs `program`; add arguments and environment to it.
    /// Its output is appended to the files `out` and `err`.
    pub fn command(program: impl AsRef<OsStr>, dir: &Path, out: &Path, err: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).args([dir, out, err]).arg(program);
        // A group of its own: Ctrl-C at the terminal ends the tests, and the pipe then ends the rest.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Starts what [`Leash::command`] described.
    pub fn tie(command: &mut Command) -> Self {
        let mut keeper = command.spawn().expect("sh is there");
        let line = keeper.stdin.take();
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().expect("piped above"))
            .read_line(&mut pid)
            .expect("the keeper writes a line");
        let pid = pid.trim().parse().expect("the keeper writes the child's pid");
        Self { keeper, line, pid }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by its name without `SIG`. Panics when the child is gone.
    pub fn signal(&mut self, name: &str) {
        assert_eq!(self.exit_code(), None, "could not send {name}: the process has ended with this code");
        let sent = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &self.pid.to_string()]).output();
        assert!(sent.expect("sh is there").status.success(), "could not send {name}: the process has ended");
    }

    /// How the child ended, as a shell tells it (128 + number of the signal), or `None` while it runs.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.keeper.try_wait().expect("the keeper is ours to wait for")?;
        Some(status.code().expect("nobody kills the keeper"))
    }

    /// Like [`Leash::exit_code`], but waits for the end. `None` when it did not come `within` the time.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let mut code = None;
        wait::comes_true(within, || {
            code = self.exit_code();
            code.is_some()
        });
        code
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.line.take());
        let _ = self.keeper.wait();
    }
}
