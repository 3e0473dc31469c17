//! Time, processor and memory of a process, from `/proc`.

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a process used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// By the clock on the wall.
    pub seconds: f64,
    /// In user and kernel mode, all threads. Resolution 10 ms.
    pub cpu_seconds: f64,
    /// The most memory that was resident at any time.
    pub peak_bytes: u64,
}

/// How often a process is looked at; its peak is missed only if it comes in its last such moment.
const PERIOD: Duration = Duration::from_millis(5);

/// Runs `command` to its end with `input` on its standard input.
///
/// # Panics
/// When it cannot be started or fails.
pub fn run(command: &mut Command, input: &[u8]) -> Usage {
    let begun = Instant::now();
    let mut child = Held(command.stdin(Stdio::piped()).spawn().expect("could not start a process to measure"));
    child.0.stdin.take().expect("piped above").write_all(input).expect("it reads its input");
    let mut peak_bytes = 0;
    // Until it is waited for, an ended process keeps its times, and only those.
    while state(child.0.id()) != "Z" {
        peak_bytes = peak_bytes_of(child.0.id()).unwrap_or(0).max(peak_bytes);
        thread::sleep(PERIOD);
    }
    let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu_seconds(child.0.id()));
    let status = child.0.wait().expect("it is ours to wait for");
    assert!(status.success(), "what was to be measured failed: {status}");
    Usage { seconds, cpu_seconds, peak_bytes }
}

/// Processor time of the process of this name that descends from this one.
///
/// # Panics
/// When there is none.
pub fn descendant_cpu_seconds(name: &str) -> f64 {
    let processes = fs::read_dir("/proc").expect("this is Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter(|pid| comm(*pid).as_deref() == Some(name)).find(|pid| is_ours(*pid));
    cpu_seconds(found.unwrap_or_else(|| panic!("no process {name} of ours runs")))
}

/// A child that does not outlive a panic.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_ours(pid: u32) -> bool {
    let mut at = pid;
    while at > 1 {
        if at == std::process::id() {
            return true;
        }
        // Somebody else's process may end while we look.
        let Some(parent) = field(at, 4) else { return false };
        at = parent.parse().expect("proc(5): a pid");
    }
    false
}

fn comm(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

fn state(pid: u32) -> String {
    field(pid, 3).expect("nobody has waited for it")
}

fn cpu_seconds(pid: u32) -> f64 {
    // proc(5): utime and stime, in USER_HZ, which is 100 on every machine we build for.
    let ticks = |at| -> u32 { field(pid, at).expect("the process is there").parse().expect("proc(5): a number") };
    f64::from(ticks(14) + ticks(15)) / 100.0
}

fn peak_bytes_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("proc(5): a number of kB");
    Some(kib * 1_024)
}

/// A field of proc(5)'s `stat` by its number there, 3 or above; nothing when the process is gone.
fn field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number - 3).map(str::to_owned)
}
