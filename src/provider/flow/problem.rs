//! What can be wrong with a flow file: each problem is one line, and all are found at once.

use std::fmt;

/// How much of a name that a file brought is shown.
const SHOWN_CHARS: usize = 100;

/// A text from a flow file as it is shown: on one line, and not endless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(Box<str>);

impl Shown {
    /// Cuts it, and takes out what would move a terminal's cursor.
    pub fn new(text: &str) -> Self {
        let mut shown: String = text
            .chars()
            .take(SHOWN_CHARS)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        if text.chars().nth(SHOWN_CHARS).is_some() {
            shown.push('…');
        }
        Self(shown.into())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where a text comes from.
    Out,
    /// Where it goes.
    In,
}

impl End {
    /// Its member in the file.
    pub fn label(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// One thing that is wrong with a flow file. Connections are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Larger than any flow is.
    #[error("The file has {bytes} bytes; {limit} are the most.")]
    TooLarge {
        /// How large it is, at least.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// A folder, a pipe, a device.
    #[error("It is no regular file.")]
    NoFile,
    /// Bytes that are no text.
    #[error("The file is not UTF-8.")]
    NotUtf8,
    /// Text that is no JSON.
    #[error("The file is not JSON: line {line}, column {column}.")]
    NotJson {
        /// Where it stops being JSON.
        line: usize,
        /// Likewise.
        column: usize,
    },
    /// JSON of another kind.
    #[error("The top level is not an object.")]
    TopLevel,
    /// A list, perhaps.
    #[error("'nodes' is not an object.")]
    NodesNoObject,
    /// Nothing to run.
    #[error("'nodes' is empty.")]
    NoNodes,
    /// More than are run.
    #[error("The flow has {found} {what}; {limit} are the most.")]
    TooMany {
        /// Nodes or connections.
        what: &'static str,
        /// How many.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// A node of another kind of JSON.
    #[error("Node '{0}' is not an object.")]
    NodeNoObject(Shown),
    /// Nobody knows what it does.
    #[error("Node '{0}' has no 'type_'.")]
    NoType(Shown),
    /// Likewise.
    #[error("Node '{node}' has the unknown type '{type_}'.")]
    UnknownType {
        /// Which node.
        node: Shown,
        /// What it says.
        type_: Shown,
    },
    /// Properties of another kind of JSON.
    #[error("Node '{0}' has a 'custom' that is not an object.")]
    CustomNoObject(Shown),
    /// An object, perhaps.
    #[error("'connections' is not an array.")]
    ConnectionsNoArray,
    /// A connection of another kind of JSON.
    #[error("Connection #{0} is not an object.")]
    ConnectionNoObject(usize),
    /// An end that is missing, or not a node's id with a port's name.
    #[error("Connection #{number} has an '{}' end that is no pair of node and port.", end.label())]
    NoPair {
        /// Which connection.
        number: usize,
        /// Which end.
        end: End,
    },
    /// An end at no node.
    #[error("Connection #{number} references missing node '{node}'.")]
    MissingNode {
        /// Which connection.
        number: usize,
        /// What it says.
        node: Shown,
    },
    /// An end at a node without such a port.
    #[error("Connection #{number} references {} port '{port}', which node '{node}' ({type_}) lacks.", end.label())]
    MissingPort {
        /// Which connection.
        number: usize,
        /// Which end.
        end: End,
        /// At which node.
        node: Shown,
        /// Of which type.
        type_: &'static str,
        /// What it says.
        port: Shown,
    },
    /// Nodes that wait for each other.
    #[error("Flow contains a cycle: {}", path.iter().map(|node| &*node.0).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The nodes, the first one again at the end.
        path: Vec<Shown>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_brings_is_shown_on_one_line_and_cut() {
        assert_eq!(Shown::new("a\n\u{1b}[2Jb").to_string(), "a  [2Jb");
        let long = Shown::new(&"é".repeat(5000)).to_string();
        assert_eq!(long.chars().count(), SHOWN_CHARS + 1);
    }
}
