//! `inflightd token`: makes tokens. It asks no daemon and writes no file.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::{EXIT_SOFTWARE, complain, print};
use crate::config::principals::{self, Expiry, LOCAL, TokenHash};
use crate::config::{Secret, Wrong};

/// 256 bits: nobody guesses them.
const TOKEN_BYTES: usize = 32;

/// Flags of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token for a principal, and print once what to put where
    New(NewArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    /// Whose token it is: 1 to 64 of a-z 0-9 _ -
    #[arg(value_parser = name)]
    name: String,
    /// From when on it is refused: 2027-01-31, or a time as RFC 3339 has it
    #[arg(long, value_name = "DATE", value_parser = date)]
    expires: Option<String>,
}

fn name(text: &str) -> Result<String, Wrong> {
    principals::name(text).map(str::to_owned)
}

fn date(text: &str) -> Result<String, Wrong> {
    Expiry::parse(text).map(|_| text.to_owned())
}

/// Makes one.
pub fn run(args: &TokenArgs) -> ExitCode {
    let TokenCommand::New(new) = &args.command;
    let mut random = [0; TOKEN_BYTES];
    if let Err(error) = getrandom::fill(&mut random) {
        complain(&format!("could not have randomness from the operating system: {error}"));
        return ExitCode::from(EXIT_SOFTWARE);
    }
    print(&what_to_do(&new.name, new.expires.as_deref(), &token(&random)))
}

fn token(random: &[u8; TOKEN_BYTES]) -> Secret {
    let mut text = String::with_capacity(2 * TOKEN_BYTES);
    for byte in random {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Secret::new(text)
}

fn what_to_do(name: &str, expires: Option<&str>, token: &Secret) -> String {
    let hash = TokenHash::of(token.reveal()).text();
    let token = token.reveal();
    let expires = expires.map(|date| format!("\n  expires = \"{date}\"")).unwrap_or_default();
    let beside = if name == LOCAL {
        "\n\nor, without a table, INFLIGHTD_TOKEN where the daemon starts:\n\n  INFLIGHTD_TOKEN=".to_owned()
            + token
    } else {
        String::new()
    };
    format!(
        "A new token of `{name}`. It is shown this once, and kept nowhere:

  {token}

Put its hash into the daemon's inflightd.toml, and start the daemon again:

  [principals.{name}]
  token_hash = \"{hash}\"{expires}{beside}

Where that table is there already, name both in it until every client has moved:

  token_hashes = [\"blake3:… (the old one)\", \"{hash}\"]

Give the token to the client, in the environment of the shim or the command:

  INFLIGHTD_TOKEN={token}

Other clients send it as `Authorization: Bearer …`, or as ?token=… in the URL of a WebSocket. Once any token is
configured, every caller must bring one. docs/configuration.md lists what else the table may say."
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;
    use crate::config::{Sources, resolve};

    /// The lines of the table that it tells to put into the file.
    fn table(text: &str) -> String {
        let lines =
            text.lines().skip_while(|line| !line.starts_with("  [")).take_while(|line| !line.is_empty());
        lines.map(str::trim).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_it_prints_makes_the_token_good() {
        for (name, expires) in [("ci", None), ("ci", Some("2999-12-31")), ("local", None)] {
            let token = token(&[7; TOKEN_BYTES]);
            let text = what_to_do(name, expires, &token);
            let toml = table(&text).parse().unwrap();
            let config = resolve(Sources { toml, ..Sources::default() }).unwrap().config;
            let [principal] = config.principals.as_slice() else { panic!("{:?}", config.principals) };
            assert_eq!((&*principal.name, principal.expires.is_some()), (name, expires.is_some()));
            assert!(principal.tokens[0].same(&TokenHash::of(token.reveal())));
            assert!(text.contains(&format!("\n  INFLIGHTD_TOKEN={}\n", token.reveal())));
        }
    }

    #[test]
    fn a_token_is_64_hexadecimal_digits() {
        let mut random = [0; TOKEN_BYTES];
        random[31] = 0xa5;
        assert_eq!(token(&random).reveal(), format!("{:0>64}", "a5"));
    }

    #[test]
    fn a_bad_name_or_date_is_refused_by_the_command_line() {
        let parse =
            |words: &[&str]| Cli::try_parse_from(words).map(|_| ()).map_err(|error| error.to_string());
        assert!(parse(&["inflightd", "token", "new", "ci-2"]).is_ok());
        let error = parse(&["inflightd", "token", "new", "CI"]).unwrap_err();
        assert!(error.contains("is not a name of 1 to 64 of the characters a-z 0-9 _ -"), "{error}");
        let error = parse(&["inflightd", "token", "new", "ci", "--expires", "soon"]).unwrap_err();
        assert!(error.contains("is not a date, nor a time with its offset"), "{error}");
    }
}
