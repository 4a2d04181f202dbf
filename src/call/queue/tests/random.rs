//! Whatever happens: permits balance, nobody waits beside a free one, and nobody is served out of turn.

use proptest::prelude::*;

use super::*;

const CLASSES: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

#[derive(Debug, Clone, Copy)]
enum Move {
    Queue { principal: u32, session: u64, class: usize },
    Try,
    Poll(usize),
    Leave(usize),
    GiveBack(usize),
    Reclass { at: usize, class: usize },
    Pass { ms: u64 },
    Close,
}

fn any_move() -> impl Strategy<Value = Move> {
    let queue = (0..3u32, 0..2u64, 0..3usize);
    prop_oneof![
        200 => queue.prop_map(|(principal, session, class)| Move::Queue { principal, session, class }),
        50 => Just(Move::Try),
        100 => any::<usize>().prop_map(Move::Poll),
        40 => any::<usize>().prop_map(Move::Leave),
        100 => any::<usize>().prop_map(Move::GiveBack),
        50 => (any::<usize>(), 0..3usize).prop_map(|(at, class)| Move::Reclass { at, class }),
        100 => (0..9_000u64).prop_map(|ms| Move::Pass { ms }),
        1 => Just(Move::Close),
    ]
}

/// One who waits, as the test knows it.
struct Known {
    waiting: Waiting,
    claim: Claim,
    arrival: usize,
    /// In which class it was seen last.
    class: Priority,
    /// Each principal's turns in that class since it waits there.
    turns: [usize; 3],
}

impl Known {
    fn new(waiting: Waiting, claim: Claim, arrival: usize) -> Self {
        Self { waiting, claim, arrival, class: claim.class, turns: [0; 3] }
    }

    /// The class it counts as by now; turns are counted afresh in each.
    fn class(&mut self) -> Priority {
        let (class, _) = self.claim.class.aged(self.claim.since, Instant::now());
        if class != self.class {
            (self.class, self.turns) = (class, [0; 3]);
        }
        class
    }
}

/// A pool, and what the test knows about it.
struct World {
    pool: Arc<Pool>,
    line: Vec<Known>,
    held: Vec<Permit>,
    arrivals: usize,
    /// Whether chosen ones take their permits at once: the order in which they are chosen can be seen then.
    eager: bool,
}

impl World {
    async fn step(&mut self, step: Move) -> Result<(), TestCaseError> {
        match step {
            Move::Queue { principal, session, class } => {
                let claim = claim(principal, session, CLASSES[class]);
                if let Ok(waiting) = self.pool.queue(&claim) {
                    self.line.push(Known::new(waiting, claim, self.arrivals));
                    self.arrivals += 1;
                }
            }
            Move::Try => self.held.extend(self.pool.try_take()),
            Move::Pass { ms } => advance(Duration::from_millis(ms)).await,
            Move::Close => self.pool.close(),
            Move::Poll(at) if !self.line.is_empty() => self.poll(at % self.line.len()),
            Move::Leave(at) if !self.line.is_empty() => drop(self.line.swap_remove(at % self.line.len())),
            Move::GiveBack(at) if !self.held.is_empty() => drop(self.held.swap_remove(at % self.held.len())),
            Move::Reclass { at, class } if !self.line.is_empty() => self.reclass(at % self.line.len(), class),
            Move::Poll(_) | Move::Leave(_) | Move::GiveBack(_) | Move::Reclass { .. } => {}
        }
        if self.eager { self.take_all() } else { Ok(()) }
    }

    fn poll(&mut self, at: usize) {
        if let Some(end) = (&mut self.line[at].waiting).now_or_never() {
            self.held.extend(end.ok());
            drop(self.line.swap_remove(at));
        }
    }

    fn reclass(&mut self, at: usize, class: usize) {
        let known = &mut self.line[at];
        known.waiting.place().unwrap().reclass(CLASSES[class]);
        known.claim.class = CLASSES[class];
        known.turns = [0; 3];
    }

    /// Everybody looks; whoever was chosen must have been the right one.
    fn take_all(&mut self) -> Result<(), TestCaseError> {
        let ended = |known: &mut Known| (&mut known.waiting).now_or_never();
        while let Some((at, end)) =
            self.line.iter_mut().enumerate().find_map(|(at, known)| Some((at, ended(known)?)))
        {
            let known = self.line.swap_remove(at);
            let Ok(permit) = end else { continue };
            self.held.push(permit);
            self.judge(known)?;
        }
        Ok(())
    }

    fn judge(&mut self, mut chosen: Known) -> Result<(), TestCaseError> {
        let class = chosen.class();
        let at = |principal: PrincipalId| usize::try_from(principal.0).unwrap();
        let (its, session) = (chosen.claim.principal, chosen.claim.session);
        for other in &mut self.line {
            prop_assert!(class <= other.class(), "a higher class goes first");
            if other.class() != class {
                continue;
            }
            let own = other.claim.principal;
            if its == own && session == other.claim.session {
                prop_assert!(chosen.arrival < other.arrival, "who came first goes first");
            }
            other.turns[at(its)] += 1;
            let ahead = other.turns[at(its)] - other.turns[at(own)].min(other.turns[at(its)]);
            prop_assert!(its == own || ahead <= 1, "principals take turns");
        }
        Ok(())
    }
}

fn play(world: World, moves: Vec<Move>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async move {
        let mut world = world;
        let limit = world.pool.view().limit;
        for each in moves {
            world.step(each).await?;
            let view = world.pool.view();
            prop_assert!(world.held.len() <= view.in_use && view.in_use <= limit);
            prop_assert!(view.queued == 0 || view.in_use == limit, "nobody waits beside a free permit");
            prop_assert!(view.queued <= world.line.len());
        }
        let World { pool, line, held, .. } = world;
        drop((line, held));
        prop_assert_eq!(pool.view(), PoolView { in_use: 0, limit, queued: 0 });
        Ok(())
    })
}

fn world(limit: usize, share: Share, eager: bool) -> World {
    World { pool: shared(limit, 8, share), line: Vec::new(), held: Vec::new(), arrivals: 0, eager }
}

fn any_share() -> impl Strategy<Value = Share> {
    prop::sample::select(vec![Share::All, Share::HalfOnceSeveral, Share::Half])
}

proptest! {
    #[test]
    fn whatever_happens_no_permit_is_lost_or_made(
        limit in 1..4usize,
        share in any_share(),
        moves in prop::collection::vec(any_move(), 0..200),
    ) {
        play(world(limit, share, false), moves)?;
    }

    #[test]
    fn whatever_happens_nobody_is_served_out_of_turn(
        limit in 1..3usize,
        moves in prop::collection::vec(any_move(), 0..300),
    ) {
        play(world(limit, Share::All, true), moves)?;
    }
}
