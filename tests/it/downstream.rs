//! What reads the topics behind us, with the settings that `deploy/` ships for it (docs/downstream.md).

mod connect; // Kafka's own clients: the console consumer, a Connect worker
mod search; // the ingest pipeline, on a search engine that runs it

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A file that is shipped, by its path from the top of the repository.
fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("could not read {}: {e}", path.display()))
}

/// All records of `docs/api/samples`, a line each, by the file's name.
fn samples() -> Vec<(String, String)> {
    let files =
        ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All", "hostile"];
    let lines = |name: &str| -> Vec<_> {
        shipped(&format!("docs/api/samples/{name}.jsonl"))
            .lines()
            .map(|line| (name.to_owned(), line.to_owned()))
            .collect()
    };
    let samples: Vec<_> = files.into_iter().flat_map(lines).collect();
    assert!(samples.len() > 80, "the samples are not there");
    samples
}

/// The class path of what `tests/downstream/{name}.xml` names, fetched when it is not there yet.
/// `O365FEED_DOWNSTREAM_JARS` names a directory that has them.
fn jars(name: &str) -> PathBuf {
    static FETCHED: OnceLock<PathBuf> = OnceLock::new();
    let all = FETCHED.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let given = env::var_os("O365FEED_DOWNSTREAM_JARS").map(PathBuf::from);
        let dir = given.unwrap_or_else(|| root.join(".x/downstream"));
        if ["kafka", "search"].iter().any(|name| !dir.join(name).join("made-of").exists()) {
            let fetched = Command::new("bash").args(["./x", "downstream-jars"]).arg(&dir).current_dir(root).output();
            let fetched = fetched.expect("could not run ./x: install bash");
            let why = String::from_utf8_lossy(&fetched.stderr);
            assert!(fetched.status.success(), "`./x downstream-jars` could not fetch what these tests run:\n{why}");
        }
        dir
    });
    all.join(name).join("*")
}
