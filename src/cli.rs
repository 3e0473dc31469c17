//! The command line. One file a command; this one says which there are and hands the work to them.
//! A command returns `Result<(), Failure>`, and only [`main`] turns that into an exit code.

mod args; // which tenants, content types and times
mod config; // check and example
mod content; // what the service offers, listed and brought
pub mod demo; // the whole pipeline, with nothing set up
mod doctor; // what is wrong, and what to do
mod exit; // what the exit code says
mod facts; // who did what when, of any record
mod feed; // spans listed and contents fetched, for whoever needs it
mod healthcheck; // for container engines, which ask by a command
mod manual; // man pages and completions
mod notifications; // attempts to reach a webhook
mod output; // a table for people, JSON for programs
mod reconcile; // what the API offers, held against what is published
mod records; // which records of which topics
mod replay; // what was published, published again on purpose
mod report; // sums over the records
mod run; // the connector itself
mod signals; // Ctrl-C and SIGTERM
pub mod simulate; // the API, simulated on a port
mod subscriptions; // what the service collects for us
mod tail; // the newest records as they come
mod token; // what each tenant's token says
mod tool; // the API for the tools
mod version; // what this build is made of

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

pub use self::exit::{Exit, Failure};
use crate::config::{ConfigErrors, Settings, load};

