//! A sound flow: nodes, what each takes from where, and no node that waits for itself.

use std::sync::Arc;

use crate::provider::flow::format::Custom;
use crate::provider::flow::kind::{NodeKind, Port};
use crate::provider::flow::problem::{Problem, Shown};

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its opaque id in the file.
    pub id: Arc<str>,
    /// What its author calls it.
    pub name: Arc<str>,
    /// What it does.
    pub kind: NodeKind,
    /// Whether it is left out.
    pub disabled: bool,
    /// Its properties.
    pub custom: Custom,
}

/// One connection: the text of one node goes into a port of another. Nodes go by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// From whom.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// Into which input.
    pub port: Port,
}

/// A flow that can be run.
#[derive(Debug, PartialEq)]
pub struct Flow {
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// For each node, its inputs with their first source.
    inputs: Vec<Vec<(Port, usize)>>,
}

impl Flow {
    /// Puts nodes and their connections together; `problems` are those that were found before.
    ///
    /// # Errors
    /// These problems, and each circle in which nodes wait for each other.
    pub fn new(nodes: Vec<Node>, links: Vec<Link>, mut problems: Vec<Problem>) -> Result<Self, Vec<Problem>> {
        let mut sources = vec![Vec::new(); nodes.len()];
        let mut targets = vec![Vec::new(); nodes.len()];
        for link in &links {
            if let Some(sources) = sources.get_mut(link.to) {
                let sources: &mut Vec<(Port, usize)> = sources;
                if !sources.iter().any(|(port, _)| *port == link.port) {
                    sources.push((link.port, link.from));
                }
            }
            if let Some(targets) = targets.get_mut(link.from) {
                targets.push(link.to);
            }
        }
        for circle in circles(&targets) {
            let shown = |place: &usize| nodes.get(*place).map(|node| Shown::new(&node.id));
            problems.push(Problem::Cycle { path: circle.iter().filter_map(shown).collect() });
        }
        if problems.is_empty() { Ok(Self { nodes, links, inputs: sources }) } else { Err(problems) }
    }

    /// The nodes, in the order of the file.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The connections, in the order of the file.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The inputs of the node at this place: each port with its first source.
    pub fn inputs(&self, place: usize) -> &[(Port, usize)] {
        self.inputs.get(place).map_or(&[], Vec::as_slice)
    }

    /// The nodes, each behind those that it waits for.
    pub fn in_order(&self) -> Vec<usize> {
        let mut waits = vec![0_usize; self.nodes.len()];
        let mut followers = vec![Vec::new(); self.nodes.len()];
        for link in &self.links {
            if let Some(waits) = waits.get_mut(link.to) {
                *waits += 1;
            }
            if let Some(followers) = followers.get_mut(link.from) {
                followers.push(link.to);
            }
        }
        let mut order: Vec<usize> =
            (0..self.nodes.len()).filter(|place| waits.get(*place) == Some(&0)).collect();
        let mut next = 0;
        while let Some(place) = order.get(next).copied() {
            next += 1;
            for follower in followers.get(place).into_iter().flatten() {
                if let Some(waits) = waits.get_mut(*follower) {
                    *waits -= 1;
                    if *waits == 0 {
                        order.push(*follower);
                    }
                }
            }
        }
        order
    }
}

/// Where a walk stands with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    /// On the way from the start to here.
    Open,
    Done,
}

/// Circles that share no node, each with its first node again at its end: together never longer than all nodes, so that
/// no file makes more text of them than it is long. Without recursion: a file may hold a chain of any length.
fn circles(targets: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut marks = vec![Mark::New; targets.len()];
    let mut told = vec![false; targets.len()];
    let mut found = Vec::new();
    for start in 0..targets.len() {
        if marks.get(start) != Some(&Mark::New) {
            continue;
        }
        // The way to here, each node with how many of its targets were looked at.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, looked)) = way.last_mut() {
            let node = *node;
            if let Some(mark) = marks.get_mut(node) {
                *mark = Mark::Open;
            }
            let next = targets.get(node).and_then(|targets| targets.get(*looked)).copied();
            *looked += 1;
            let Some(next) = next else {
                if let Some(mark) = marks.get_mut(node) {
                    *mark = Mark::Done;
                }
                way.pop();
                continue;
            };
            match marks.get(next) {
                Some(Mark::New) => way.push((next, 0)),
                Some(Mark::Open) => found.extend(circle(&way, next, &mut told)),
                Some(Mark::Done) | None => {}
            }
        }
    }
    found
}

/// The circle that closes at `first`, unless one of its nodes is in another that was told.
fn circle(way: &[(usize, usize)], first: usize, told: &mut [bool]) -> Option<Vec<usize>> {
    let start = way.iter().rposition(|(node, _)| *node == first)?;
    let mut circle: Vec<usize> = way.get(start..)?.iter().map(|(node, _)| *node).collect();
    if circle.iter().any(|node| told.get(*node) == Some(&true)) {
        return None;
    }
    for node in &circle {
        if let Some(told) = told.get_mut(*node) {
            *told = true;
        }
    }
    circle.push(first);
    Some(circle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found_without_recursion_and_told_once() {
        assert_eq!(circles(&[vec![1], vec![0]]), [[0, 1, 0]]);
        assert_eq!(circles(&[vec![0]]), [[0, 0]]);
        assert_eq!(circles(&[vec![1, 1, 2], vec![2], vec![]]), Vec::<Vec<usize>>::new());
        assert_eq!(circles(&[vec![1], vec![2], vec![1], vec![3]]), [vec![1, 2, 1], vec![3, 3]]);
        let long: Vec<Vec<usize>> = (0..200_000).map(|node| vec![(node + 1) % 200_000]).collect();
        assert_eq!(circles(&long).first().map(Vec::len), Some(200_001));
    }

    #[test]
    fn a_thicket_of_circles_is_told_in_no_more_words_than_it_has_nodes() {
        let all: Vec<usize> = (0..300).collect();
        let told: usize = circles(&vec![all; 300]).iter().map(Vec::len).sum();
        assert!(told <= 600, "{told}");
    }
}
