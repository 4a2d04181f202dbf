//! The node types: their ports, and what their properties are when nobody says anything.

/// What stands before each type's name.
const FAMILY: &str = "aicp.flow.";

/// Where texts are written, and where the editor keeps its context, unless a node says otherwise.
pub const CONTEXT_PATH: &str = ".aicp/context_block.md";

/// Where `OpenRouter` is.
pub const OPENROUTER_URL: &str = "https://openrouter.ai/api/v1";
/// Where `OpenAI` is.
pub const OPENAI_URL: &str = "https://api.openai.com/v1";
/// Where Gemini is.
pub const GEMINI_URL: &str = "https://generativelanguage.googleapis.com/v1beta";

/// The most candidates that one node judges.
pub const MOST_CANDIDATES: u8 = 10;

/// The one output port there is.
pub const OUTPUT: &str = "text";

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Gives the context text.
    ContextOutput,
    /// Keeps its text as the artifact `clipboard`.
    Clipboard,
    /// Writes its text into a file.
    FileWrite,
    /// Its text is the flow's output.
    OutputDisplay,
    /// One chat call.
    OpenRouter,
    /// One chat call.
    OpenAi,
    /// One chat call.
    Gemini,
    /// One chat call, to whatever endpoint is configured.
    OpenAiCompatible,
    /// One chat call that judges candidates.
    BestOfN,
}

/// An input of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// `text`
    Text,
    /// `system`
    System,
    /// `context`
    Context,
    /// `candidate1` to `candidate10`
    Candidate(u8),
}

impl Port {
    /// The port of this name, whichever type has it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "system" => Some(Self::System),
            "context" => Some(Self::Context),
            _ => {
                let number: u8 = name.strip_prefix("candidate")?.parse().ok()?;
                let exact = (1..=MOST_CANDIDATES).contains(&number) && name == format!("candidate{number}");
                exact.then_some(Self::Candidate(number))
            }
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::System => f.write_str("system"),
            Self::Context => f.write_str("context"),
            Self::Candidate(number) => write!(f, "candidate{number}"),
        }
    }
}

impl NodeKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ContextOutput,
        Self::Clipboard,
        Self::FileWrite,
        Self::OutputDisplay,
        Self::OpenRouter,
        Self::OpenAi,
        Self::Gemini,
        Self::OpenAiCompatible,
        Self::BestOfN,
    ];

    /// The kind of this `type_`.
    pub fn parse(type_: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_() == type_)
    }

    /// Its `type_` in the file.
    pub fn type_(self) -> &'static str {
        match self {
            Self::ContextOutput => "aicp.flow.ContextOutputNode",
            Self::Clipboard => "aicp.flow.ClipboardNode",
            Self::FileWrite => "aicp.flow.FileWriteNode",
            Self::OutputDisplay => "aicp.flow.OutputDisplayNode",
            Self::OpenRouter => "aicp.flow.OpenRouterNode",
            Self::OpenAi => "aicp.flow.OpenAINode",
            Self::Gemini => "aicp.flow.GeminiNode",
            Self::OpenAiCompatible => "aicp.flow.OpenAICompatibleNode",
            Self::BestOfN => "aicp.flow.BestOfNNode",
        }
    }

    /// The same without what all have in common.
    pub fn short(self) -> &'static str {
        self.type_().strip_prefix(FAMILY).unwrap_or(self.type_())
    }

    /// Whether it has this input.
    pub fn takes(self, port: Port) -> bool {
        match self {
            Self::ContextOutput => false,
            Self::Clipboard | Self::FileWrite | Self::OutputDisplay => port == Port::Text,
            Self::OpenRouter | Self::OpenAi | Self::Gemini | Self::OpenAiCompatible => {
                matches!(port, Port::Text | Port::System)
            }
            Self::BestOfN => matches!(port, Port::Context | Port::Candidate(_)),
        }
    }

    /// Whether it has the output `text`.
    pub fn gives(self) -> bool {
        match self {
            Self::Clipboard | Self::FileWrite | Self::OutputDisplay => false,
            Self::ContextOutput
            | Self::OpenRouter
            | Self::OpenAi
            | Self::Gemini
            | Self::OpenAiCompatible
            | Self::BestOfN => true,
        }
    }

    /// Whether it asks a model.
    pub fn chats(self) -> bool {
        self.gives() && self != Self::ContextOutput
    }

    /// Where it asks, unless it says otherwise; `None` is whatever endpoint is configured.
    pub fn base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenRouter | Self::BestOfN => Some(OPENROUTER_URL),
            Self::OpenAi => Some(OPENAI_URL),
            Self::Gemini => Some(GEMINI_URL),
            Self::OpenAiCompatible
            | Self::ContextOutput
            | Self::Clipboard
            | Self::FileWrite
            | Self::OutputDisplay => None,
        }
    }

    /// Whom it asks, unless it says otherwise, by the name of a provider.
    pub fn provider(self) -> Option<&'static str> {
        match self {
            Self::OpenRouter | Self::BestOfN => Some("openrouter"),
            Self::OpenAi => Some("openai"),
            Self::Gemini => Some("gemini"),
            Self::OpenAiCompatible
            | Self::ContextOutput
            | Self::Clipboard
            | Self::FileWrite
            | Self::OutputDisplay => None,
        }
    }

    /// How it finds its model, unless it says otherwise.
    pub fn model_mode(self) -> ModelMode {
        if self == Self::OpenRouter { ModelMode::RandomFree } else { ModelMode::Choose }
    }
}

