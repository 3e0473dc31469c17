//! Directories, ports and names that no other test and no other test run has.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
    time::SystemTime,
};

/// A directory under the system's temporary one, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = env::temp_dir().join(unique(name));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("could not create {}: {e}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leash may have removed it already; what stays behind must not fail a test that passed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `name` made unlike every other, fit for a topic, a group, a `transactional.id` and a file.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    // The time as well as the pid: a broker that outlives the run has seen this pid before.
    let (seconds, count) = (since_epoch.as_secs(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("o365it-{seconds:x}-{:x}-{count}-{name}", process::id())
}

/// A port of 127.0.0.1 on which nothing listens.
///
/// It lies below the range from which the kernel serves outgoing connections: there a client that
/// calls a stopped broker again and again can be given the broker's own port, and keep it.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs side by side begin far apart, because neighbouring pids do.
    let start = (process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 12,000 ports is free")
}
