//! The container image, as far as it can be seen without an engine: its steps, run in an empty root, and what they are fed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::{Launch, Process},
    scratch::Scratch,
    world::PATIENCE,
};

/// Who the image runs as.
const NOBODY: &str = "65532:65532";
/// What `gcr.io/distroless/cc-debian12` has, of all that a program may be linked with.
const LIBRARIES: [&str; 5] =
    ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];
/// Where that base has its certificate authorities.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
/// The time of the commit, as the Dockerfile is told it.
const COMMITTED: i64 = 1_700_000_000;

#[test]
fn the_program_runs_as_nobody_in_a_root_with_nothing_but_its_libraries() {
    let files = Scratch::new("image");
    let root = files.path();
    lay(root);
    assert_eq!(
        everything(root),
        ["etc/o365feed", "usr/bin/o365feed", "usr/share/doc/o365feed/LICENSE", "usr/share/sbom/o365feed.cdx.json"]
    );
    for path in below(root) {
        let laid = fs::metadata(&path).unwrap();
        let path = path.display();
        assert_eq!(
            laid.mode() & 0o022,
            0,
            "{path} can be written to: the root is not read-only for whoever runs the image"
        );
        assert_eq!(laid.mtime(), COMMITTED, "{path} has the time of the build: another build gives another image");
    }

    base(root);
    let settings = root.join("etc/o365feed/o365feed.yaml");
    fs::copy(of_project("deploy/compose/o365feed.yaml"), settings).unwrap();
    let secret = root.join("run/secrets/client_secret");
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    fs::copy(of_project("deploy/compose/client_secret"), secret).unwrap();
    let (code, told, _) = within(root, &["version"]);
    assert_eq!((code, told.starts_with("o365feed ")), (0, true), "{told}");
    let (code, told, fault) = within(root, &["config", "check", "--config", "/etc/o365feed/o365feed.yaml"]);
    assert_eq!((code, told.starts_with("ok: 1 tenant, 5 sources, kafka kafka:9092")), (0, true), "{told}{fault}");
    let (code, told, fault) = within(root, &["demo", "--for", "3s"]);
    assert_eq!((code, told.contains(" 0 missing, 0 duplicate, 0 gaps")), (0, true), "{told}{fault}");
    let (code, _, fault) = within(root, &["healthcheck", "--config", "/etc/o365feed/o365feed.yaml"]);
    assert_eq!((code, fault.contains("no answer from http://127.0.0.1:")), (1, true), "{fault}");
}

#[test]
fn both_stages_have_the_same_debian_and_the_versions_are_those_of_the_project() {
    let dockerfile = read("Dockerfile");
    let from = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    // Without the digest that whoever builds may have pinned, and the stage's name.
    let from: Vec<&str> = from.map(|base| base.split(['@', ' ']).next().unwrap()).collect();
    let [build, last] = from[..] else { panic!("two stages: {from:?}") };
    // The program takes the glibc of where it runs, which must not be older than where it was linked. Bookworm is Debian 12.
    assert!(build.starts_with("rust:") && build.ends_with("-bookworm"), "{build}");
    assert_eq!(last, "gcr.io/distroless/cc-debian12:nonroot");
    let rust: Vec<u32> = numbers(build.split([':', '-']).nth(1).unwrap());
    assert!(rust >= numbers(env!("CARGO_PKG_RUST_VERSION")), "{build} is older than Cargo.toml allows");

    let label = |name: &str| {
        let rest = dockerfile.split(&format!("org.opencontainers.image.{name}=\"")).nth(1).expect(name);
        rest.split('"').next().unwrap().to_owned()
    };
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("base.name"), last);
    assert!(dockerfile.contains(&format!("\nUSER {NOBODY}\n")));
    let image = format!("image: o365feed:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(read("docker-compose.yml").contains(&image), "docker-compose.yml does not have {image}");
}

