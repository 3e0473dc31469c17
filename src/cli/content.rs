//! `o365feed content`: list what the service offers, and bring it.

mod ending; // what went wrong on the way, and the exit code
mod folder; // a file for each content
mod get; // contents that somebody names
mod line; // a record on one line
mod list; // contents of a span of time
mod sink; // where records go

use clap::Subcommand;

pub(super) use self::ending::Troubles;
use super::{Exit, Failure, exit};

#[derive(Debug, Subcommand)]
pub(super) enum ContentCommand {
    /// List the contents that the service made available in a span of time, or bring their records.
    ///
    /// A content is a bundle of records with an id and a time until which it can be fetched. The span is about when contents
    /// were made available; the records inside may be older. The service lists the last seven days. Listed again, the same
    /// records may come under other ids.
    #[command(after_long_help = exit::with_codes(list::MORE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft, Exit::Incomplete]))]
    List(Box<list::ListArgs>),
    /// Bring the records of contents by their ids or uris: a record a line, as received.
    ///
    /// For a content of the gaps topic, of a header `content_id`, or of `content list`.
    #[command(after_long_help = exit::with_codes(get::MORE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft, Exit::Incomplete]))]
    Get(Box<get::GetArgs>),
}

/// Runs the command.
pub(super) async fn run(command: ContentCommand) -> Result<(), Failure> {
    match command {
        ContentCommand::List(args) => list::run(*args).await,
        ContentCommand::Get(args) => get::run(*args).await,
    }
}
