//! The records with a ClientInfoString themselves, in four columns, in order of their creation.

use jiff::Timestamp;
use serde::Serialize;

use super::{Incoming, Sum, kept};
use crate::cli::{
    Failure,
    facts::Facts,
    output::{OutputArgs, print_json, shortened, table},
    print,
};

#[derive(Default)]
pub(super) struct Rows(Vec<Row>);

/// As the records name the columns.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(skip)]
    created: Timestamp,
    creation_time: Box<str>,
    operation: Option<Box<str>>,
    client_info_string: Box<str>,
    user_id: Option<Box<str>>,
}

impl Sum for Rows {
    const NEEDS: &'static str = "without a ClientInfoString";

    fn add(&mut self, _: &Incoming<'_>, facts: &Facts<'_>, created: Timestamp) -> bool {
        let Some(client) = facts.client.as_deref() else { return false };
        self.0.push(Row {
            created,
            creation_time: kept(facts.created.as_deref().unwrap_or_default()),
            operation: facts.operation.as_deref().map(kept),
            client_info_string: kept(client),
            user_id: facts.user.as_deref().map(kept),
        });
        true
    }
}

impl Rows {
    /// Prints them, and gives how many `limit` left out.
    pub(super) fn show(&self, output: OutputArgs, limit: Option<usize>) -> Result<usize, Failure> {
        let mut rows: Vec<&Row> = self.0.iter().collect();
        rows.sort_by_key(|row| row.created);
        rows.truncate(limit.unwrap_or(rows.len()));
        if output.is_json() {
            let mut lines = String::new();
            for row in &rows {
                lines += &serde_json::to_string(row).map_err(anyhow::Error::from)?;
                lines.push('\n');
            }
            print_json(&lines)?;
        } else {
            let cell = |text: &Option<Box<str>>| text.as_deref().map_or_else(|| "-".to_owned(), shortened);
            let cells = |row: &&Row| {
                let (operation, user) = (cell(&row.operation), cell(&row.user_id));
                [shortened(&row.creation_time), operation, shortened(&row.client_info_string), user]
            };
            print(&table(&["CreationTime", "Operation", "ClientInfoString", "UserId"], rows.iter().map(cells)))?;
        }
        Ok(self.0.len() - rows.len())
    }
}
