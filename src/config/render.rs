//! The table of keys as `.env.example`, as documentation, and as help.

use std::fmt::Write;

use super::keys::{self, Default, Key};
use super::{aliases, modules, money, principals, providers};

/// The columns of plain text.
const WIDTH: usize = 100;

/// `.env.example`: every key, commented out, under its group.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Everything inflightd can be told. Copy this file to .env in the folder where `inflightd serve` starts,\n\
         # take the # away before what you want to change, and start again. The environment beats this file.\n\
         # Only `serve` reads it. It may hold secrets: keep it out of version control, or name files that hold them:\n\
         # KIMI_API_KEY_FILE=/run/secrets/kimi, and likewise for every secret.\n\
         #\n\
         # This file is written from the table of keys; docs/configuration.md says more.\n",
    );
    for group in keys::groups() {
        add(&mut text, format_args!("\n# ---- {} ----\n", group.heading.replace('`', "")));
        for key in group.keys {
            add(&mut text, format_args!("\n"));
            for line in wrap(&sentence(key), WIDTH) {
                add(&mut text, format_args!("# {line}\n"));
            }
            add(&mut text, format_args!("# {}={}\n", key.name, key.default.shown()));
        }
    }
    text
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    for group in keys::groups() {
        add(
            &mut text,
            format_args!(
                "\n## {}\n\n| key | default | unit | what it is for |\n|---|---|---|---|\n",
                group.heading
            ),
        );
        for key in group.keys {
            let default = match key.default {
                Default::Value(usual) => format!("`{usual}`"),
                Default::Follows(usual) => format!("follows; `{usual}`"),
                Default::Unset => "–".to_owned(),
            };
            add(
                &mut text,
                format_args!("| `{}` | {default} | {} | {} |\n", key.name, key.kind.unit(), key.help),
            );
        }
    }
    let sections = [
        (PROVIDERS, &providers::MEMBERS[..]),
        (ALIASES, &aliases::MEMBERS[..]),
        (FALLBACKS, &[]),
        (PRICES, &money::MEMBERS[..]),
        (PRINCIPALS, &principals::MEMBERS[..]),
        (MODULES, &modules::MEMBERS[..]),
    ];
    for (section, members) in sections {
        text.push_str(section);
        for member in members {
            add(&mut text, format_args!("| `{}` | `{}` | {} |\n", member.name, member.example, member.help));
        }
    }
    text.push_str(AFTERWORD);
    text
}

/// A plain text table, for the end of `inflightd serve --help`.
pub fn help() -> String {
    let mut text = String::from(
        "Configuration: flags beat the environment, which beats .env in the working folder, which beats\n\
         inflightd.toml (the same names in lower case), which beats the defaults shown here.\n",
    );
    for group in keys::groups() {
        add(&mut text, format_args!("\n{}:\n", group.heading.replace('`', "")));
        for key in group.keys {
            add(&mut text, format_args!("  {}", key.name));
            let default = match key.default {
                Default::Value(usual) => format!("={usual}"),
                Default::Follows(usual) => format!("={usual} (follows its neighbours)"),
                Default::Unset => " (unset)".to_owned(),
            };
            add(&mut text, format_args!("{default}\n"));
            for line in wrap(&sentence(key), WIDTH - 10) {
                add(&mut text, format_args!("          {line}\n"));
            }
        }
    }
    text
}

fn sentence(key: &Key) -> String {
    format!("{} [{}]", key.help.replace('`', ""), key.kind.unit())
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(what);
}

/// Lines of at most `width` columns, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

const INTRODUCTION: &str = "\
# Configuration

What `inflightd serve` can be told, where, and what holds when nobody says anything. Nothing has to be set: without
any provider's key the built-in `offline` provider answers.

Flags beat the environment, the environment beats `.env`, `.env` beats `inflightd.toml`, and that beats the defaults.

- An empty value counts as unset.
- `.env` is read from the folder where `serve` starts, never from its parents. Where a name stands twice, its first
  line counts. [`.env.example`](../.env.example) holds every key.
- `inflightd.toml` stands in that folder too, or where `INFLIGHTD_CONFIG` says. Its keys are the names below in lower
  case: `kimi_timeout_secs = 60`, `allowed_origins = [\"https://app.example.com\"]`; its only sections are those
  below. A key that does not exist is an error; a variable that begins with `INFLIGHTD_` and is no key only warns.
- Files are named from that folder.
- A secret may stand in a file of its own: for each key of the unit `secret`, `NAME_FILE` in the environment or in `.env`
  names the file (`INFLIGHTD_TOKEN_FILE=/run/secrets/inflightd_token`). White space around it does not count.
- `inflightd shim` and the client commands read neither file: they run inside other people's projects. They take
  `INFLIGHTD_URL` and `INFLIGHTD_TOKEN` from their environment.
- Seconds may have up to three decimals (`0.5`) and are at most 7 days. No limit may be zero.
- Every problem is reported at once, each with its key, where the value came from, and a value that would do; the exit
  code is 78. Secrets are never shown.
";

const PROVIDERS: &str = "
## Providers of your own

Every service that speaks like OpenAI's, Anthropic's or Gemini's, under a name of your choosing, as often as you like:

```toml
[providers.lab]
url = \"http://127.0.0.1:8000/v1\"
model = \"my-model\"
```

A name is 1 to 64 of the characters a-z 0-9 _ -, and none of the presets'. They are preferred after the presets, in the
order of their names. A proxy that `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY` names is used as everywhere, but never for
a loopback address.

| member | such as | what it is for |
|---|---|---|
";

const ALIASES: &str = "
## Other names for models

```toml
[aliases]
fast = { model = \"glm-4.6\", provider = \"glm\" }
```

