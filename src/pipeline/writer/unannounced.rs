//! Contents that polling found and no notification has named yet. It holds no clock.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::domain::{ContentKey, Listing, Origin, Source};

/// Contents at once; those beyond are not counted, because a webhook that is so far behind is seen without them.
const MOST: usize = 100_000;

/// What the content ids of notifications may end with, where those of listings do not (docs/api/contract.md 3.5).
const FROM_NOTIFICATION: &str = "$IsFromNotification";

/// Which contents the webhook owes us.
#[derive(Debug)]
pub struct Unannounced {
    /// What was created before is none of ours: who owned the tenant then may have been told of it.
    since: Timestamp,
    patience: SignedDuration,
    waiting: HashSet<(Source, ContentKey)>,
    /// Named before polling found them; as many as there may be in `due`, oldest first.
    told: HashSet<(Source, ContentKey)>,
    told_in_order: VecDeque<(Source, ContentKey)>,
    /// When each is overdue, in order of time. One that was named meanwhile is not in `waiting` any more.
    due: VecDeque<(Timestamp, Source, ContentKey)>,
}

impl Unannounced {
    pub fn new(since: Timestamp, patience: Duration) -> Self {
        let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
        Self {
            since,
            patience,
            waiting: HashSet::new(),
            told: HashSet::new(),
            told_in_order: VecDeque::new(),
            due: VecDeque::new(),
        }
    }

    /// A listing was read; `is_first`: of a content that was neither settled nor waiting.
    pub fn read(&mut self, listing: &Listing, is_first: bool, now: Timestamp) {
        let (source, id) = (listing.content.source, &listing.content.content_id);
        let id = id.find(FROM_NOTIFICATION).map_or(id.as_str(), |end| &id[..end]);
        let key = ContentKey::of(id);
        if listing.origin == Origin::Webhook {
            if !self.waiting.remove(&(source, key)) {
                self.remember((source, key));
            }
        } else if is_first
            && !self.told.contains(&(source, key))
            && self.since <= listing.content.created
            && self.due.len() < MOST
        {
            self.waiting.insert((source, key));
            self.due.push_back((now.saturating_add(self.patience).unwrap_or(Timestamp::MAX), source, key));
        }
    }

    /// The id of a notification may differ from that of the listing, so the listing may look like a first one.
    fn remember(&mut self, told: (Source, ContentKey)) {
        if self.told.insert(told) {
            self.told_in_order.push_back(told);
        }
        if MOST < self.told_in_order.len()
            && let Some(oldest) = self.told_in_order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }

    /// Takes the sources of contents that are overdue, one for each content.
    pub fn missed(&mut self, now: Timestamp) -> Vec<Source> {
        let mut missed = Vec::new();
        while let Some((_, source, key)) = self.due.front().copied().filter(|(at, ..)| *at <= now) {
            self.due.pop_front();
            if self.waiting.remove(&(source, key)) {
                missed.push(source);
            }
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{ContentType, Listed, TenantId};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    fn listing(id: &str, origin: Origin, created: Timestamp) -> Listing {
        let source = Source { tenant: TenantId(Uuid::nil()), content_type: ContentType::General };
        let content = Listed {
            source,
            content_id: id.to_owned(),
            content_uri: String::new(),
            created,
            expires: Timestamp::MAX,
            raw: Bytes::new(),
        };
        Listing { content: Arc::new(content), origin, first_listed: created, appended: created, attempts: 0 }
    }

    #[test]
    fn what_polling_found_is_missed_unless_a_notification_names_it_in_time() {
        let mut owed = Unannounced::new(at(0), HOUR);
        for (id, minute) in [("a", 1), ("b", 2), ("c", 3)] {
            owed.read(&listing(id, Origin::Follow, at(minute)), true, at(minute));
        }
        owed.read(&listing("b$IsFromNotification$6", Origin::Webhook, at(2)), false, at(30));
        assert_eq!(owed.missed(at(60)).len(), 0);
        assert_eq!(owed.missed(at(61)).len(), 1, "a");
        owed.read(&listing("a", Origin::Webhook, at(1)), false, at(62));
        assert_eq!(owed.missed(at(63)).len(), 1, "c");
        assert_eq!(owed.missed(at(1_000)).len(), 0);
    }

    #[test]
    fn what_was_told_first_or_is_older_than_the_ownership_is_not_missed() {
        let mut owed = Unannounced::new(at(10), HOUR);
        owed.read(&listing("a", Origin::Webhook, at(11)), true, at(11));
        owed.read(&listing("a", Origin::Follow, at(11)), false, at(12));
        owed.read(&listing("c$IsFromNotification", Origin::Webhook, at(11)), true, at(11));
        owed.read(&listing("c", Origin::Follow, at(11)), true, at(12));
        owed.read(&listing("b", Origin::CatchUp, at(9)), true, at(12));
        assert_eq!(owed.missed(at(1_000)).len(), 0);
    }
}
