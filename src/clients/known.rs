//! Clients whose limits are known, by the name that they give in `clientInfo`.
//!
//! An entry needs a source that anybody can look up; who has none is unknown. Where a client's users can change its
//! limit, the entry is its default, and of several versions the shortest: an answer that comes too early can be
//! collected, one that comes too late is lost.

use std::time::Duration;

use super::{Basis, Patience};

/// What is compared with the name that a client gives.
enum Name {
    Is(&'static str),
    /// Behind it stands what differs from one installation to the next.
    Begins(&'static str),
}

impl Name {
    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Is(known) => *known == name,
            Self::Begins(known) => name.starts_with(known),
        }
    }
}

const fn limited(secs: u64, progress_resets: bool) -> Patience {
    Patience::Limited { after: Duration::from_secs(secs), progress_resets, basis: Basis::Known }
}

const TABLE: &[(Name, Patience)] = &[
    // src/client.rs: a command waits as long as the daemon works, or as its own --timeout says, which it tells.
    (Name::Is(crate::ids::CLI_NAME), Patience::Unlimited),
    // The Python SDK's default name (github.com/TianqiZhang/mcp-client-registry), and no limit by default:
    // github.com/modelcontextprotocol/python-sdk/issues/1374.
    (Name::Is("mcp"), Patience::Unlimited),
    // Waits until its user cancels: github.com/microsoft/vscode/issues/311595 (the Insiders' name has a suffix).
    (Name::Begins("Visual Studio Code"), Patience::Unlimited),
    // Gives up after 5 minutes (WebSocket, HTTP) or 30 (stdio) without progress; MCP_TOOL_TIMEOUT, its limit for the
    // whole, is 27.8 h by default: github.com/vfarcic/dot-ai/pull/708, github.com/laurigates/claude-plugins/pull/2059.
    (Name::Is("claude-code"), limited(300, true)),
    // Claude Desktop keeps the TypeScript SDK's 60 s, and nothing changes it:
    // github.com/anthropics/claude-code/issues/22542; its name: github.com/TianqiZhang/mcp-client-registry.
    (Name::Is("claude-ai"), limited(60, false)),
    // 60 s once (github.com/kky42/codex-as-mcp/issues/5), later 120 and 300 (github.com/openai/codex/pull/28234);
    // progress does not move its SDK's limit: github.com/modelcontextprotocol/rust-sdk/issues/834.
    (Name::Is("codex-mcp-client"), limited(60, false)),
    // `DEFAULT_REQUEST_TIMEOUT` in crates/context_server/src/client.rs, github.com/zed-industries/zed/pull/45378.
    (Name::Is("Zed"), limited(60, false)),
    // `MCP_DEFAULT_TIMEOUT_MSEC` in packages/core/src/tools/mcp-client.ts, github.com/google-gemini/gemini-cli; the name
    // of the server may stand behind its own.
    (Name::Begins("gemini-cli-mcp-client"), limited(600, false)),
];

/// How long a client of this name waits.
pub(super) fn patience(name: &str) -> Patience {
    TABLE.iter().find(|(known, _)| known.fits(name)).map_or(Patience::Unknown, |(_, patience)| *patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_whole_name_or_by_how_it_begins() {
        assert_eq!(patience("claude-ai"), limited(60, false));
        assert_eq!(patience("claude-ai2"), Patience::Unknown);
        assert_eq!(patience("Visual Studio Code - Insiders"), Patience::Unlimited);
        assert_eq!(patience("gemini-cli-mcp-client-inflightd"), limited(600, false));
        assert_eq!(patience(crate::ids::CLI_NAME), Patience::Unlimited);
        assert_eq!(patience(""), Patience::Unknown);
    }
}