A call with `model: \"fast\"` then asks that model. A caller that names another provider than the alias does means the name
as it is. Every other name of a model goes to the provider untouched.

| member | such as | what it is for |
|---|---|---|
";

const FALLBACKS: &str = "
## Who is asked where a provider fails

```toml
[aliases]
fast = { model = \"glm-4.6\", provider = \"glm\" }

[fallbacks]
kimi = [\"openai\", \"fast\"]
fast = [\"openai\"]
```

In front stands a provider or an alias, behind it those that are asked instead, one after the other, where that one fails
by its own fault ([what that means](resilience.md#somebody-else)): a provider is asked for its own model, an alias for what it
stands for. Only calls that leave the choice to the daemon, naming neither provider nor model, or an alias and no provider,
are anybody else's; who names a provider or a model gets that or an error. Whoever is not offered is passed over.
";

const PRICES: &str = "
## Prices and spending

```toml
[prices]
\"kimi-k2*\" = { input = 0.60, output = 2.50 }
\"gpt-5-mini*\" = { input = 0.25, output = 2.00 }
\"ollama/*\" = { input = 0, output = 0 }
```

Of the patterns that fit a model's name, alone or as `provider/model`, the longest is its price; `*` stands for any
characters, and prices are in whatever currency you like, to six decimals. Each answer of a model then says what it cost
beside its tokens, and the statistics what all of them cost and what deduplication saved: for each caller that joined or
came a moment later, what the one execution cost. Prices of cached tokens and of batches are not known: tokens that a
provider read from its own cache count as any other. The tokens of a model without a price are counted; its cost is not, and
`unpriced_calls` says how often.

A principal with `daily_spend` is refused (`RATE_LIMITED`, with when to come back) before a call is made to a model once
what it was charged since 00:00 UTC has reached the limit. A call is checked before it is made and counted when its tokens
are known, so calls that are at work together may pass the limit by what they cost. Whoever joins a call, or is answered
from the cache, is charged nothing. What was spent is not kept over a restart of the daemon.

| member | such as | what it is for |
|---|---|---|
";

const PRINCIPALS: &str = "
## Principals

Without any token everybody who reaches the loopback address is the one principal `local`. `INFLIGHTD_TOKEN` is its
token; each further principal has a table in `inflightd.toml`, and once any token is configured every caller must bring
one: as `Authorization: Bearer …`, in op's hello, or as `?token=…` on an upgrade. Two principals share nothing: no
execution, no kept outcome, no `get_request`.

`inflightd token new NAME` makes a token, and prints it once with the table to put into the file:

```toml
[principals.ci]
token_hash = \"blake3:…\"
expires = \"2027-01-31\"
max_inflight = 4
priority_ceiling = \"low\"
tools = [\"chat\", \"code*\", \"get_request\"]
```

A name is 1 to 64 of the characters a-z 0-9 _ -. `[principals.local]` bounds who brings `INFLIGHTD_TOKEN`, or everybody
where there is no token. From `expires` on, calls on connections that are open already are refused, too. A client
collects with `get_request` what outlasted its patience, and `inflightd healthcheck` calls `health`: a list of tools
that leaves them out takes these away, and one without `get_server_stats` takes away statistics on every door.

| member | such as | what it is for |
|---|---|---|
";

const MODULES: &str = "
## Local commands of your own

A program that callers may run with `run_module` and `run_batch` ([modules](modules.md)), under a name of your choosing:

```toml
[modules.lint]
program = \"/usr/bin/python3\"
args = [\"tools/lint.py\"]
cwd = [\"/srv/repos\"]
env = [\"PATH\"]
effect = \"read\"
timeout_secs = 60
```

A name is 1 to 64 of the characters A-Z a-z 0-9 _ - .

| member | such as | what it is for |
|---|---|---|
";

const AFTERWORD: &str = "
## The ladder of timeouts

provider ≤ tool < daemon < shim < client: who is further out waits longer, so that nobody gives up on an answer that is
still coming. The tool's rung is the longer of the two tool timeouts. Set what you care about, and what you leave unset
follows: outwards daemon = the longer of 1.5 × tool and tool + queue, shim = 4/3 × daemon, client = 5/3 × daemon;
inwards tool ≤ daemon ÷ 1.5, queue ≤ daemon − tool, providers ≤ tool. The queue's budget is never longer than the tool
unless it is set so.

Only values that somebody set can violate the ladder, and then the daemon does not start: a rung that is not longer
than the one inside it, a provider that may take longer than every tool that is set, or queue + tool > daemon. A daemon
below 1.5 × tool is a warning, and so is a provider's limit that is not below `GLOBAL_MAX_INFLIGHT`.

An address that is not loopback needs a token: `INFLIGHTD_TOKEN`, or a principal's.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{env, keys};
    use std::path::Path;

    /// Compares a file of the repository with what it should be; with `UPDATE_DOCS=1`, writes it.
    fn stands_in(file: &str, expected: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if env::get("UPDATE_DOCS").is_some() {
            std::fs::write(&path, expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{file} is not what the table says: run `UPDATE_DOCS=1 cargo test config`"
        );
    }

    #[test]
    fn env_example_stands_in_the_repository() {
        stands_in(".env.example", &env_example());
    }

    #[test]
    fn configuration_md_stands_in_the_repository() {
        stands_in("docs/configuration.md", &markdown());
    }

    #[test]
    fn every_key_is_shown_everywhere() {
        for key in keys::all() {
            assert!(env_example().contains(&format!("\n# {}=", key.name)), "{}", key.name);
            assert!(markdown().contains(&format!("| `{}` |", key.name)), "{}", key.name);
            assert!(help().contains(&format!("\n  {}", key.name)), "{}", key.name);
        }
    }

    #[test]
    fn plain_text_fits_a_terminal() {
        for line in help().lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }
}
