//! How far sources are listed, in the ledger; and what of them never can be, in the gaps. Both in one transaction, so
//! that whoever comes next neither misses a span nor names it twice.

use jiff::{SignedDuration, Timestamp};

use super::{Partition, Writer, WriterError};
use crate::{
    domain::Source,
    kafka::{Entry, EntryKind, TransactionError, UnlistedSpan},
    pipeline::desk::Progress,
};

/// What the lister of a source told, and what of it is written.
#[derive(Debug)]
pub struct SourceProgress {
    /// What owners before us had listed. We list it again, but nothing of it is late.
    began: Timestamp,
    listed_to: Timestamp,
    written: Timestamp,
    /// Not yet written.
    lost: Vec<UnlistedSpan>,
}

/// Listing that went well is written so often. After a crash the time since counts as unlisted only when it has left the
/// API's reach by then.
const EVERY: SignedDuration = SignedDuration::from_hours(1);

impl SourceProgress {
    pub fn starting(listed: Timestamp) -> Self {
        Self { began: listed, listed_to: listed, written: listed, lost: Vec::new() }
    }

    pub fn made(&mut self, progress: Progress) {
        self.listed_to = progress.listed_to;
        self.lost.extend(progress.lost);
    }

    /// Everything before it was listed, by us or by an owner before us, or told as lost.
    pub fn listed_to(&self) -> Timestamp {
        self.began.max(self.listed_to)
    }

    /// What is in the ledger.
    pub fn written(&self) -> Timestamp {
        self.written
    }

    fn is_due(&self) -> bool {
        // Backwards too: a clock that was wrong has been put right.
        !self.lost.is_empty() || EVERY <= self.listed_to.duration_since(self.written).abs()
    }
}

/// What is about to be written of one source.
struct Due {
    partition: i32,
    epoch: u64,
    source: Source,
    listed_to: Timestamp,
    lost: Vec<UnlistedSpan>,
}

impl Writer {
    pub(super) fn write_progress(&mut self) -> Result<(), WriterError> {
        let due = self.due();
        if due.is_empty() {
            return Ok(());
        }
        let aborts = self.aborts;
        for due in &due {
            let written = self.write_due(due);
            self.survive(written)?;
            if self.aborts != aborts {
                // What was written is rolled back, and is due again the next time.
                return Ok(());
            }
        }
        self.commit()?;
        if self.aborts == aborts {
            due.iter().for_each(|due| self.is_written(due));
        }
        Ok(())
    }

    fn due(&self) -> Vec<Due> {
        let mut all = Vec::new();
        for (partition, state) in &self.partitions {
            let Partition::Owned(owned) = state else { continue };
            all.extend(owned.progress.iter().filter(|(_, progress)| progress.is_due()).map(|(source, progress)| Due {
                partition: *partition,
                epoch: owned.epoch,
                source: *source,
                listed_to: progress.listed_to,
                lost: progress.lost.clone(),
            }));
        }
        all
    }

    fn write_due(&mut self, due: &Due) -> Result<(), TransactionError> {
        self.open_for_sending()?;
        // The open may have found that the partition is not ours any more.
        if !self.is_owned(due.partition, due.epoch) {
            return Ok(());
        }
        due.lost.iter().try_for_each(|span| self.tell_unlisted(due.source, *span))?;
        self.send_listed(due.source, due.partition, due.listed_to)
    }

    fn is_written(&mut self, due: &Due) {
        if let Some(Partition::Owned(owned)) = self.partitions.get_mut(&due.partition)
            && owned.epoch == due.epoch
            && let Some(progress) = owned.progress.get_mut(&due.source)
        {
            progress.written = due.listed_to;
            // Nothing was told meanwhile: requests are taken by this thread.
            progress.lost.clear();
        }
    }

    /// The entry that says how far a source is listed.
    pub(super) fn send_listed(&self, source: Source, partition: i32, to: Timestamp) -> Result<(), TransactionError> {
        let entry = Entry {
            group: &self.parts.settings.kafka.group,
            content_type: source.content_type,
            content_id: "",
            kind: EntryKind::Listed { to },
            ids: Vec::new().into(),
        };
        self.send_entry(source.tenant, partition, &entry)
    }
}
