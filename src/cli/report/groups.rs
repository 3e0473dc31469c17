//! How many of what, by whom. What is kept is a row a group, and the name of each user once, up to a number.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
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

/// So many groups are kept. Clients and users choose their names, and a report must not grow with them for ever.
const MOST: usize = 100_000;

/// The first groups that come, and how many records would have made others.
struct Groups<K, V> {
    kept: HashMap<K, V>,
    others: u64,
    most: usize,
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self { kept: HashMap::new(), others: 0, most: MOST }
    }
}

impl<K: Eq + Hash, V> Groups<K, V> {
    /// The group of a record; `None` when there are too many, and then the record is counted here.
    fn of(&mut self, key: K, new: impl FnOnce() -> V) -> Option<&mut V> {
        if self.kept.len() < self.most {
            return Some(self.kept.entry(key).or_insert_with(new));
        }
        let kept = self.kept.get_mut(&key);
        self.others += u64::from(kept.is_none());
        kept
    }

    /// The last row of a table with so many columns: all other groups together. None where there are none.
    fn rest(&self, columns: usize, count_at: usize) -> Option<Vec<String>> {
        let mut cells = vec!["-".to_owned(); columns];
        cells[0] = "others".to_owned();
        cells[count_at] = self.others.to_string();
        (0 < self.others).then_some(cells)
    }
}

/// Numbers that stand for names; all names beyond the first [`MOST`] have one number together.
#[derive(Default)]
struct Names(HashMap<Box<str>, u32>);

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        let (name, next) = (kept(name), self.0.len());
        match self.0.get(&name) {
            Some(number) => *number,
            None if next < MOST => {
                let number = u32::try_from(next).unwrap_or(u32::MAX);
                self.0.insert(name, number);
                number
            }
            None => u32::MAX,
        }
    }
}

/// Records with a ClientInfoString.
pub(super) struct Clients {
    by: Vec<By>,
    groups: Groups<Vec<Text>, Count>,
}

impl Clients {
    pub(super) fn by(by: Vec<By>) -> Self {
        let mut named = Vec::new();
        for column in by {
            if !named.contains(&column) {
                named.push(column);
            }
        }
        Self { by: named, groups: Groups::default() }
    }

