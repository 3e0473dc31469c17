//! The one thread that publishes: it owns the producer, the ledgers and the backlogs of our partitions, and so decides
//! alone what is new. Fetched records come in, transactions go out. Everything in here may block; nothing is async.

mod intake; // the records of a batch, one by one
mod outcome; // how a fetch that ended is settled or tried again
mod owned; // a partition that is ours
mod ownership; // partitions come and go
mod progress; // how far sources are listed
mod publish; // records, ledger entries and gaps into the open transaction
mod tally; // what the open transaction will have done, for the metrics
mod transaction; // open, commit, abort
mod unannounced; // what the webhook owes
mod upkeep; // gauges, forgetting, moving, pausing

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, select};
use jiff::Timestamp;
use rdkafka::error::KafkaError;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use self::{owned::Owned, ownership::condition, transaction::Transaction};
use super::{
    desk::{Progress, Wanted},
    fetch::{Job, Work},
    list::SourceStart,
};
use crate::{
    config::Settings,
    domain::{AttemptId, ContentKey, ContentType, Listing, Origin, Source, TenantId, Want},
    http::Health,
    kafka::{Member, MemberEvent, Publisher, RestoreError, Restored, partition_of, refuses},
    telemetry::Metrics,
};

/// Names one fetch of one content by one ownership of its partition. What it names may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub partition: i32,
    pub epoch: u64,
    pub attempt: AttemptId,
}

/// What others ask of the writer.
#[derive(Debug)]
pub enum Request {
    Restored {
        epoch: u64,
        partition: i32,
        outcome: Result<Box<Restored>, RestoreError>,
    },
    Wanted {
        source: Source,
        contents: Vec<ContentKey>,
        origin: Origin,
        reply: oneshot::Sender<Option<Wanted>>,
    },
    Unclaim {
        source: Source,
        contents: Vec<ContentKey>,
    },
    Progress {
        source: Source,
        progress: Progress,
    },
    /// Start nothing new; come to an end within this time.
    Drain(Duration),
}

/// What the writer tells whoever runs the listers.
#[derive(Debug)]
pub enum Notice {
    /// The partition is restored: list these sources, none before its floor.
    Taken {
        partition: i32,
        sources: Vec<(Source, SourceStart)>,
    },
    Lost {
        partition: i32,
    },
}

/// Why the writer ended.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// Begin anew with a new producer, a new member and everything restored (docs/exactly-once.md, rule 10).
    #[error("begin anew: {0}")]
    Broken(String),
    /// Like [`Self::Broken`], unless it comes again at once: then another instance has our slot. Once, it may be the end
    /// of a transaction that timed out, or a member that a broker took for two after an outage.
    #[error("fenced: {0}")]
    Fenced(String),
    #[error(transparent)]
    Refused(RestoreError),
    #[error("Kafka refuses this user: {0}; docs/kafka.md lists the rights that it needs")]
    Unauthorised(String),
}

/// Since when the step of a commit that is going on has been going on.
#[derive(Clone, Debug, Default)]
pub struct Committing(Arc<Mutex<Option<Instant>>>);

impl Committing {
    fn begins(&self) {
        self.set(Some(Instant::now()));
    }

