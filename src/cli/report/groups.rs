//! How many of what, by whom. What is kept is a row a group, and the name of each user once.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Heading, Incoming, Page, Sum, kept};
use crate::cli::{
    Failure,
    facts::Facts,
    output::{OutputArgs, as_text, shortened, table},
};

/// What a row of `report clients` can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// ClientInfoString
    Client,
    /// UserId
    User,
    Operation,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
            Self::Operation => "operation",
        }
    }

    fn of<'a>(self, facts: &'a Facts<'_>) -> Option<&'a str> {
        match self {
            Self::Client => facts.client.as_deref(),
            Self::User => facts.user.as_deref(),
            Self::Operation => facts.operation.as_deref(),
        }
    }
}

/// A text of a record, `None` where the record has none.
type Text = Option<Box<str>>;

/// How often, and from when to when.
#[derive(Clone, Copy, Debug, Serialize)]
struct Count {
    count: u64,
    #[serde(serialize_with = "as_text")]
    first: Timestamp,
    #[serde(serialize_with = "as_text")]
    last: Timestamp,
}

impl Count {
    fn nothing_at(created: Timestamp) -> Self {
        Self { count: 0, first: created, last: created }
    }

    fn add(&mut self, created: Timestamp) {
        self.count += 1;
        self.first = self.first.min(created);
        self.last = self.last.max(created);
    }

    fn cells(&self) -> [String; 3] {
        [self.count.to_string(), second(self.first), second(self.last)]
    }
}

/// Records with a ClientInfoString.
pub(super) struct Clients {
    by: Vec<By>,
    groups: HashMap<Vec<Text>, Count>,
}

impl Clients {
    pub(super) fn by(by: Vec<By>) -> Self {
        let mut named = Vec::new();
        for column in by {
            if !named.contains(&column) {
                named.push(column);
            }
        }
        Self { by: named, groups: HashMap::new() }
    }

    pub(super) fn show(&self, output: OutputArgs, limit: Option<usize>, heading: &Heading) -> Result<usize, Failure> {
        let (rows, left_out) = ranked(self.groups.iter(), limit, |count| count.count);
        let object = |(key, count): &(&Vec<Text>, &Count)| {
            let texts = self.by.iter().zip(*key).map(|(by, text)| (by.as_str().to_owned(), text.as_deref().into()));
            let mut object: Map<String, Value> = texts.collect();
            object.insert("count".to_owned(), count.count.into());
            object.insert("first".to_owned(), count.first.to_string().into());
            object.insert("last".to_owned(), count.last.to_string().into());
            object
        };
        output.show(&Page { heading, rows: rows.iter().map(object).collect() }, |_| {
            let headings = self.by.iter().map(|by| by.as_str()).chain(["count", "first", "last"]);
            let cells = |(key, count): &(&Vec<Text>, &Count)| -> Vec<String> {
                key.iter().map(cell).chain(count.cells()).collect()
            };
            table(&headings.collect::<Vec<_>>(), rows.iter().map(cells))
        })?;
        Ok(left_out)
    }
}

impl Sum for Clients {
    const NEEDS: &'static str = "without a ClientInfoString";

    fn add(&mut self, _: &Incoming<'_>, facts: &Facts<'_>, created: Timestamp) -> bool {
        if facts.client.is_none() {
            return false;
        }
        let key = self.by.iter().map(|by| by.of(facts).map(kept)).collect();
        self.groups.entry(key).or_insert(Count::nothing_at(created)).add(created);
        true
    }
}

/// Records by what was done, and how many did it.
#[derive(Default)]
pub(super) struct Operations {
    groups: HashMap<(Box<str>, Text, Text), Doers>,
    /// The number that stands for a user in the groups.
    users: HashMap<Box<str>, u32>,
}

#[derive(Default)]
struct Doers {
    count: u64,
    users: HashSet<u32>,
}

#[derive(Serialize)]
struct OperationRow<'a> {
    operation: &'a str,
    workload: Option<&'a str>,
    record_type: Option<&'a str>,
    record_type_name: Option<&'static str>,
    count: u64,
    users: usize,
}

