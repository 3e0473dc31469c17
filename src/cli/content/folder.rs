//! A folder with a file for each content. A file that is there under its own name is complete.
//! What is created here is its owner's alone to read: records say who did what.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, BufWriter, ErrorKind, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::domain::{ContentKey, TenantId};

/// Where the files are.
pub(super) struct Folder(PathBuf);

/// A file that is being written: under another name, and no other process writes it.
pub(super) struct Unfinished {
    file: BufWriter<File>,
    written_as: PathBuf,
    name: PathBuf,
}

/// As much of a content id as a file's name shows.
const SHOWN: usize = 120;

impl Folder {
    /// Creates the folder if it is not there.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|fault| named(path, &fault))?;
        Ok(Self(path.to_owned()))
    }

    fn has(&self, tenant: TenantId, content_id: &str) -> bool {
        self.0.join(file_name(tenant, content_id)).exists()
    }

    /// Begins a file; what an interrupted run left of it goes. `None`: it is there already, and complete.
    ///
    /// # Errors
    /// When it cannot be written, or another process is at it.
    pub(super) fn begin(&self, tenant: TenantId, content_id: &str) -> io::Result<Option<Unfinished>> {
        let name = file_name(tenant, content_id);
        let (written_as, name) = (self.0.join(format!("{name}.part")), self.0.join(name));
        // Each turn after the first, another process has just completed or abandoned the file.
        while !self.has(tenant, content_id) {
            let Some(file) = opened(&written_as).map_err(|fault| named(&written_as, &fault))? else { continue };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::other(format!("{}: another process is writing it", written_as.display())));
                }
                Err(TryLockError::Error(fault)) => return Err(named(&written_as, &fault)),
            }
            if is_still(&file, &written_as).map_err(|fault| named(&written_as, &fault))? {
                let mut unfinished = Unfinished { file: BufWriter::new(file), written_as, name };
                unfinished.begin_again()?;
                return Ok(Some(unfinished));
            }
        }
        Ok(None)
    }
}

/// The file, new or left by an interrupted run, and not truncated before it is ours. `None`: it went in this moment.
///
/// A link is not followed: whoever may write to the folder could have us overwrite any file of ours.
fn opened(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => return Ok(Some(file)),
        Err(fault) if fault.kind() == ErrorKind::AlreadyExists => {}
        Err(fault) => return Err(fault),
    }
    let found = fs::symlink_metadata(path).and_then(|found| match found.is_file() {
        true => OpenOptions::new().write(true).open(path),
        false => Err(io::Error::other("is no file; take it away")),
    });
    match found {
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Whether the name still leads to this file. Between our opening and our lock another process may have given it its own
/// name, and then it is complete and not to be touched.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(false),
        Err(fault) => Err(fault),
    }
}

impl Unfinished {
    /// Forgets what was written.
    pub(super) fn begin_again(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.get_ref().set_len(0)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).map_err(|fault| named(&self.written_as, &fault))
    }

    /// Gives the file its own name, once all of it is on the disk.
    pub(super) fn complete(mut self) -> io::Result<()> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(|fault| named(&self.written_as, &fault))?;
        fs::rename(&self.written_as, &self.name).map_err(|fault| named(&self.name, &fault))
    }

    /// Takes away what could not be completed.
    pub(super) fn abandon(self) {
        // What stays is overwritten by the next run.
        let _ = fs::remove_file(&self.written_as);
    }
}

fn named(path: &Path, fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), format!("{}: {fault}", path.display()))
}

