//! `o365feed content get`: the records of contents that somebody names.

use std::{
    collections::HashSet,
    io::{self, BufRead},
    path::PathBuf,
};

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt, pin_mut, stream};
use jiff::Timestamp;

use super::{
    ending::{Troubles, written},
    sink::{Brought, Sink},
};
use crate::{
    api::TenantApi,
    cli::{
        Failure,
        args::{TenantArgs, usage},
        config::counted,
        feed::Patience,
        output::{harmless, tell},
        tool::{self, ToolArgs},
    },
    config::Settings,
    domain::{ContentType, Listed, Source},
};

/// What `o365feed content get` may be told.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct GetArgs {
    /// Content ids or contentUris, as a listing, a gap or a header `content_id` names them; `-` reads them from standard input.
    #[arg(required = true, value_name = "ID|URI")]
    contents: Vec<String>,
    #[command(flatten)]
    tenants: TenantArgs,
    #[command(flatten)]
    tool: ToolArgs,
    /// Write the records to a file for each content in this folder; what is complete there is not fetched again.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Contents that are fetched at once.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
}

/// What follows the arguments in `--help`.
pub(in crate::cli) const MORE: &str = "\
Examples:
  o365feed content get '20260829074832071144651$20260829075121886098815$audit_sharepoint$Audit_SharePoint$na0036'
  o365feed content list --since 1h --output json | jq -r .[].content_uri | o365feed content get - --into ./blobs

Mind the quotes: a shell takes $2026… for a variable. A uri that does not lead to the tenant's API host is refused before
anything is sent.";

/// Longest text that is taken for an id or a uri.
const LONGEST: usize = 4_096;

/// Brings the records of every content that is named.
///
/// # Errors
/// When one of them is named wrongly, before any is fetched, or could not be had.
pub(in crate::cli) async fn run(args: GetArgs) -> Result<(), Failure> {
    let settings = args.tool.settings()?;
    let api = tool::api(&settings)?;
    let tenant = one_tenant(&args.tenants, &settings)?;
    let api = api.tenant(tenant.id).ok_or_else(|| usage(format!("there is no tenant {}", tenant.id)))?;
    // All are checked first: half a result for a slip of the pen helps nobody.
    let mut contents: Vec<Listed> =
        names(&args.contents)?.iter().map(|name| named(name, &api)).collect::<Result<_, _>>()?;
    // An id and its uri name the same content.
    let mut seen = HashSet::new();
    contents.retain(|content| seen.insert(content.key()));
    let sink = Sink::new(args.into.as_deref()).map_err(anyhow::Error::from)?;
    let brought =
        stream::iter(&contents).map(async |content| (content, sink.bring(&api, content, Patience::short()).await));
    let brought = brought.buffer_unordered(args.concurrency.into());
    pin_mut!(brought);
    let (mut troubles, mut records, mut whole, mut before) = (Troubles::default(), 0, 0, 0);
    while let Some((content, outcome)) = brought.next().await {
        let Some(outcome) = written(outcome)? else { return Ok(()) };
        match outcome {
            Brought::Whole(count) => (records, whole) = (records + count, whole + 1),
            Brought::Before => before += 1,
            lost => troubles.lost(&tenant.name, &content.content_id, &lost),
        }
    }
    if written(sink.finish())?.is_none() {
        return Ok(());
    }
    let before = if before == 0 { String::new() } else { format!("; {before} were there already") };
    tell(&format!("{} of {}{before}", counted(records, "record"), counted(whole, "content")));
    troubles.ending(0)
}

fn one_tenant<'a>(tenants: &TenantArgs, settings: &'a Settings) -> Result<&'a crate::config::Tenant, Failure> {
    match tenants.of(settings)?[..] {
        [tenant] => Ok(tenant),
        _ => Err(usage("say by --tenant whose contents they are: the settings have several tenants".to_owned())),
    }
}

/// The names on the command line, and those on standard input in the place of a `-`.
fn names(asked: &[String]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for name in asked {
        if name != "-" {
            names.push(name.clone());
            continue;
        }
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|fault| usage(format!("standard input cannot be read: {fault}")))?;
            names.extend(Some(line.trim().to_owned()).filter(|name| !name.is_empty()));
        }
    }
    Ok(names)
}

/// A content as somebody named it: only its id is known.
fn named(name: &str, api: &TenantApi) -> Result<Listed, Failure> {
    let wrong = |why: &str| Err(usage(format!("{}: {why}", harmless(&name.chars().take(200).collect::<String>()))));
    let is_uri = name.contains("://");
    let content_id = match (is_uri, name.len()) {
        (_, LONGEST..) => return wrong("too long for a content id"),
        (false, _)
            if name.is_empty()
                || name.contains(|letter: char| letter == '/' || letter.is_whitespace() || letter.is_control()) =>
        {
            return wrong("no content id; it is made of stamps and names with $ between them");
        }
        (false, _) => name.to_owned(),
        (true, _) => match api.content_id(name) {
            Some(id) => id,
            None => return wrong("no uri of a content on the tenant's API host; nothing was sent there"),
        },
    };
    // The type does not matter to a fetch, and the uri is made of the id.
    let source = Source { tenant: api.id(), content_type: ContentType::General };
    let (created, expires) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    Ok(Listed { source, content_id, content_uri: String::new(), created, expires, raw: Bytes::new() })
}