    fn over(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// For how long the step has been going on; `None` when none is.
    pub fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}

/// Everything a writer is made of.
pub struct Parts {
    pub settings: Arc<Settings>,
    pub metrics: Metrics,
    pub health: Health,
    pub member: Arc<Member>,
    pub publisher: Publisher,
    pub events: Receiver<MemberEvent>,
    pub requests: Receiver<Request>,
    /// For the threads that restore.
    pub to_requests: Sender<Request>,
    pub work: Receiver<Work>,
    pub jobs: mpsc::UnboundedSender<Job>,
    pub notices: mpsc::UnboundedSender<Notice>,
    /// What the watchdog looks at.
    pub committing: Committing,
}

pub struct Writer {
    parts: Parts,
    /// Of the tenants in the settings, their names in metrics.
    names: HashMap<TenantId, String>,
    sources: HashSet<Source>,
    partitions: BTreeMap<i32, Partition>,
    epoch: u64,
    open: Option<Transaction>,
    /// Transactions opened so far.
    opened: i64,
    aborts: u64,
    aborts_in_a_row: u32,
    /// The largest record that is sent; smaller than the setting only after a topic refused one.
    record_limit: usize,
    /// Fetches that one tenant may have at once.
    share: usize,
    draining: Option<Instant>,
    /// When the group last told of trouble that passes.
    troubled: Option<Instant>,
    upkeep: upkeep::Rhythm,
    /// What ended the writer in the midst of a step that could only abort.
    ended: Option<WriterError>,
}

enum Partition {
    /// Nothing is read yet, but should a listing come all the same, it must not be lost.
    Restoring {
        epoch: u64,
        early: Vec<(i64, Option<Listing>)>,
    },
    Owned(Box<Owned>),
}

/// Work items taken between two looks at rebalances and requests.
const TURN: usize = 64;

/// Fetches handed out beyond those that run, so that the pool is not idle while a commit is waited for.
const AHEAD: usize = 4;

impl Writer {
    pub fn new(parts: Parts) -> Self {
        let tenants = &parts.settings.tenants;
        let names = tenants.iter().map(|tenant| (tenant.id, tenant.name.clone())).collect();
        let sources = tenants
            .iter()
            .flat_map(|tenant| {
                tenant.content_types.iter().map(|kind| Source { tenant: tenant.id, content_type: *kind })
            })
            .collect();
        let record_limit = parts.settings.kafka.max_record_bytes;
        let share = parts.settings.fetch.concurrency * AHEAD;
        Self {
            parts,
            names,
            sources,
            partitions: BTreeMap::new(),
            epoch: 0,
            open: None,
            opened: 0,
            aborts: 0,
            aborts_in_a_row: 0,
            record_limit,
            share,
            draining: None,
            troubled: None,
            upkeep: upkeep::Rhythm::default(),
            ended: None,
        }
    }

    /// Works until it is drained.
    ///
    /// # Errors
    /// See [`WriterError`].
    pub fn run(&mut self) -> Result<(), WriterError> {
        let ended = self.work_until_drained();
        for (partition, state) in &self.partitions {
            if let Partition::Owned(owned) = state {
                owned.cancel();
            }
            self.parts.health.forget(&condition(*partition));
        }
        ended
    }

    fn work_until_drained(&mut self) -> Result<(), WriterError> {
        loop {
            self.parts.health.beat("writer");
            self.take_events()?;
            self.take_requests()?;
            self.commit_if_due()?;
            if self.is_drained() {
                return self.commit();
            }
            self.dispatch();
            self.keep_up()?;
            self.wait_and_work()?;
        }
    }

    /// Waits for whatever comes first, and takes a turn's worth of fetched records.
    fn wait_and_work(&mut self) -> Result<(), WriterError> {
        let work = self.parts.work.clone();
        let patience = self.patience();
        select! {
            recv(work) -> item => {
                if let Ok(item) = item { self.take_work(item)?; }
                for item in work.try_iter().take(TURN) { self.take_work(item)?; }
            }
            recv(self.parts.events) -> event => if let Ok(event) = event { self.take_event(event)? },
            recv(self.parts.requests) -> request => if let Ok(request) = request { self.take_request(request)? },
            default(patience) => {}
        }
        Ok(())
    }

    /// Until the next commit, retry or look at the clock.
    fn patience(&self) -> Duration {
        let due = self.open.as_ref().map(|open| open.due_in(self.parts.settings.kafka.commit_interval));
        let now = Timestamp::now();
        let wakeups = self.owned().filter_map(|owned| owned.backlog.next_wakeup());
        // What is due and has no place in the pool waits for a fetch that ends, and that wakes us anyway.
        let retry = wakeups
            .filter(|at| now < *at)
            .min()
            .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let longest = Duration::from_millis(500);
        due.into_iter().chain(retry).fold(longest, Duration::min).max(Duration::from_millis(1))
    }

