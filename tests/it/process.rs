//! The connector as an operator runs it: its own process, a configuration file, an environment, signals.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::{
    leash::Leash,
    scratch::{Scratch, free_port},
    wait,
};

/// What to run.
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
}

impl Launch {
    /// `o365feed` with these arguments.
    pub fn o365feed<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: env!("CARGO_BIN_EXE_o365feed").into(), args, env: Vec::new() }
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// A process of the connector. Killed on drop, and when the tests end in any other way.
pub struct Process {
    leash: Leash, // before `files`: the process ends first
    launch: Launch,
    files: Scratch,
    listen: SocketAddr,
}

impl Process {
    /// Starts `launch` in an empty directory with `config` as its `o365feed.yaml`. The address of its HTTP listener
    /// is given by the environment, as is all of `launch.env`; settings of whoever runs the tests are kept away.
    pub fn start(launch: Launch, config: &str) -> Self {
        let files = Scratch::new("process");
        fs::write(files.path().join("o365feed.yaml"), config).expect("the directory is ours");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let leash = spawn(&launch, &files, listen);
        Self { leash, launch, files, listen }
    }

    /// Starts it once more after its end: same file, environment, address and output files.
    pub fn restart(&mut self) {
        assert!(self.leash.exit_code().is_some(), "the process still runs");
        self.leash = spawn(&self.launch, &self.files, self.listen);
    }

    pub fn kill9(&mut self) {
        self.leash.signal("KILL");
        self.wait_exit(Duration::from_secs(10));
    }

    pub fn sigterm(&mut self) {
        self.leash.signal("TERM");
    }

    /// As Ctrl-C does.
    pub fn interrupt(&mut self) {
        self.leash.signal("INT");
    }

    pub fn sigstop(&mut self) {
        self.leash.signal("STOP");
    }

    pub fn sigcont(&mut self) {
        self.leash.signal("CONT");
    }

    pub fn has_ended(&mut self) -> bool {
        self.leash.exit_code().is_some()
    }

    /// Waits for the end and gives the exit code; 128 + the signal's number when one ended it. Panics when it does not come.
    pub fn wait_exit(&mut self, within: Duration) -> i32 {
        let code = self.leash.wait_exit(within);
        code.unwrap_or_else(|| panic!("the process did not end within {within:?}:\n{}", self.stderr()))
    }

    /// Returns when `condition` is true; panics with the end of stderr when the process ends before, or the time does.
    pub fn wait_until(&mut self, what: &str, within: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let mut met = false;
        wait::comes_true(within, || {
            met = condition(self);
            met || self.leash.exit_code().is_some()
        });
        let end = self.leash.exit_code().map_or(format!("{within:?} passed"), |code| format!("it ended with {code}"));
        assert!(met, "waited in vain until {what}: {end}\n{}", self.stderr());
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.files.path().join("stdout")).expect("the leash created it")
    }

    /// What it logged since the first start.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.files.path().join("stderr")).expect("the leash created it")
    }

    /// The most memory it ever had resident.
    pub fn rss_peak_bytes(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the process runs");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("proc(5): a number of kB");
        kib * 1024
    }

    /// Time on the processor, in user and kernel mode, all threads. Resolution 10 ms.
    pub fn cpu_seconds(&self) -> f64 {
        // proc(5): utime and stime are fields 14 and 15, in USER_HZ, which is 100 on every machine we build for.
        let ticks = |index: usize| self.stat(index).parse::<u32>().expect("proc(5): a number of ticks");
        f64::from(ticks(14) + ticks(15)) / 100.0
    }

    /// Whether SIGSTOP has taken effect.
    pub fn is_stopped(&self) -> bool {
        self.stat(3) == "T"
    }

    /// Status and body of `path` on the address given to its HTTP listener.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        get(self.listen, path)
    }

    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.leash.pid())).expect("the process runs")
    }

    /// A field of proc(5)'s `stat` by its number there, 3 or above: the second is a name and may hold spaces.
    fn stat(&self, field: usize) -> String {
        let stat = self.proc("stat");
        let (_, after_name) = stat.rsplit_once(')').expect("proc(5): the name is in brackets");
        after_name.split_whitespace().nth(field - 3).expect("proc(5): 52 fields").to_owned()
    }
}

fn spawn(launch: &Launch, files: &Scratch, listen: SocketAddr) -> Leash {
    let dir = files.path();
    let mut command: Command = Leash::command(&launch.program, dir, &dir.join("stdout"), &dir.join("stderr"));
    let foreign = |key: &OsString| {
        ["O365FEED_", "AZURE_", "OTEL_", "RUST_LOG"].iter().any(|p| key.to_string_lossy().starts_with(p))
    };
    for (key, _) in std::env::vars_os().filter(|(key, _)| foreign(key)) {
        command.env_remove(key);
    }
    command.env("O365FEED_HTTP__LISTEN", listen.to_string());
    command.envs(launch.env.iter().map(|(key, value)| (key, value)));
    Leash::tie(command.args(&launch.args).current_dir(dir))
}

/// Status and body of `path` at `address`.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    // HTTP/1.0, because its answer ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