/// How a node finds its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelMode {
    /// It names one, or takes the provider's own.
    Choose,
    /// Any of the provider's list.
    Random,
    /// Any of those that cost nothing: their names end in `:free`.
    RandomFree,
}

impl ModelMode {
    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "choose" => Some(Self::Choose),
            "random" => Some(Self::Random),
            "random_free" => Some(Self::RandomFree),
            _ => None,
        }
    }

    /// Its name in the file.
    pub fn label(self) -> &'static str {
        match self {
            Self::Choose => "choose",
            Self::Random => "random",
            Self::RandomFree => "random_free",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_the_ports_of_the_specification() {
        let candidates = (1..=10).map(|number| format!("candidate{number}"));
        let names: Vec<String> =
            ["text", "system", "context"].map(String::from).into_iter().chain(candidates).collect();
        let inputs = |type_: &str| {
            let kind = NodeKind::parse(&format!("aicp.flow.{type_}")).unwrap();
            let has = |name: &&String| Port::parse(name).is_some_and(|port| kind.takes(port));
            (names.iter().filter(has).map(String::as_str).collect::<Vec<_>>().join(" "), kind.gives())
        };
        assert_eq!(inputs("ContextOutputNode"), (String::new(), true));
        for type_ in ["ClipboardNode", "FileWriteNode", "OutputDisplayNode"] {
            assert_eq!(inputs(type_), ("text".to_owned(), false));
        }
        for type_ in ["OpenRouterNode", "OpenAINode", "GeminiNode", "OpenAICompatibleNode"] {
            assert_eq!(inputs(type_), ("text system".to_owned(), true));
        }
        let judged = "context candidate1 candidate2 candidate3 candidate4 candidate5 candidate6 candidate7 candidate8 \
            candidate9 candidate10";
        assert_eq!(inputs("BestOfNNode"), (judged.to_owned(), true));
    }

    #[test]
    fn a_port_is_its_exact_name() {
        for name in [
            "",
            "Text",
            "candidate",
            "candidate0",
            "candidate01",
            "candidate11",
            "candidate+1",
            "candidate 1",
        ] {
            assert_eq!(Port::parse(name), None, "{name}");
        }
        for port in [Port::Text, Port::System, Port::Context, Port::Candidate(10)] {
            assert_eq!(Port::parse(&port.to_string()), Some(port));
        }
    }

    #[test]
    fn each_type_asks_where_the_specification_says() {
        let asks = |kind: NodeKind| (kind.base_url(), kind.model_mode().label());
        assert_eq!(asks(NodeKind::OpenRouter), (Some("https://openrouter.ai/api/v1"), "random_free"));
        assert_eq!(asks(NodeKind::OpenAi), (Some("https://api.openai.com/v1"), "choose"));
        let gemini = "https://generativelanguage.googleapis.com/v1beta";
        assert_eq!(asks(NodeKind::Gemini), (Some(gemini), "choose"));
        assert_eq!(asks(NodeKind::OpenAiCompatible), (None, "choose"));
        assert_eq!(asks(NodeKind::BestOfN), (Some("https://openrouter.ai/api/v1"), "choose"));
    }
}
