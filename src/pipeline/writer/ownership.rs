//! Partitions come and go: restored before anything of them is read, and given up before the group learns of it.

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::{Notice, Partition, Request, Writer, WriterError, owned::Owned, unannounced::Unannounced};
use crate::{
    config::StartFrom,
    domain::{Ledger, Source},
    kafka::{MissingListings, RestoreError, Restored, UnlistedSpan, partition_of, restore},
};

/// What a new owner writes before anything is listed.
pub(super) struct Beginnings {
    /// Where sources begin; written again each day, and so the sign that somebody is alive.
    pub floors: HashMap<Source, Timestamp>,
    pub lost: Option<MissingListings>,
    pub unlisted: Option<UnlistedSpan>,
}

/// How far back the service lists: seven days, less an hour (as the planner has it).
const REACH: SignedDuration = SignedDuration::from_hours(7 * 24 - 1);

/// Between two tries to read a ledger.
const RESTORE_REST: Duration = Duration::from_secs(2);

impl Writer {
    pub(super) fn assigned(&mut self, partition: i32) -> Result<(), WriterError> {
        self.epoch += 1;
        self.partitions.insert(partition, Partition::Restoring { epoch: self.epoch, early: Vec::new() });
        self.parts.health.not_ok(&condition(partition), "its ledger is being read");
        self.restore(partition, self.epoch, Duration::ZERO)
    }

    /// Reads the ledger in a thread of its own: other partitions go on publishing meanwhile.
    fn restore(&self, partition: i32, epoch: u64, rest: Duration) -> Result<(), WriterError> {
        let (settings, member) = (Arc::clone(&self.parts.settings), Arc::clone(&self.parts.member));
        let reply = self.parts.to_requests.clone();
        let started = thread::Builder::new().name(format!("restore-{partition}")).spawn(move || {
            thread::sleep(rest);
            let outcome = restore(&settings, &member, partition).map(Box::new);
            // Nobody waits for it any more when the writer has ended.
            let _ = reply.send(Request::Restored { epoch, partition, outcome });
        });
        started.map(drop).map_err(|fault| WriterError::Broken(format!("could not start a thread: {fault}")))
    }

    pub(super) fn revoked(&mut self, partitions: &[i32]) -> Result<(), WriterError> {
        self.parts.metrics.rebalances_total.inc();
        // Whatever is open was begun under the old generation, and the broker would refuse it.
        let aborted = self.abort();
        for partition in partitions {
            if let Some(Partition::Owned(owned)) = self.partitions.remove(partition) {
                owned.cancel();
                let _ = self.parts.notices.send(Notice::Lost { partition: *partition });
            }
            self.parts.health.forget(&condition(*partition));
        }
        aborted
    }

    pub(super) fn restored(
        &mut self,
        epoch: u64,
        partition: i32,
        outcome: Result<Box<Restored>, RestoreError>,
    ) -> Result<(), WriterError> {
        match self.partitions.get(&partition) {
            Some(Partition::Restoring { epoch: ours, .. }) if *ours == epoch => {}
            _ => return Ok(()), // of an assignment that is over
        }
        let restored = match outcome {
            Ok(restored) => restored,
            Err(passing) if passing.passes() => {
                warn!(partition, "could not restore, trying again: {passing}");
                self.parts.health.not_ok(&condition(partition), passing.to_string());
                return self.restore(partition, epoch, RESTORE_REST);
            }
            Err(refused) => return Err(WriterError::Refused(refused)),
        };
        let ids: usize = restored.ledgers.values().map(Ledger::ids).sum();
        info!(
            partition,
            ids,
            committed = restored.committed,
            took_ms = restored.took.as_millis(),
            "partition restored"
        );
        self.parts.metrics.ledger_restore_seconds.observe(restored.took.as_secs_f64());
        self.own(epoch, *restored)
    }

    /// The partition is known in full: its sources may be listed, and its listings read.
    fn own(&mut self, epoch: u64, restored: Restored) -> Result<(), WriterError> {
        let (partition, now) = (restored.partition, Timestamp::now());
        let beginnings = Beginnings {
            floors: self.floors(&restored, &self.sources_of(partition), now),
            lost: restored.lost.clone(),
            unlisted: restored.alive.and_then(|alive| UnlistedSpan::since(alive, now, REACH)),
        };
        // What is open began before the partition was ours.
        self.commit()?;
        if !matches!(self.partitions.get(&partition), Some(Partition::Restoring { epoch: ours, .. }) if *ours == epoch)
        {
            return Ok(());
        }
        let mut owned = Owned::new(epoch, restored);
        owned.floors = beginnings.floors.clone();
        let webhook = &self.parts.settings.webhook;
        owned.unannounced = webhook.enabled.then(|| Unannounced::new(now, webhook.missed_after));
        let before = self.partitions.insert(partition, Partition::Owned(Box::new(owned)));
        if let Some(Partition::Restoring { early, .. }) = before {
            early.into_iter().for_each(|(offset, listing)| self.read(partition, offset, listing));
        }
        // Durable before anything is listed: a later start must not take a later beginning.
        while self.is_owned(partition, epoch) {
            let aborts = self.aborts;
            let written = self.write_beginnings(partition, &beginnings);
            self.survive(written)?;
            self.commit()?;
            if self.aborts == aborts {
                self.parts.member.resume(partition);
                self.parts.health.ok(&condition(partition));
                // A floor out of reach is none: what passed before it was told long ago.
                let near = |floor: &Timestamp| Some(*floor).filter(|floor| now - REACH < *floor);
                let sources = beginnings.floors.iter().map(|(source, floor)| (*source, near(floor))).collect();
                let _ = self.parts.notices.send(Notice::Taken { partition, sources });
                break;
            }
        }
        Ok(())
    }

    pub(super) fn is_owned(&self, partition: i32, epoch: u64) -> bool {
        matches!(self.partitions.get(&partition), Some(Partition::Owned(owned)) if owned.epoch == epoch)
    }

    /// Where each source begins: as first written to the ledger, or as the settings say now.
    fn floors(&self, restored: &Restored, sources: &[Source], now: Timestamp) -> HashMap<Source, Timestamp> {
        let first = match self.parts.settings.listing.start_from {
            StartFrom::Earliest => Timestamp::UNIX_EPOCH,
            StartFrom::Now => now,
            StartFrom::At(time) => time,
        };
        let floor = |source| match self.parts.settings.listing.start_from {
            // Asking for all there is means it, whatever was asked for at first.
            StartFrom::Earliest => first,
            _ => restored.began.get(source).copied().unwrap_or(first),
        };
        sources.iter().map(|source| (*source, floor(source))).collect()
    }

    fn sources_of(&self, partition: i32) -> Vec<Source> {
        let count = self.parts.settings.kafka.partitions;
        self.sources.iter().filter(|source| partition_of(source.tenant, count) == partition).copied().collect()
    }
}

/// The name of a partition's condition on `/readyz`.
pub(super) fn condition(partition: i32) -> String {
    format!("partition {partition}")
}