    fn take_work(&mut self, item: Work) -> Result<(), WriterError> {
        let outcome = match item {
            Work::Records { ticket, batch, memory, large } => {
                let published = self.publish(ticket, &batch);
                drop((batch, memory, large));
                published
            }
            Work::Ended { ticket, ended } => self.settle(ticket, ended),
        };
        self.survive(outcome)?;
        self.commit_if_due()
    }

    /// All rebalances and listings that are known by now.
    fn take_events(&mut self) -> Result<(), WriterError> {
        // Those that come meanwhile wait for the next look: reading must not keep us from pausing.
        for _ in 0..self.parts.events.len() {
            let Ok(event) = self.parts.events.try_recv() else { break };
            self.take_event(event)?;
        }
        Ok(())
    }

    fn take_event(&mut self, event: MemberEvent) -> Result<(), WriterError> {
        match event {
            MemberEvent::Assigned(partitions) => {
                self.parts.metrics.rebalances_total.inc();
                return partitions.into_iter().try_for_each(|partition| self.assigned(partition));
            }
            MemberEvent::Revoked(partitions) => return self.revoked(&partitions),
            MemberEvent::Listing { partition, offset, listing } => self.read(partition, offset, listing),
            MemberEvent::Joined => {
                self.parts.health.ok("kafka");
                self.parts.health.ok("partitions");
            }
            MemberEvent::Trouble(why) => {
                let servers = &self.parts.settings.kafka.bootstrap_servers;
                self.parts.health.not_ok("kafka", format!("{servers}: {why}"));
                self.troubled = Some(Instant::now());
            }
            MemberEvent::Stuck(partition) => {
                let why = format!("partition {partition} of the listings has more than the broker gives us");
                return Err(WriterError::Broken(why));
            }
            MemberEvent::Fatal(cause) => return Err(self.refused_by_group(&cause)),
        }
        Ok(())
    }

    fn refused_by_group(&self, cause: &KafkaError) -> WriterError {
        match refuses(cause) {
            true => WriterError::Unauthorised(cause.to_string()),
            false => WriterError::Fenced(cause.to_string()),
        }
    }

    fn take_requests(&mut self) -> Result<(), WriterError> {
        while let Ok(request) = self.parts.requests.try_recv() {
            self.take_request(request)?;
        }
        Ok(())
    }

    fn take_request(&mut self, request: Request) -> Result<(), WriterError> {
        match request {
            Request::Restored { epoch, partition, outcome } => return self.restored(epoch, partition, outcome),
            Request::Wanted { source, contents, origin, reply } => {
                // The lister may have been stopped meanwhile.
                let _ = reply.send(self.wanted(source, &contents, origin));
            }
            Request::Unclaim { source, contents } => {
                if let Some(owned) = self.owner_of(source) {
                    contents.iter().for_each(|key| owned.unclaim(source, *key));
                }
            }
            Request::Progress { source, progress } => {
                if let Some(owned) = self.owner_of(source) {
                    owned.made(source, progress);
                }
            }
            Request::Drain(within) => self.draining = Some(Instant::now() + within),
        }
        Ok(())
    }

    fn wanted(&mut self, source: Source, contents: &[ContentKey], origin: Origin) -> Option<Wanted> {
        let recheck = self.parts.settings.fetch.recheck;
        let owned = self.owner_of(source)?;
        Some(owned.wanted(source, contents, origin, recheck))
    }

    fn owner_of(&mut self, source: Source) -> Option<&mut Owned> {
        let partition = partition_of(source.tenant, self.parts.settings.kafka.partitions);
        match self.partitions.get_mut(&partition) {
            Some(Partition::Owned(owned)) => Some(owned),
            _ => None,
        }
    }

