//! `inflightd completions` and `inflightd man`: what packagers put where shells and `man` find it.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, EXIT_IO, EXIT_USAGE, complain, print};

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "bash: inflightd completions bash > ~/.local/share/bash-completion/completions/inflightd
zsh:  inflightd completions zsh > a file _inflightd in a folder of $fpath
fish: inflightd completions fish > ~/.config/fish/completions/inflightd.fish"
)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
#[command(after_help = "inflightd man > inflightd.1 && man ./inflightd.1")]
pub struct ManArgs {
    /// The page of this command, instead of the one of the whole
    command: Option<String>,
}

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "inflightd", &mut script);
    show(&script)
}

/// Prints a manual page in roff.
pub fn man(args: &ManArgs) -> ExitCode {
    let Some(command) = page(args.command.as_deref()) else {
        complain("there is no such command; `inflightd --help` lists them");
        return ExitCode::from(EXIT_USAGE);
    };
    let mut roff = Vec::new();
    match clap_mangen::Man::new(command).render(&mut roff) {
        Ok(()) => show(&roff),
        Err(error) => {
            complain(&format!("could not write the page: {error}"));
            ExitCode::from(EXIT_IO)
        }
    }
}

/// The whole, or one of its commands under the name that one calls it by.
fn page(name: Option<&str>) -> Option<Command> {
    let mut whole = Cli::command();
    whole.build();
    let Some(name) = name else { return Some(whole) };
    whole.get_subcommands().find(|command| command.get_name() == name && !command.is_hide_set()).cloned()
}

fn show(text: &[u8]) -> ExitCode {
    print(String::from_utf8_lossy(text).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        assert_eq!(page(None).unwrap().get_name(), "inflightd");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(page(Some(command.get_name())).is_some(), "{}", command.get_name());
        }
        assert!(page(Some("nothing")).is_none() && page(Some("guard")).is_none());
    }

    #[test]
    fn every_shell_completes_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "inflightd", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("healthcheck") && script.contains("listen"), "{shell}");
        }
    }
}
