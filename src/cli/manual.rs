//! What shells and `man` want to know of the command line.

use std::{fs, io, path::PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Exit, Failure, exit, print};

#[derive(Args, Clone, Debug)]
#[command(after_long_help = exit::with_codes("Example:\n  mkdir -p ~/.local/share/bash-completion/completions\n  o365feed completions bash > ~/.local/share/bash-completion/completions/o365feed", &[Exit::Unexpected, Exit::Usage]))]
pub(super) struct CompletionsArgs {
    /// Of which shell.
    shell: Shell,
}

#[derive(Args, Clone, Debug)]
#[command(after_long_help = exit::with_codes("Examples:\n  o365feed man | man -l -\n  o365feed man --into /usr/local/share/man/man1", &[Exit::Unexpected, Exit::Usage]))]
pub(super) struct ManArgs {
    /// Write one page a command into this directory, instead of all of them to standard output.
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
}

/// # Errors
/// When standard output cannot be written to.
pub(super) fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    print(&script(args.shell))
}

/// # Errors
/// When the directory or standard output cannot be written to.
pub(super) fn man(args: ManArgs) -> Result<(), Failure> {
    let pages = pages().context("could not write the manual")?;
    let Some(into) = args.into else {
        return print(&pages.into_iter().map(|page| page.roff).collect::<String>());
    };
    fs::create_dir_all(&into).with_context(|| format!("could not make the directory {}", into.display()))?;
    for page in pages {
        let path = into.join(page.file);
        fs::write(&path, page.roff).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "o365feed", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

struct Page {
    /// `o365feed-config-check.1`
    file: String,
    roff: String,
}

/// The program's page, then each command's with those of its own commands after it.
fn pages() -> io::Result<Vec<Page>> {
    let mut root = Cli::command();
    // Names the commands of commands by their whole path, and passes shared options down.
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut pages)?;
    Ok(pages)
}

fn add(command: &clap::Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let page = Man::new(command.clone()).source(concat!("o365feed ", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    page.render(&mut roff)?;
    pages.push(Page { file: page.get_filename(), roff: String::from_utf8_lossy(&roff).into_owned() });
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set()) {
        add(inner, pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn commands() -> Vec<String> {
        let root = Cli::command();
        root.get_subcommands().map(|command| command.get_name().to_owned()).collect()
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in commands() {
                assert!(script.contains(&command), "{shell} does not know {command}");
            }
            // As each shell names the place in a line where `config` was typed and `check` may follow.
            let nested = match shell {
                Shell::Bash => "o365feed__subcmd__config__subcmd__check)",
                Shell::Zsh => "_o365feed__subcmd__config__subcmd__check_commands",
                Shell::Fish => "__fish_seen_subcommand_from check",
                Shell::PowerShell => "'o365feed;config;check'",
                Shell::Elvish => "&'o365feed;config;check'",
                other => panic!("{other} is new"),
            };
            assert!(script.contains(nested), "{shell} does not know `config check`");
        }
    }

    #[test]
    fn the_manual_has_a_page_for_every_command() {
        let pages = pages().unwrap();
        for page in &pages {
            assert!(page.roff.contains(".TH "), "{}", page.file);
            assert!(page.roff.contains(".SH NAME") && page.roff.contains(".SH SYNOPSIS"), "{}", page.file);
        }
        let files: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files[0], "o365feed.1");
        for command in commands() {
            assert!(files.contains(&format!("o365feed-{command}.1").as_str()), "{command} has no page");
        }
        assert!(files.contains(&"o365feed-config-check.1"));
    }

    #[test]
    fn the_manual_is_written_as_files() {
        let into = std::env::temp_dir().join(format!("o365feed-man-{}", std::process::id()));
        man(ManArgs { into: Some(into.join("man1")) }).unwrap();
        let page = fs::read_to_string(into.join("man1/o365feed-run.1")).unwrap();
        fs::remove_dir_all(&into).unwrap();
        assert!(page.contains(".TH o365feed-run 1"), "{page}");
    }
}