    /// A message of the listings topic was read.
    fn read(&mut self, partition: i32, offset: i64, listing: Option<Listing>) {
        let recheck = self.parts.settings.fetch.recheck;
        let ours = listing.filter(|listing| {
            let source = listing.content.source;
            let known = self.sources.contains(&source)
                && partition_of(source.tenant, self.parts.settings.kafka.partitions) == partition;
            if !known {
                warn!(%source, partition, offset, "passed over a listing of a source that is not in the settings");
            }
            known
        });
        match (self.partitions.get_mut(&partition), ours) {
            (Some(Partition::Owned(owned)), Some(listing)) => {
                owned.read(offset, listing, recheck);
                if upkeep::ENOUGH <= owned.backlog.unsettled_len() && !owned.paused {
                    owned.paused = true;
                    self.parts.member.pause(partition);
                }
            }
            (Some(Partition::Owned(owned)), None) => owned.backlog.read_to(offset + 1),
            (Some(Partition::Restoring { early, .. }), ours) => early.push((offset, ours)),
            (None, _) => {} // not ours any more
        }
    }

    /// Hands out fetches, partitions in turn, until the pool has enough.
    fn dispatch(&mut self) {
        if self.draining.is_some() {
            return;
        }
        let now = Timestamp::now();
        let most = self.parts.settings.fetch.concurrency * AHEAD;
        let share = self.share;
        let jobs = self.parts.jobs.clone();
        let mut in_flight: usize = self.owned().map(|owned| owned.running.len()).sum();
        for (partition, state) in &mut self.partitions {
            let Partition::Owned(owned) = state else { continue };
            while in_flight < most {
                let running = &owned.running_of;
                let next = owned
                    .backlog
                    .start_next(now, |source| running.get(&source.tenant).copied().unwrap_or_default() < share);
                let Some(attempt) = next else { break };
                in_flight += 1;
                let tenant = self.names.get(&attempt.listing.content.source.tenant).map_or("", String::as_str);
                let job = owned.start(*partition, &attempt, tenant);
                // The pool ends only after the writer.
                let _ = jobs.send(job);
            }
        }
    }

    /// Fetches that one tenant may have at once: all when it is alone, else so many that a throttled one leaves room.
    fn share_of_a_tenant(&self) -> usize {
        let concurrency = self.parts.settings.fetch.concurrency;
        let busy: HashSet<TenantId> = self
            .sources
            .iter()
            .filter(|source| self.owned().any(|owned| owned.backlog.waiting(source) > 0))
            .map(|source| source.tenant)
            .collect();
        match busy.len() {
            _ if self.names.len() == 1 => concurrency * AHEAD,
            // Room for another, should this one be throttled for an hour.
            0 | 1 => (concurrency * 3 / 4).max(1),
            tenants => (concurrency / tenants).max(1),
        }
    }

    /// Whether nothing is going on any more, or the time for it is over. What was published of a content that is still
    /// being fetched is committed as it is; the rest comes with the next start.
    fn is_drained(&self) -> bool {
        self.draining.is_some_and(|deadline| {
            deadline <= Instant::now()
                || (self.owned().all(|owned| owned.running.is_empty()) && self.parts.work.is_empty())
        })
    }

    fn owned(&self) -> impl Iterator<Item = &Owned> {
        self.partitions.values().filter_map(|state| match state {
            Partition::Owned(owned) => Some(&**owned),
            Partition::Restoring { .. } => None,
        })
    }

    /// The attempt that a ticket names, if it still means anything.
    fn current(&mut self, ticket: Ticket) -> Option<&mut Owned> {
        current(&mut self.partitions, ticket)
    }

    /// The tenant's name in metrics.
    fn labels(&self, source: Source) -> [&str; 2] {
        let name = self.names.get(&source.tenant).map_or("", String::as_str);
        [name, ContentType::as_str(source.content_type)]
    }
}

/// The partition of the attempt that a ticket names, if it still means anything.
fn current(partitions: &mut BTreeMap<i32, Partition>, ticket: Ticket) -> Option<&mut Owned> {
    match partitions.get_mut(&ticket.partition) {
        Some(Partition::Owned(owned)) if owned.epoch == ticket.epoch && owned.running.contains_key(&ticket.attempt) => {
            Some(owned)
        }
        _ => None,
    }
}

/// Whether a content is fetched for more than its first time.
fn is_second_look(want: Want) -> bool {
    matches!(want, Want::Recheck | Want::GapAgain)
}