    pub(super) fn show(&self, output: OutputArgs, limit: Option<usize>, heading: &Heading) -> Result<usize, Failure> {
        let (rows, left_out) = ranked(self.groups.kept.iter(), limit, |count| count.count);
        let object = |(key, count): &(&Vec<Text>, &Count)| {
            let texts = self.by.iter().zip(*key).map(|(by, text)| (by.as_str().to_owned(), text.as_deref().into()));
            let mut object: Map<String, Value> = texts.collect();
            object.insert("count".to_owned(), count.count.into());
            object.insert("first".to_owned(), count.first.to_string().into());
            object.insert("last".to_owned(), count.last.to_string().into());
            object
        };
        output.show(&Page { heading, others: self.groups.others, rows: rows.iter().map(object).collect() }, |_| {
            let headings = self.by.iter().map(|by| by.as_str()).chain(["count", "first", "last"]);
            let cells = |(key, count): &(&Vec<Text>, &Count)| -> Vec<String> {
                key.iter().map(cell).chain(count.cells()).collect()
            };
            let headings: Vec<&str> = headings.collect();
            let rest = self.groups.rest(headings.len(), self.by.len());
            table(&headings, rows.iter().map(cells).chain(rest))
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
        if let Some(count) = self.groups.of(key, || Count::nothing_at(created)) {
            count.add(created);
        }
        true
    }
}

/// Records by what was done, and how many did it.
#[derive(Default)]
pub(super) struct Operations {
    groups: Groups<(Box<str>, Text, Text), Doers>,
    /// The number that stands for a user in the groups.
    users: Names,
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
        let (rows, left_out) = ranked(self.groups.kept.iter(), limit, |doers| doers.count);
        let rows = rows.into_iter().map(|((operation, workload, record_type), doers)| OperationRow {
            operation,
            workload: workload.as_deref(),
            record_type: record_type.as_deref(),
            record_type_name: record_type.as_deref().and_then(type_name),
            count: doers.count,
            users: doers.users.len(),
        });
        output.show(&Page { heading, others: self.groups.others, rows: rows.collect() }, |page| {
            let cells = |row: &OperationRow<'_>| {
                let record_type = [row.record_type, row.record_type_name];
                let record_type: Vec<&str> = record_type.into_iter().flatten().collect();
                let record_type = Some(record_type.join(" ")).filter(|text| !text.is_empty()).map(Box::from);
                vec![
                    shortened(row.operation),
                    cell(&row.workload.map(Box::from)),
                    cell(&record_type),
                    row.count.to_string(),
                    row.users.to_string(),
                ]
            };
            let headings = ["operation", "workload", "record type", "count", "users"];
            table(&headings, page.rows.iter().map(cells).chain(self.groups.rest(headings.len(), 3)))
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
        let Some(doers) = self.groups.of(key, Doers::default) else { return true };
        doers.count += 1;
        if let Some(user) = facts.user.as_deref() {
            doers.users.insert(self.users.number(user));
        }
        true
    }
}

/// Records by who did something.
#[derive(Default)]
pub(super) struct Users {
    groups: Groups<Box<str>, Deeds>,
    operations: Names,
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
        let (rows, left_out) = ranked(self.groups.kept.iter(), limit, |deeds| deeds.count.count);
        let row = rows.into_iter().map(|(user, deeds)| UserRow {
            user,
            operations: deeds.operations.len(),
            count: deeds.count,
        });
        output.show(&Page { heading, others: self.groups.others, rows: row.collect() }, |page| {
            let cells = |row: &UserRow<'_>| {
                let [count, first, last] = row.count.cells();
                vec![shortened(row.user), count, row.operations.to_string(), first, last]
            };
            let headings = ["user", "count", "operations", "first", "last"];
            table(&headings, page.rows.iter().map(cells).chain(self.groups.rest(headings.len(), 1)))
        })?;
        Ok(left_out)
    }
}

impl Sum for Users {
    const NEEDS: &'static str = "without a UserId";

    fn add(&mut self, _: &Incoming<'_>, facts: &Facts<'_>, created: Timestamp) -> bool {
        let Some(user) = facts.user.as_deref() else { return false };
        let new = || Deeds { count: Count::nothing_at(created), operations: HashSet::new() };
        let Some(deeds) = self.groups.of(kept(user), new) else { return true };
        deeds.count.add(created);
        if let Some(operation) = facts.operation.as_deref() {
            deeds.operations.insert(self.operations.number(operation));
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
        let (rows, left_out) = ranked(clients.groups.kept.iter(), Some(2), |count| count.count);
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
        let send = &operations.groups.kept[&key];
        assert_eq!((send.count, send.users.len()), (3, 2));
        let a = &users.groups.kept["a"];
        assert_eq!((a.count.count, a.operations.len()), (3, 2));
        assert_eq!((a.count.first, a.count.last), (at(4), at(9)));
    }

    #[test]
    fn records_of_too_many_groups_are_counted_together() {
        let mut users = Users::default();
        users.groups.most = 2;
        for user in ["a", "b", "c", "a", "d", "c"] {
            assert!(added(&mut users, &format!(r#"{{"UserId":"{user}","Operation":"Send"}}"#), 0));
        }
        assert_eq!((users.groups.kept.len(), users.groups.kept["a"].count.count, users.groups.others), (2, 2, 3));
        assert_eq!(users.groups.rest(3, 1).unwrap(), ["others", "3", "-"]);
        assert_eq!(Groups::<Text, Count>::default().rest(3, 1), None);
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
