//! Where clients keep their configuration.

use std::path::{Path, PathBuf};

/// A client whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    ClaudeDesktop,
    ClaudeCode,
    Cursor,
    VsCode,
    Windsurf,
}

impl Client {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "Claude Desktop",
            Self::ClaudeCode => "Claude Code",
            Self::Cursor => "Cursor",
            Self::VsCode => "VS Code",
            Self::Windsurf => "Windsurf",
        }
    }

    /// What is put behind a name that another client uses otherwise.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "desktop",
            Self::ClaudeCode => "claude",
            Self::Cursor => "cursor",
            Self::VsCode => "vscode",
            Self::Windsurf => "windsurf",
        }
    }

    /// The member that its servers stand in.
    pub(super) fn member(self) -> &'static str {
        match self {
            Self::VsCode => "servers",
            Self::ClaudeDesktop | Self::ClaudeCode | Self::Cursor | Self::Windsurf => "mcpServers",
        }
    }

    /// Whether it wants to be told that a server speaks over stdio.
    pub(super) fn wants_type(self) -> bool {
        matches!(self, Self::VsCode | Self::ClaudeCode)
    }
}

/// A file of a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) path: PathBuf,
    /// The project that it is for: its servers run there.
    pub(super) project: Option<PathBuf>,
}

/// From where files are looked for.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    pub(super) home: PathBuf,
    /// Where Linux keeps configuration.
    pub(super) config: PathBuf,
    /// Where Claude Code was told to keep its own.
    pub(super) claude: Option<PathBuf>,
    /// A project, whose files are looked at too.
    pub(super) project: Option<PathBuf>,
}

/// Every file that is there, each once.
pub(super) fn find(roots: &Roots) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    let mut add = |client, path: PathBuf, project: Option<&PathBuf>| {
        // A file that two names lead to is one file; dotfiles often are links.
        let Ok(path) = path.canonicalize() else { return };
        if path.is_file() && found.iter().all(|place| place.path != path) {
            found.push(Place { client, path, project: project.cloned() });
        }
    };
    let Roots { home, config, claude, project } = roots;
    let mac = home.join("Library/Application Support");
    let windows = home.join("AppData/Roaming");
    for base in [config, &mac, &windows] {
        add(Client::ClaudeDesktop, base.join("Claude/claude_desktop_config.json"), None);
    }
    add(Client::ClaudeCode, claude.as_ref().unwrap_or(home).join(".claude.json"), None);
    add(Client::Cursor, home.join(".cursor/mcp.json"), None);
    for base in [config, &mac, &windows] {
        for edition in ["Code", "Code - Insiders"] {
            let user = base.join(edition).join("User");
            add(Client::VsCode, user.join("mcp.json"), None);
            for profile in folders(&user.join("profiles")) {
                add(Client::VsCode, profile.join("mcp.json"), None);
            }
        }
    }
    add(Client::Windsurf, home.join(".codeium/windsurf/mcp_config.json"), None);
    if let Some(folder) = project {
        add(Client::ClaudeCode, folder.join(".mcp.json"), Some(folder));
        add(Client::Cursor, folder.join(".cursor/mcp.json"), Some(folder));
        add(Client::VsCode, folder.join(".vscode/mcp.json"), Some(folder));
    }
    found
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(of) else { return Vec::new() };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders
}
