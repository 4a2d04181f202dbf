//! The processes of a tree, as `/proc` shows them, and signals that cannot hit a stranger.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

/// How often is looked for new ones before those that are stopped are killed all the same: the next round goes on.
const MOST_LOOKS: usize = 64;

/// One process. Its number may be given again; with the time of its start it is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::provider::command) struct Process {
    pid: i32,
    started: u64,
}

/// What one line of `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy)]
struct Stat {
    process: Process,
    parent: i32,
    group: i32,
    session: i32,
    is_dead: bool,
}

/// Which processes are meant.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider::command) enum Meant {
    /// Everything that descends from this one.
    DescendantsOf(Pid),
    /// Everything in this session but its leader: what can still be told of a tree whose guard is gone.
    SessionOf(Pid),
}

impl Meant {
    /// Those that live.
    ///
    /// # Errors
    /// There is no `/proc` to look into.
    pub(in crate::provider::command) fn find(self) -> io::Result<Vec<Process>> {
        Ok(self.living()?.into_iter().map(|stat| stat.process).collect())
    }

    fn living(self) -> io::Result<Vec<Stat>> {
        let all: Vec<Stat> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(stat)
            .collect();
        let mut found = match self {
            Self::DescendantsOf(root) => descendants(&all, root.as_raw_nonzero().get()),
            Self::SessionOf(leader) => {
                let leader = leader.as_raw_nonzero().get();
                all.into_iter().filter(|stat| stat.session == leader && stat.process.pid != leader).collect()
            }
        };
        found.retain(|stat| !stat.is_dead);
        Ok(found)
    }

    /// Sends each of them a signal.
    ///
    /// # Errors
    /// There is no `/proc` to look into.
    pub(in crate::provider::command) fn signal(self, signal: Signal) -> io::Result<()> {
        self.find()?.into_iter().for_each(|process| process.signal(signal));
        Ok(())
    }

    /// Kills all of them: by their groups first, which the kernel does at one blow, also while they fork. What is in
    /// none of these is stopped until a look finds nothing new, since what is stopped cannot fork; then it is killed.
    ///
    /// # Errors
    /// There is no `/proc` to look into.
    pub(in crate::provider::command) fn kill(self) -> io::Result<()> {
        let own = own_group();
        let groups: HashSet<i32> = self.living()?.into_iter().map(|stat| stat.group).collect();
        for group in groups.into_iter().filter(|group| Some(*group) != own).filter_map(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let mut frozen = HashSet::new();
        for _ in 0..MOST_LOOKS {
            let new: Vec<_> = self.find()?.into_iter().filter(|process| !frozen.contains(process)).collect();
            if new.is_empty() {
                break;
            }
            for process in new {
                process.signal(Signal::STOP);
                frozen.insert(process);
            }
        }
        for process in frozen {
            process.signal(Signal::KILL);
        }
        Ok(())
    }
}

/// Kills the calling process's own children. None of their numbers is given again before it waits for them.
///
/// This is quick enough for what forks, leaves its group, and ends, over and over: when one is gone, the next one is a
/// child of its subreaper, and has no time to fork before the next look.
pub(super) fn kill_children() {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    for thread in threads.filter_map(Result::ok) {
        // A kernel may be without this file; then the rounds of looking through all processes must do.
        let Ok(children) = fs::read_to_string(thread.path().join("children")) else { continue };
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw)
        {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

/// All below `root`, dead ones too: what they left behind may not have been handed on yet.
fn descendants(all: &[Stat], root: i32) -> Vec<Stat> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for stat in all {
        children.entry(stat.parent).or_default().push(*stat);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    // Each process is the child of one other: this ends.
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            parents.push(child.process.pid);
            found.push(child);
        }
    }
    found
}

/// This process's group. Not by `getpgrp`: where the group's leader is outside of the PID namespace the kernel answers
/// zero, which is no number of a process.
fn own_group() -> Option<i32> {
    stat(getpid().as_raw_nonzero().get()).map(|stat| stat.group)
}

fn stat(pid: i32) -> Option<Stat> {
    // Its name may hold anything, not only UTF-8.
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &String::from_utf8_lossy(&line))
}

/// `PID (NAME) STATE PARENT GROUP SESSION …`: the name may hold spaces and parentheses; the start is the 22nd field.
fn parse(pid: i32, line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        process: Process { pid, started: fields.get(19)?.parse().ok()? },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        is_dead: matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

impl Process {
    /// Sends it a signal; nothing happens where it is gone.
    fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The handle stands for one process for ever: if that is still the one that was found, no other is hit.
        if stat(self.pid).is_some_and(|now| now.process == self) {
            // It may end meanwhile.
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_hides_no_field() {
        let line = "42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 0 0";
        let stat = parse(42, line).unwrap();
        assert_eq!((stat.parent, stat.session, stat.process.started), (7, 9, 777));
        assert!(!stat.is_dead);
        assert!(parse(42, "42 (cut").is_none());
    }

    #[test]
    fn descendants_are_found_at_any_depth_and_others_are_not() {
        let stat = |pid, parent| Stat {
            process: Process { pid, started: 0 },
            parent,
            group: 0,
            session: 0,
            is_dead: false,
        };
        let all = [stat(2, 1), stat(3, 2), stat(4, 3), stat(5, 1), stat(6, 4)];
        let mut found: Vec<_> = descendants(&all, 2).iter().map(|stat| stat.process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4, 6]);
    }

    #[test]
    fn what_is_in_a_session_is_found_but_for_its_leader() {
        // Where the tests run, their own session may be led from outside of the PID namespace: this one is led within.
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "sleep 600 & echo $!; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(leader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let session = Pid::from_raw(i32::try_from(leader.id()).unwrap()).unwrap();
        let found = Meant::SessionOf(session).find().unwrap();
        assert_eq!(
            found.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [line.trim().parse::<i32>().unwrap()]
        );
        Meant::SessionOf(session).kill().unwrap();
        leader.wait().unwrap();
    }
}
