//! What a look inside a content found: how many of its records are accounted for, and which are not.

use std::{collections::HashSet, sync::Arc};

use super::{Counts, Known};
use crate::domain::{Batch, ContentKey, Listed, RecordId};

/// A content, and what was found in it.
#[derive(Clone, Debug)]
pub struct Looked {
    pub content: Arc<Listed>,
    pub inside: Inside,
}

#[derive(Clone, Debug)]
pub enum Inside {
    /// Nobody looked: what the topics say of its id decides.
    Unopened,
    Read(Opened),
    /// It could not be had, and this is why.
    Unreadable(String),
}

/// The records of a content, each counted once.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    pub(super) accounted: Counts,
    pub(super) strays: Vec<Stray>,
    /// All so far; empty once everything was read.
    seen: HashSet<RecordId>,
}

/// A record that nothing accounted for when it was looked at. The topics may know it a moment later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub identity: RecordId,
    /// Its `Id`, when it has a usable one.
    pub id: Option<String>,
    /// `CreationTime` in seconds since 1970.
    pub created: Option<i64>,
    /// In bytes.
    pub size: u64,
}

impl Opened {
    /// Takes some of the content's records.
    pub fn take(&mut self, known: &Known, content: &ContentKey, batch: &Batch) {
        for record in batch.iter().filter(|record| self.seen.insert(record.identity)) {
            let size = record.oversize.unwrap_or(record.bytes.len() as u64);
            match known.fate_of(content, record.identity, size) {
                Some(verdict) => self.accounted.add(verdict, 1),
                None => self.strays.push(Stray {
                    identity: record.identity,
                    id: record.key.map(str::to_owned),
                    created: record.created,
                    size,
                }),
            }
        }
    }

    /// The content was read to its end.
    #[must_use]
    pub fn whole(self) -> Inside {
        Inside::Read(Self { seen: HashSet::new(), ..self })
    }

    pub fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }
}
