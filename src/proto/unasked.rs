//! What clients are told of without having called: that lists have changed, and resources.

use std::sync::Arc;

use crate::provider::upstream::Server;

/// Resources that one client may watch at one time, or one subscription may name.
pub const RESOURCES: usize = 256;

/// One of the lists that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Of tools.
    Tools,
    /// Of prompts.
    Prompts,
    /// Of resources, and of their templates.
    Resources,
}

impl List {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];
}

/// Of which lists somebody is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lists {
    /// Of tools.
    pub tools: bool,
    /// Of prompts.
    pub prompts: bool,
    /// Of resources.
    pub resources: bool,
}

impl Lists {
    /// Whether that one is among them.
    pub fn has(self, list: List) -> bool {
        match list {
            List::Tools => self.tools,
            List::Prompts => self.prompts,
            List::Resources => self.resources,
        }
    }
}

/// What one client wants to be told of.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Changes of these lists.
    pub lists: Lists,
    /// Changes of these resources, each at its server.
    pub resources: Vec<(Arc<Server>, Box<str>)>,
}

/// Something to tell.
#[derive(Debug, Clone, Copy)]
pub enum Unasked<'a> {
    /// A list is another one. Which entry of it changed is not looked into: whoever cares asks again.
    Changed(List),
    /// A resource has changed.
    Updated(&'a str),
    /// Nothing more is told.
    Ended,
}