/// What is not in the context cannot be compiled into the program.
#[test]
fn the_build_is_given_every_file_that_the_program_is_made_of() {
    let ignore = read(".dockerignore");
    let let_in: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), "everything else stays outside");
    for path in &let_in {
        assert!(of_project(path).exists(), "{path} is not there");
    }
    let mut needed: BTreeSet<PathBuf> =
        ["Cargo.toml", "Cargo.lock", "LICENSE", "deploy/image/lay.sh", "benches/clean.rs"]
            .map(|name| of_project(name).canonicalize().unwrap())
            .into();
    for source in
        everything(&of_project("src")).iter().filter(|path| path.ends_with(".rs") && !path.ends_with("tests.rs"))
    {
        let source = of_project("src").join(source);
        let text = fs::read_to_string(&source).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap();
        for included in program.split("include_str!(\"").skip(1) {
            let path = source.parent().unwrap().join(included.split('"').next().unwrap());
            needed.insert(path.canonicalize().unwrap_or_else(|_| panic!("{} is not there", path.display())));
        }
    }
    assert!(needed.len() > 8, "what is compiled in is not found any more: {needed:?}");
    for path in needed {
        let is_let_in = let_in.iter().any(|entry| path.starts_with(of_project(entry).canonicalize().unwrap()));
        assert!(is_let_in, "{} is not in the context", path.display());
    }
}

/// What the Dockerfile does, with the program that is there.
fn lay(root: &Path) {
    let sbom = root.with_extension("sbom");
    fs::write(&sbom, "{}").unwrap();
    let mut lay = Command::new("sh");
    lay.env("SOURCE_DATE_EPOCH", COMMITTED.to_string());
    lay.arg("deploy/image/lay.sh").arg(env!("CARGO_BIN_EXE_o365feed")).arg(&sbom).arg(root);
    let done = lay.current_dir(of_project(".")).status().unwrap();
    fs::remove_file(sbom).unwrap();
    assert!(done.success());
}

/// What the image's base has and the program needs.
fn base(root: &Path) {
    let linked = Command::new("ldd").arg(env!("CARGO_BIN_EXE_o365feed")).output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    // `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)`; the first is the kernel's and no file.
    let paths = linked.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let mut count = 0;
    for path in paths {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        assert!(LIBRARIES.contains(&name), "{name} is not in the image's base");
        copy(Path::new(path), &root.join(path.trim_start_matches('/')));
        count += 1;
    }
    assert!(count >= 3, "{linked}");
    copy(&Path::new("/").join(AUTHORITIES), &root.join(AUTHORITIES));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap_or_else(|e| panic!("could not copy {}: {e}", from.display()));
}

/// Exit code, standard output and standard error of the program in `root`, as [`NOBODY`] where that is allowed.
fn within(root: &Path, args: &[&str]) -> (i32, String, String) {
    let mut launch = Launch::o365feed(args.iter().copied());
    let root = root.as_os_str().to_owned();
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let (program, before) = match is_root {
        true => ("chroot", vec![format!("--userspec={NOBODY}").into(), root]),
        false => ("unshare", vec!["--user".into(), "--map-root-user".into(), "chroot".into(), root]),
    };
    launch.program = program.into();
    launch.args.splice(0..0, before.into_iter().chain(["/usr/bin/o365feed".into()]));
    let mut process = Process::start(launch, "");
    let code = process.wait_exit(PATIENCE);
    (code, process.stdout(), process.stderr())
}

/// Files and empty directories below `directory`, in order.
fn everything(directory: &Path) -> Vec<String> {
    let found = below(directory);
    let is_empty = |path: &Path| !path.is_dir() || fs::read_dir(path).unwrap().next().is_none();
    let ends = found.iter().filter(|path| is_empty(path));
    ends.map(|path| path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned()).collect()
}

/// Files and directories below `directory`, in order.
fn below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let inner: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.extend(inner.iter().filter(|path| path.is_dir()).cloned());
        found.extend(inner);
    }
    found
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap()).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(of_project(path)).unwrap()
}

pub fn of_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
