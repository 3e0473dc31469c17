//! Where records go: to standard output, or to a file for each content.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    path::Path,
};

use super::{
    folder::{Folder, Unfinished},
    line,
};
use crate::{
    api::TenantApi,
    cli::{
        feed::{Lost, Part, Patience, Unfetched, fetch},
        output::for_stdout,
    },
    domain::{Listed, RecordId, RecordRef},
};

/// A record that is longer is not brought: so much of each content that is fetched at the same time is held at most.
const LARGEST: usize = 32 << 20;

/// Takes the records of many contents at once. Whatever is written is written line by line, so none is torn apart.
pub(super) enum Sink {
    Pipe(RefCell<BufWriter<Stdout>>),
    Folder(Folder),
}

/// What became of a content.
pub(super) enum Brought {
    /// So many records, as many as it has.
    Whole(u64),
    /// It was there.
    Before,
    Missing(Unfetched),
    /// Its records are there, but for one of so many bytes.
    TooLarge(u64),
}

impl Sink {
    /// # Errors
    /// When the folder cannot be made.
    pub(super) fn new(folder: Option<&Path>) -> io::Result<Self> {
        Ok(match folder {
            Some(path) => Self::Folder(Folder::open(path)?),
            None => Self::Pipe(RefCell::new(BufWriter::with_capacity(64 << 10, io::stdout()))),
        })
    }

    /// Brings all records of a content.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) async fn bring(&self, api: &TenantApi, content: &Listed, patience: Patience) -> io::Result<Brought> {
        let brought = match self {
            Self::Pipe(out) => to_pipe(out, api, content, patience).await,
            Self::Folder(folder) => match folder.begin(api.id(), &content.content_id)? {
                Some(file) => to_file(file, api, content, patience).await,
                None => return Ok(Brought::Before),
            },
        };
        match brought {
            Ok(Lines { too_large: Some(bytes), .. }) => Ok(Brought::TooLarge(bytes)),
            Ok(Lines { records, .. }) => Ok(Brought::Whole(records)),
            Err(Lost::Taker(fault)) => Err(fault),
            Err(Lost::Content(unfetched)) => Ok(Brought::Missing(unfetched)),
        }
    }

    /// All that was written is on its way.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Pipe(out) => out.borrow_mut().flush(),
            Self::Folder(_) => Ok(()),
        }
    }
}

async fn to_pipe(
    out: &RefCell<BufWriter<Stdout>>,
    api: &TenantApi,
    content: &Listed,
    patience: Patience,
) -> Result<Lines, Lost<io::Error>> {
    let is_watched = io::stdout().is_terminal();
    let (mut printed, mut lines) = (Printed::default(), Lines::default());
    let take = |part: Part<'_>| match part {
        Part::Begins => {
            printed.begin_again();
            Ok(())
        }
        Part::Records(batch) => {
            lines.text.clear();
            batch.iter().filter(|record| printed.is_new(record.identity)).for_each(|record| lines.put(&record));
            out.borrow_mut().write_all(&for_stdout(&lines.text, is_watched))
        }
    };
    fetch(api, content, LARGEST, patience, take).await?;
    Ok(lines)
}

async fn to_file(
    mut file: Unfinished,
    api: &TenantApi,
    content: &Listed,
    patience: Patience,
) -> Result<Lines, Lost<io::Error>> {
    let mut lines = Lines::default();
    let take = |part: Part<'_>| match part {
        Part::Begins => {
            lines = Lines::default();
            file.begin_again()
        }
        Part::Records(batch) => {
            lines.text.clear();
            batch.iter().for_each(|record| lines.put(&record));
            file.write(&lines.text)
        }
    };
    let fetched = fetch(api, content, LARGEST, patience, take).await;
    // A file without one of its records is not complete.
    if fetched.is_err() || lines.too_large.is_some() {
        file.abandon();
    } else {
        file.complete().map_err(Lost::Taker)?;
    }
    fetched.map(|()| lines)
}

/// Records as lines.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    /// Since the beginning, whatever became of the text.
    records: u64,
    /// The length of a record that is not there.
    too_large: Option<u64>,
}

impl Lines {
    fn put(&mut self, record: &RecordRef<'_>) {
        match record.oversize {
            Some(bytes) => self.too_large = Some(bytes),
            None => line::put(record.bytes, &mut self.text),
        }
        self.records += 1;
    }
}

/// What was printed of a content cannot be taken back when its fetch begins again, so as much of it is passed over, in
/// whatever order it comes the next time.
#[derive(Default)]
struct Printed {
    all: HashMap<RecordId, u32>,
    /// To be passed over in this attempt.
    owed: HashMap<RecordId, u32>,
}

impl Printed {
    fn begin_again(&mut self) {
        self.owed = self.all.clone();
    }

    fn is_new(&mut self, id: RecordId) -> bool {
        if let Some(owed) = self.owed.get_mut(&id).filter(|owed| 0 < **owed) {
            *owed -= 1;
            return false;
        }
        *self.all.entry(id).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_that_begins_again_prints_what_is_left_and_keeps_repeats_within_the_content() {
        let mut printed = Printed::default();
        let mut attempt = |ids: &[u8]| {
            printed.begin_again();
            ids.iter().filter(|id| printed.is_new(RecordId([**id; 16]))).copied().collect::<Vec<u8>>()
        };
        assert_eq!(attempt(&[1, 2, 2]), [1, 2, 2]);
        assert_eq!(attempt(&[3, 2, 1, 2, 2, 4]), [3, 2, 4]);
        assert_eq!(attempt(&[1, 2, 2, 2, 3, 4]), Vec::<u8>::new());
    }
}
