//! What expressions are for: some records are dropped, some go to a topic of their own.

use super::{Expression, Subject};
use crate::domain::{ContentType, RecordRef};

/// What is done with records that are new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// These are not published.
    pub drop: Option<Expression>,
    /// The first whose expression matches has the record.
    pub routes: Vec<Route>,
}

/// Records with a topic of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its full name.
    pub topic: String,
    pub records: Expression,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// To the topic of its content type.
    Usual,
    Topic(&'a str),
    Dropped,
}

impl Filter {
    /// Whether every record goes its usual way.
    pub fn is_off(&self) -> bool {
        self.drop.is_none() && self.routes.is_empty()
    }

    /// Where a record goes. Nothing but its `Id` is known of one that was too large to hold, so no filter decides about it.
    pub fn way_of(&self, content_type: ContentType, record: &RecordRef<'_>) -> Way<'_> {
        if self.is_off() || record.oversize.is_some() {
            return Way::Usual;
        }
        let user = record.user();
        self.way(&Subject {
            content_type: Some(content_type.as_str()),
            record_type: record.record_type,
            operation: record.operation,
            workload: record.workload,
            user: user.as_deref(),
        })
    }

    /// Dropping wins over every topic.
    pub fn way(&self, subject: &Subject<'_>) -> Way<'_> {
        if self.drop.as_ref().is_some_and(|drop| drop.matches(subject)) {
            return Way::Dropped;
        }
        let route = self.routes.iter().find(|route| route.records.matches(subject));
        route.map_or(Way::Usual, |route| Way::Topic(&route.topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_wins_then_the_first_route_that_matches() {
        let expression = |text| Expression::parse(text).unwrap();
        let route = |topic: &str, text| Route { topic: topic.to_owned(), records: expression(text) };
        let filter = Filter {
            drop: Some(expression("operation = a")),
            routes: vec![route("one", "operation in (a, b)"), route("two", "operation in (b, c) or user = u")],
        };
        let way = |operation, user| filter.way(&Subject { operation, user, ..Subject::default() });
        assert_eq!(way(Some("A"), Some("u")), Way::Dropped);
        assert_eq!(way(Some("b"), None), Way::Topic("one"));
        assert_eq!(way(Some("c"), None), Way::Topic("two"));
        assert_eq!(way(None, Some("u")), Way::Topic("two"));
        assert_eq!(way(None, None), Way::Usual);
        assert_eq!(way(Some("d"), Some("v")), Way::Usual);
        assert!(!filter.is_off() && Filter::default().is_off());
        assert_eq!(Filter::default().way(&Subject::default()), Way::Usual);
    }
}