/// Streams the audit records of Microsoft 365 into Apache Kafka, each exactly once.
///
/// o365feed lists what the Office 365 Management Activity API offers for each tenant, fetches it and publishes every record
/// to a topic of its content type. All state is in Kafka: any number of processes of one group share the work, and a lost one
/// loses nothing.
#[derive(Debug, Parser)]
#[command(name = "o365feed", version, after_help = "First steps: `o365feed demo` needs nothing at all; `o365feed config example > o365feed.yaml` begins for real.", after_long_help = exit::guide())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the settings come from, for the commands that need them.
#[derive(Args, Clone, Debug)]
struct SettingsFrom {
    /// The settings file; `o365feed.yaml` in the working directory if there is one.
    ///
    /// Every setting can also come from the environment, which wins (O365FEED_KAFKA__BOOTSTRAP_SERVERS). With one tenant no file
    /// is needed: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are read. Secrets are never taken from the command line.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the tenants and publish to Kafka, until stopped.
    ///
    /// Stops on SIGTERM or Ctrl-C: what is in flight is finished or rolled back, and nothing is lost or repeated either way.
    /// While it runs, /metrics, /livez and /readyz are served on `http.listen`.
    #[command(after_long_help = exit::with_codes("Example:\n  o365feed run --config /etc/o365feed/o365feed.yaml", &[Exit::Unexpected, Exit::Usage, Exit::Microsoft, Exit::Kafka, Exit::SlotTaken, Exit::Watchdog]))]
    Run(SettingsFrom),
    /// Show the whole pipeline at work with a simulated tenant; needs no set-up.
    ///
    /// The broker is librdkafka's mock inside this process, which has no lasting transactions: delivery is at least once. With
    /// --bootstrap it is a real Kafka, and exactly once. At the end the topics are compared with what the tenant made available;
    /// exit code 7 if they differ.
    #[command(after_long_help = exit::with_codes("Examples:\n  o365feed demo --for 20s\n  o365feed demo --bootstrap localhost:9092", &[Exit::Unexpected, Exit::Usage, Exit::Kafka, Exit::Incomplete]))]
    Demo(demo::DemoArgs),
    /// Compare what the API offers with what is published, and name every record that is missing.
    ///
    /// Lists everything of the span again and holds it against ledger, listings and gaps: per tenant, content type and hour
    /// it tells what is delivered, filtered, waiting, a gap or missing. Without a span it compares all that the API lists, the last
    /// 6 d 23 h. Works beside a running connector and does not disturb it.
    #[command(after_long_help = reconcile::GUIDE)]
    Reconcile(reconcile::ReconcileArgs),
    /// Serve a simulated Management Activity API, to try a connector against.
    #[command(after_long_help = exit::with_codes("Example:\n  o365feed simulate --tenants 2 --contents-per-minute 60", &[Exit::Unexpected, Exit::Usage]))]
    Simulate(Box<simulate::SimulateArgs>),
    /// List what the service offers, and bring it: contents and their records.
    #[command(subcommand)]
    Content(content::ContentCommand),
    /// List the service's attempts to notify webhooks, those that failed first.
    ///
    /// For a subscription with a webhook: when was it called, for which content, and how did that go. It is a history of
    /// attempts of the last seven days, and no list of contents: `content list` is that.
    #[command(after_long_help = exit::with_codes(notifications::MORE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft, Exit::Incomplete]))]
    Notifications(Box<notifications::NotificationsArgs>),
    /// Publish again, on purpose, what the API still has: at most the last seven days.
    ///
    /// For a topic that was lost, a consumer that must be fed again, a field that was masked by mistake. The span is about when
    /// the service made contents available; records may be older. Each record is published once within a replay, in
    /// transactions, whatever breaks off and is resumed. The connector may run meanwhile: a replay takes nothing from it
    /// but requests, and what it published is written down in the ledger without counting as published by the connector.
    #[command(after_long_help = exit::with_codes(replay::MORE, &[Exit::Unexpected, Exit::Usage, Exit::Microsoft, Exit::Kafka, Exit::SlotTaken, Exit::Incomplete]))]
    Replay(Box<replay::ReplayArgs>),
    /// Find out what is wrong with settings, network, rights, subscriptions and Kafka, and what to do about it.
    ///
    /// Looks at everything between the settings and the records in Kafka, in the order in which things depend on each other, and says of
    /// each what was seen and what to type or click. Works with broken settings, without a network and without Kafka, and beside a
    /// running connector. Changes nothing unless --fix is given. docs/doctor.md has all probes and verdicts.
    Doctor(doctor::DoctorArgs),
    /// Ask the connector on this machine whether it is well, as container engines want it: 0 if it is, 1 if not.
    ///
    /// Asks /livez on `http.listen` of the same settings that `run` has, so 1 means that a restart helps. With --ready it asks /readyz.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Show what each tenant's token says: audience, tenant, application, roles and expiry.
    ///
    /// Asks the login authority for a token and decodes it without verifying. The token itself is never printed.
    Token(token::TokenArgs),
    /// Sum up the records: by client, operation or user, or how late they come.
    ///
    /// Reads the topics that `run` publishes to, or the API itself. The report goes to standard output, how many records it is made of
    /// to standard error.
    Report(Box<report::ReportArgs>),
    /// Show the newest records as they are committed, until stopped.
    ///
    /// A line has the record's CreationTime, content type, operation, user, object and client address, as far as it has them. Records
    /// come in no order but that of their partition. A Kafka that goes away is waited for. Ctrl-C ends it with exit code 0, and so
    /// does whoever reads its output and has seen enough.
    Tail(Box<tail::TailArgs>),
    /// List, start or stop the subscriptions that the service keeps for this application.
    #[command(subcommand)]
    Subscriptions(subscriptions::SubscriptionsCommand),
    /// Check the settings, or print an example of them.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print what makes a shell complete the commands and options of this program.
    Completions(manual::CompletionsArgs),
    /// Print the manual as man pages.
    Man(manual::ManArgs),
    /// Print the version, and what it is built on.
    #[command(after_long_help = exit::with_codes("Example:\n  o365feed version", &[Exit::Unexpected]))]
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tell every fault in the settings, each with its line; exit code 2 if there is one.
    ///
    /// Nothing is contacted: neither Microsoft nor Kafka.
    #[command(after_long_help = exit::with_codes("Example:\n  o365feed config check --config o365feed.yaml", &[Exit::Unexpected, Exit::Usage]))]
    Check(SettingsFrom),
    /// Print a commented settings file with every key and its default.
    #[command(after_long_help = exit::with_codes("Example:\n  o365feed config example > o365feed.yaml", &[Exit::Unexpected]))]
    Example,
}

/// Runs the command that the process was started with; what went wrong is told on standard error.
#[must_use]
pub fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => Exit::Fine.into(),
        Err(failure) => {
            output::tell(&format!("o365feed: {failure}"));
            failure.exit.into()
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(from) => {
            let settings = settings(&from)?;
            within_runtime(run::run(settings))
        }
        Command::Demo(args) => within_runtime(demo::run(args)),
        Command::Reconcile(args) => within_runtime(reconcile::run(args)),
        Command::Simulate(args) => within_runtime(async { Ok(simulate::run(*args).await?) }),
        Command::Content(command) => within_runtime(content::run(command)),
        Command::Notifications(args) => within_runtime(notifications::run(*args)),
        Command::Replay(args) => within_runtime(replay::run(*args)),
        Command::Doctor(args) => within_runtime(doctor::run(args)),
        Command::Healthcheck(args) => within_runtime(healthcheck::run(args)),
        Command::Token(args) => within_runtime(token::run(args)),
        Command::Report(args) => report::run(*args),
        Command::Tail(args) => tail::run(*args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
        Command::Subscriptions(command) => within_runtime(subscriptions::run(command)),
        Command::Config(ConfigCommand::Check(from)) => print(&config::check(&settings(&from)?)),
        Command::Config(ConfigCommand::Example) => print(&crate::config::example()),
        Command::Version => print(&version::text()),
    }
}