/// The content id as far as any file system takes it, and a hash that keeps apart what would look alike.
fn file_name(tenant: TenantId, content_id: &str) -> String {
    let harmless =
        |letter: char| if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_') { letter } else { '_' };
    let shown: String = content_id.chars().map(harmless).take(SHOWN).collect();
    let key = ContentKey::of(&format!("{tenant}/{content_id}")).0;
    let hash: String = key[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{shown}-{hash}.ndjson")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("o365feed-folder-{}", Uuid::from_u128(rand::random()))))
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn any_content_id_has_a_file_of_its_own_in_the_folder() {
        let ids = [
            "1$2",
            "1_2",
            "1$2$",
            "../../etc/passwd",
            "..",
            "",
            "a\0b",
            "A",
            "a",
            "ü",
            "NUL",
            &"x".repeat(9_999),
            "con.txt",
        ];
        let names: HashSet<String> = ids.iter().map(|id| file_name(tenant(1), id).to_lowercase()).collect();
        assert_eq!(names.len(), ids.len());
        for name in &names {
            assert!(name.len() < 200 && !name.starts_with('.') && !name.contains(['/', '\\', '\0', '$']), "{name}");
        }
        assert_ne!(file_name(tenant(1), "1$2"), file_name(tenant(2), "1$2"));
    }

    #[test]
    fn only_a_complete_file_has_its_own_name() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.0).unwrap();
        let mut file = folder.begin(tenant(1), "c").unwrap().unwrap();
        file.write(b"half of a longer").unwrap();
        drop(file);
        assert!(!folder.has(tenant(1), "c") && scratch.names()[0].ends_with(".part"));
        let mut file = folder.begin(tenant(1), "c").unwrap().unwrap();
        file.write(b"wrong").unwrap();
        file.begin_again().unwrap();
        file.write(b"all").unwrap();
        file.complete().unwrap();
        assert!(folder.has(tenant(1), "c"));
        let names = scratch.names();
        assert_eq!((names.len(), fs::read(scratch.0.join(&names[0])).unwrap()), (1, b"all".to_vec()));
    }

    #[test]
    fn what_failed_leaves_nothing_and_two_do_not_write_one_file() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.0).unwrap();
        let mut file = folder.begin(tenant(1), "c").unwrap().unwrap();
        file.write(b"x").unwrap();
        assert!(folder.begin(tenant(1), "c").err().unwrap().to_string().contains("another process"));
        file.abandon();
        assert_eq!(scratch.names(), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_got_its_own_name_before_our_lock_is_left_alone() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.0).unwrap();
        let mut theirs = folder.begin(tenant(1), "c").unwrap().unwrap();
        let written_as = theirs.written_as.clone();
        let ours = opened(&written_as).unwrap().unwrap();
        assert!(is_still(&ours, &written_as).unwrap());
        theirs.write(b"all").unwrap();
        theirs.complete().unwrap();
        ours.try_lock().unwrap();
        assert!(!is_still(&ours, &written_as).unwrap(), "it is the complete file");
        fs::write(&written_as, b"").unwrap();
        assert!(!is_still(&ours, &written_as).unwrap(), "another has the name");
        assert!(folder.begin(tenant(1), "c").unwrap().is_none());
        assert_eq!(fs::read(scratch.0.join(file_name(tenant(1), "c"))).unwrap(), b"all");
    }

    #[test]
    fn what_is_created_is_for_its_owner_and_a_link_is_not_followed() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.0.join("a/b")).unwrap();
        let file = folder.begin(tenant(1), "c").unwrap().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&scratch.0.join("a")), mode(&file.written_as)), (0o700, 0o700, 0o600));
        let written_as = file.written_as.clone();
        file.abandon();
        let other = scratch.0.join("precious");
        // Neither a file that is there nor one that is not.
        for content in [Some(b"precious"), None] {
            content.map_or_else(|| fs::remove_file(&other), |bytes| fs::write(&other, bytes)).unwrap();
            std::os::unix::fs::symlink(&other, &written_as).unwrap();
            assert!(folder.begin(tenant(1), "c").err().unwrap().to_string().contains("is no file"));
            assert_eq!(fs::read(&other).ok().as_deref(), content.map(|bytes| &bytes[..]));
            fs::remove_file(&written_as).unwrap();
        }
    }
}
