//! Partitions come and go: restored before anything of them is read, and given up before the group learns of it.

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    Notice, Partition, Request, Writer, WriterError, owned::Owned, progress::SourceProgress, unannounced::Unannounced,
};
use crate::{
    config::StartFrom,
    domain::{Ledger, Planner, Source},
    kafka::{MissingListings, RestoreError, Restored, partition_of, refuses, restore},
    pipeline::list::SourceStart,
};

/// What a new owner writes before anything is listed.
pub(super) struct Beginnings {
    /// Where sources begin; written again each day, or retention would drop it.
    pub floors: HashMap<Source, Timestamp>,
    /// Up to where they are listed; the same.
    pub listed: HashMap<Source, Timestamp>,
    pub lost: Option<MissingListings>,
}

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
            Err(RestoreError::Kafka(error)) if refuses(&error) => {
                let ledger = self.parts.settings.kafka.ledger_topic();
                return Err(WriterError::Unauthorised(format!("{ledger}: {error}")));
            }
            Err(RestoreError::Kafka(error)) => {
                warn!(partition, "could not read the ledger, trying again: {error}");
                self.parts.health.not_ok(&condition(partition), format!("could not read the ledger: {error}"));
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
        let reach = now - Planner::REACH;
        let floors = self.floors(&restored, &self.sources_of(partition), now);
        // A source that nobody listed before is not late: it begins. So does one that is to begin earlier than it did, and
        // one of which a clock that was wrong said something.
        let listed = |(source, floor): (&Source, &Timestamp)| {
            let began_later = restored.began.get(source).is_some_and(|began| floor < began);
            let listed = restored.listed.get(source).filter(|listed| !began_later && **listed <= now);
            (*source, listed.copied().unwrap_or_else(|| reach.max(*floor)))
        };
        let listed = floors.iter().map(listed).collect();
        let beginnings = Beginnings { floors, listed, lost: restored.lost.clone() };
        // What is open began before the partition was ours.
        self.commit()?;
        if !matches!(self.partitions.get(&partition), Some(Partition::Restoring { epoch: ours, .. }) if *ours == epoch)
        {
            return Ok(());
        }
        let mut owned = Owned::new(epoch, restored);
        owned.floors = beginnings.floors.clone();
        owned.progress =
            beginnings.listed.iter().map(|(source, at)| (*source, SourceProgress::starting(*at))).collect();
        let webhook = &self.parts.settings.webhook;
        owned.unannounced = webhook.enabled.then(|| Unannounced::new(now, webhook.missed_after));
        let before = self.partitions.insert(partition, Partition::Owned(Box::new(owned)));
        if let Some(Partition::Restoring { early, .. }) = before {
            early.into_iter().for_each(|(offset, listing)| self.read(partition, offset, listing));
        }
        // Durable before anything is listed: a later start must not take a later beginning.
        while self.is_owned(partition, epoch) {
            let aborts = self.aborts;
            let written = self.write_beginnings(partition, epoch, &beginnings);
            self.survive(written)?;
            self.commit()?;
            if self.aborts == aborts {
                self.parts.member.resume(partition);
                self.parts.health.ok(&condition(partition));
                // A floor out of reach is none: what passed before it was told long ago.
                let start = |(source, floor): (&Source, &Timestamp)| {
                    (
                        *source,
                        SourceStart { floor: Some(*floor).filter(|at| reach < *at), listed: beginnings.listed[source] },
                    )
                };
                let sources = beginnings.floors.iter().map(start).collect();
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
