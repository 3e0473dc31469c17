//! A folder with a file for each content. A file that is there under its own name is complete.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Seek, Write},
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
        fs::create_dir_all(path).map_err(|fault| named(path, &fault))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn has(&self, tenant: TenantId, content_id: &str) -> bool {
        self.0.join(file_name(tenant, content_id)).exists()
    }

    /// Begins a file; what an interrupted run left of it goes.
    ///
    /// # Errors
    /// When it cannot be written, or another process is at it.
    pub(super) fn begin(&self, tenant: TenantId, content_id: &str) -> io::Result<Unfinished> {
        let name = file_name(tenant, content_id);
        let (written_as, name) = (self.0.join(format!("{name}.part")), self.0.join(name));
        // Not truncated before it is ours.
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&written_as);
        let file = opened.map_err(|fault| named(&written_as, &fault))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(format!("{}: another process is writing it", written_as.display())));
            }
            Err(TryLockError::Error(fault)) => return Err(named(&written_as, &fault)),
        }
        let mut unfinished = Unfinished { file: BufWriter::new(file), written_as, name };
        unfinished.begin_again()?;
        Ok(unfinished)
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
        let mut file = folder.begin(tenant(1), "c").unwrap();
        file.write(b"half of a longer").unwrap();
        drop(file);
        assert!(!folder.has(tenant(1), "c") && scratch.names()[0].ends_with(".part"));
        let mut file = folder.begin(tenant(1), "c").unwrap();
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
        let mut file = folder.begin(tenant(1), "c").unwrap();
        file.write(b"x").unwrap();
        assert!(folder.begin(tenant(1), "c").err().unwrap().to_string().contains("another process"));
        file.abandon();
        assert_eq!(scratch.names(), Vec::<String>::new());
    }
}