impl Operations {
    pub(super) fn show(&self, output: OutputArgs, limit: Option<usize>, heading: &Heading) -> Result<usize, Failure> {
        let (rows, left_out) = ranked(self.groups.iter(), limit, |doers| doers.count);
        let rows = rows.into_iter().map(|((operation, workload, record_type), doers)| OperationRow {
            operation,
            workload: workload.as_deref(),
            record_type: record_type.as_deref(),
            record_type_name: record_type.as_deref().and_then(type_name),
            count: doers.count,
            users: doers.users.len(),
        });
        output.show(&Page { heading, rows: rows.collect() }, |page| {
            let cells = |row: &OperationRow<'_>| {
                let record_type = [row.record_type, row.record_type_name];
                let record_type: Vec<&str> = record_type.into_iter().flatten().collect();
                let record_type = Some(record_type.join(" ")).filter(|text| !text.is_empty()).map(Box::from);
                [
                    shortened(row.operation),
                    cell(&row.workload.map(Box::from)),
                    cell(&record_type),
                    row.count.to_string(),
                    row.users.to_string(),
                ]
            };
            table(&["operation", "workload", "record type", "count", "users"], page.rows.iter().map(cells))
        })?;
        Ok(left_out)
    }
}

impl Sum for Operations {
    const NEEDS: &'static str = "without an Operation";

    fn add(&mut self, _: &Incoming<'_>, facts: &Facts<'_>, _: Timestamp) -> bool {
        let Some(operation) = facts.operation.as_deref() else { return false };
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(kept);
        let key = (kept(operation), text(&facts.workload), text(&facts.record_type));
        let doers = self.groups.entry(key).or_default();
        doers.count += 1;
        if let Some(user) = facts.user.as_deref() {
            let next = u32::try_from(self.users.len()).unwrap_or(u32::MAX);
            doers.users.insert(*self.users.entry(kept(user)).or_insert(next));
        }
        true
    }
}

/// Records by who did something.
#[derive(Default)]
pub(super) struct Users {
    groups: HashMap<Box<str>, Deeds>,
    operations: HashMap<Box<str>, u32>,
}

struct Deeds {
    count: Count,
    operations: HashSet<u32>,
}

#[derive(Serialize)]
struct UserRow<'a> {
    user: &'a str,
    operations: usize,
    #[serde(flatten)]
    count: Count,
}

impl Users {
    pub(super) fn show(&self, output: OutputArgs, limit: Option<usize>, heading: &Heading) -> Result<usize, Failure> {
        let (rows, left_out) = ranked(self.groups.iter(), limit, |deeds| deeds.count.count);
        let row = rows.into_iter().map(|(user, deeds)| UserRow {
            user,
            operations: deeds.operations.len(),
            count: deeds.count,
        });
        output.show(&Page { heading, rows: row.collect() }, |page| {
            let cells = |row: &UserRow<'_>| {
                let [count, first, last] = row.count.cells();
                [shortened(row.user), count, row.operations.to_string(), first, last]
            };
            table(&["user", "count", "operations", "first", "last"], page.rows.iter().map(cells))
        })?;
        Ok(left_out)
    }
}

impl Sum for Users {
    const NEEDS: &'static str = "without a UserId";

    fn add(&mut self, _: &Incoming<'_>, facts: &Facts<'_>, created: Timestamp) -> bool {
        let Some(user) = facts.user.as_deref() else { return false };
        let new = || Deeds { count: Count::nothing_at(created), operations: HashSet::new() };
        let deeds = self.groups.entry(kept(user)).or_insert_with(new);
        deeds.count.add(created);
        if let Some(operation) = facts.operation.as_deref() {
            let next = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
            deeds.operations.insert(*self.operations.entry(kept(operation)).or_insert(next));
        }
        true
    }
}