fn within_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let ended = runtime.block_on(work);
    // What still asks a Kafka that does not answer is nobody's any more; waiting for it would take half a minute.
    runtime.shutdown_background();
    ended
}

/// The settings from `--config` and the environment.
fn settings(from: &SettingsFrom) -> Result<Settings, Failure> {
    settings_or_faults(from).map_err(|faults| Failure::new(Exit::Usage, config::told(&faults)))
}

/// As [`settings`], with every fault for itself.
fn settings_or_faults(from: &SettingsFrom) -> Result<Settings, ConfigErrors> {
    // A name or value that is no UTF-8 cannot be ours as it stands, but it must show up in a fault rather than vanish.
    let env = std::env::vars_os().map(|(name, text)| (lossy(name), lossy(text)));
    load(from.config.as_deref(), env, &host_name())
}

fn lossy(text: std::ffi::OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// The host's name; in a pod, the pod's.
fn host_name() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = kernel.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    told.map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Prints `text` for a person or a pipe. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::from(fault).into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};
    use url::Url;
    use uuid::Uuid;

    use super::*;
    use crate::{
        config::{Cloud, Credential, Tenant},
        domain::{ContentType, TenantId},
    };

    /// Some arguments without a command around them.
    #[derive(Parser)]
    pub(super) struct Parsed<A: Args> {
        #[command(flatten)]
        args: A,
    }

    impl<A: Args> Parsed<A> {
        pub(super) fn of(args: &[&str]) -> A {
            Self::parse_from(["o365feed"].iter().chain(args)).args
        }
    }

    /// Tenants `a`, `b`, … by their number.
    pub(super) fn tenant(number: u8, content_types: &[ContentType]) -> Tenant {
        let id = Uuid::from_u128(number.into());
        let nowhere = Url::parse("http://127.0.0.1:1").unwrap();
        Tenant {
            id: TenantId(id),
            name: char::from(b'a' + number - 1).to_string(),
            cloud: Cloud::Worldwide,
            api_root: nowhere.clone(),
            authority: nowhere,
            audience: "https://manage.office.com".to_owned(),
            client_id: "client".to_owned(),
            credential: Credential::SecretFile("/nowhere".into()),
            content_types: content_types.to_vec(),
            publisher_identifier: id,
        }
    }

    #[test]
    fn help() {
        let mut pages = Vec::new();
        let mut root = Cli::command();
        root.build();
        collect(&mut root, &mut pages);
        insta::assert_snapshot!(pages.join("\n================\n"));
    }

    #[test]
    fn the_help_of_every_command_has_an_example_and_ends_with_its_exit_codes() {
        let mut root = Cli::command();
        root.build();
        let mut pages = Vec::new();
        collect_leaves(&mut root, &mut pages);
        assert!(pages.len() > 18, "the pages are not found any more: {}", pages.len());
        for (name, page) in pages {
            assert!(page.contains("xample"), "{name} has no example");
            let last = page.trim_end().rsplit("\n\n").next().unwrap();
            assert!(last.starts_with("Exit codes: 0 "), "{name}: {last}");
        }
    }

    fn collect_leaves(command: &mut clap::Command, pages: &mut Vec<(String, String)>) {
        let mut inner = command.get_subcommands_mut().filter(|inner| inner.get_name() != "help").peekable();
        if inner.peek().is_some() {
            inner.for_each(|inner| collect_leaves(inner, pages));
        } else {
            drop(inner);
            pages.push((command.get_name().to_owned(), command.render_long_help().to_string()));
        }
    }

    #[test]
    fn the_arguments_hold_together() {
        Cli::command().debug_assert();
        let run = Cli::try_parse_from(["o365feed", "run", "--config", "x.yaml"]).unwrap();
        assert!(matches!(run.command, Command::Run(from) if from.config == Some(PathBuf::from("x.yaml"))));
        let wrong = Cli::try_parse_from(["o365feed", "rnu"]).unwrap_err();
        assert_eq!((wrong.kind(), wrong.exit_code()), (ErrorKind::InvalidSubcommand, i32::from(Exit::Usage.code())));
    }

    /// What a page tells somebody to type can be typed. A command that is only named need not be complete.
    #[test]
    fn commands_in_the_documentation_exist() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let pages =
            docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).chain([root.join("README.md")]);
        let mut count = 0;
        for page in pages {
            let text = fs::read_to_string(&page).unwrap();
            for command in commands(&text) {
                count += 1;
                let refused = match Cli::try_parse_from(words(&command)) {
                    Ok(_) => continue,
                    Err(refused) => refused,
                };
                let is_named_only = matches!(
                    refused.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                let stands_for_another = |word: &str| 1 < word.len() && word.chars().all(|c| c.is_ascii_uppercase());
                let is_pattern =
                    refused.kind() == ErrorKind::ValueValidation && command.split(' ').any(stands_for_another);
                assert!(is_named_only || is_pattern, "{}: `{command}`: {refused}", page.display());
            }
        }
        assert!(count > 50, "the pages are not read any more: {count}");
    }

    /// Whoever finds a line of `/readyz` in front of them finds it in the runbook as well.
    #[test]
    fn every_condition_of_readiness_stands_in_the_runbook() {
        let mut count = 0;
        for source in sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pipeline")) {
            let source = source.split("#[cfg(test)]").next().unwrap();
            for call in source.split("health.not_ok(").skip(1) {
                let (name, rest) = call.split_once(',').unwrap();
                // A name that is made elsewhere is the first text after the head of the function that makes it.
                let maker = name.split('(').next().unwrap().rsplit(['.', '&']).next().unwrap().trim();
                let name = match literal(name) {
                    Some(name) => name,
                    None => literal(source.split(&format!("fn {maker}(")).nth(1).expect(maker)).expect(maker),
                };
                let word = name.split([' ', '{']).next().unwrap();
                let line = RUNBOOK.lines().find(|line| {
                    let is_of_word = [':', ' '].iter().any(|end| line.starts_with(&format!("| `{word}{end}")));
                    is_of_word && line.contains(reason(rest))
                });
                assert!(line.is_some(), "{word}: {}", reason(rest));
                count += 1;
            }
        }
        assert!(count > 8, "the calls are not found any more: {count}");
    }

    const RUNBOOK: &str = include_str!("../docs/runbook.md");

    /// What is certain of a reason: a text up to what is filled in or can be left out; nothing when it is made elsewhere.
    fn reason(rest: &str) -> &str {
        let reason = rest.trim_start();
        let is_text = reason.starts_with('"') || reason.starts_with("format!(");
        let text = if is_text { literal(reason).unwrap() } else { "" };
        text.split(['{', ';', ':']).next().unwrap()
    }

    /// The first text between quotes.
    fn literal(source: &str) -> Option<&str> {
        source.split('"').nth(1)
    }

    /// Every file of a directory and those within, but for tests.
    fn sources(directory: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let of = |path: PathBuf| match path.is_dir() {
            true => sources(&path),
            false if path.ends_with("tests.rs") => Vec::new(),
            false => vec![fs::read_to_string(&path).unwrap()],
        };
        entries.flat_map(of).collect()
    }

    /// `o365feed …` between backticks, or at the start of a line of a block of code.
    fn commands(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut is_shell = false;
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with("```") {
                is_shell = line == "```sh";
            } else if is_shell && line.starts_with("o365feed ") {
                found.push(line.split(" #").next().unwrap().to_owned());
            } else {
                found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
        found.retain(|command| command.starts_with("o365feed ") && !command.contains('…'));
        found
    }

    /// As a shell cuts them, as far as the pages need it; what follows a pipe or a redirection is not ours.
    fn words(command: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for letter in command.chars() {
            match (quote, letter) {
                (None, '|' | '>') => break,
                (None, '\'' | '"') => quote = Some(letter),
                (Some(open), _) if open == letter => quote = None,
                (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
                _ => word.push(letter),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        words
    }

    #[test]
    fn a_settings_file_that_is_not_there_is_wrong_usage() {
        let cli = Cli::try_parse_from(["o365feed", "config", "check", "--config", "/nowhere/o365feed.yaml"]).unwrap();
        let failure = execute(cli).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("/nowhere/o365feed.yaml: could not be read"));
    }

    fn collect(command: &mut clap::Command, pages: &mut Vec<String>) {
        pages.push(command.render_long_help().to_string());
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            collect(inner, pages);
        }
    }
}