/// The groups with the most records first, and how many of them `limit` leaves out.
fn ranked<K: Ord, V>(
    groups: impl Iterator<Item = (K, V)>,
    limit: Option<usize>,
    count: impl Fn(&V) -> u64,
) -> (Vec<(K, V)>, usize) {
    let mut rows: Vec<(K, V)> = groups.collect();
    rows.sort_by(|one, other| count(&other.1).cmp(&count(&one.1)).then_with(|| one.0.cmp(&other.0)));
    let shown = limit.map_or(rows.len(), |limit| limit.min(rows.len()));
    let left_out = rows.len() - shown;
    rows.truncate(shown);
    (rows, left_out)
}

fn cell(text: &Text) -> String {
    text.as_deref().map_or_else(|| "-".to_owned(), shortened)
}

/// To the second, as records have it.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The documented name of a record type's number.
fn type_name(number: &str) -> Option<&'static str> {
    static NAMES: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
        let lines = include_str!("../../../docs/api/record-types.tsv").lines().skip(1);
        lines.filter_map(|line| line.split_once('\t')).map(|(number, rest)| (number, before_tab(rest))).collect()
    });
    NAMES.get(number).copied()
}

fn before_tab(text: &'static str) -> &'static str {
    text.split_once('\t').map_or(text, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_grouped_by_the_columns_that_were_named_and_counted_down() {
        let mut clients = Clients::by(vec![By::Client, By::Operation, By::Client]);
        assert_eq!(clients.by, [By::Client, By::Operation]);
        for record in [
            r#"{"ClientInfoString":"Client=OWA","Operation":"Send","UserId":"a"}"#,
            r#"{"ClientInfoString":"Client=OWA","Operation":"Send","UserId":"b"}"#,
            r#"{"ClientInfoString":"Client=REST"}"#,
            r#"{"ClientInfoString":7,"Operation":"Send"}"#,
        ] {
            assert!(added(&mut clients, record, 0));
        }
        assert!(!added(&mut clients, r#"{"Operation":"Send"}"#, 0));
        assert!(!added(&mut clients, r#"{"ClientInfoString":null}"#, 0));
        let (rows, left_out) = ranked(clients.groups.iter(), Some(2), |count| count.count);
        let told: Vec<_> =
            rows.iter().map(|(key, count)| (key.iter().map(cell).collect::<Vec<_>>(), count.count)).collect();
        let texts = |client: &str, operation: &str| vec![client.to_owned(), operation.to_owned()];
        assert_eq!(told, [(texts("Client=OWA", "Send"), 2), (texts("7", "Send"), 1)]);
        assert_eq!(left_out, 1);
    }

    #[test]
    fn users_of_an_operation_and_operations_of_a_user_are_counted_once() {
        let (mut operations, mut users) = (Operations::default(), Users::default());
        for (user, operation, second) in [("a", "Send", 5), ("b", "Send", 3), ("a", "Send", 9), ("a", "Update", 4)] {
            let record =
                format!(r#"{{"Operation":"{operation}","UserId":"{user}","Workload":"Exchange","RecordType":2}}"#);
            assert!(added(&mut operations, &record, second) && added(&mut users, &record, second));
        }
        let key = (Box::from("Send"), Some(Box::from("Exchange")), Some(Box::from("2")));
        let send = &operations.groups[&key];
        assert_eq!((send.count, send.users.len()), (3, 2));
        let a = &users.groups["a"];
        assert_eq!((a.count.count, a.operations.len()), (3, 2));
        assert_eq!((a.count.first, a.count.last), (at(4), at(9)));
    }

    #[test]
    fn record_types_have_their_documented_names() {
        assert_eq!(type_name("25"), Some("MicrosoftTeams"));
        assert_eq!((type_name("-1"), type_name("value")), (None, None));
    }

    fn added(sum: &mut impl Sum, record: &str, second: i64) -> bool {
        let incoming = Incoming { kind: None, bytes: record.as_bytes(), available: None, published: None };
        sum.add(&incoming, &Facts::of(record.as_bytes()), at(second))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_788_091_200 + second).unwrap()
    }
}
