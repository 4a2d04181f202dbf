//! Flights and their map, without the rest: seats, landings, and Runs that are lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};
use tokio::time::Instant;

use super::{Events, any, dawdle, in_every_interleaving};
use crate::call::cache::OutcomeCache;
use crate::call::flight::{About, Boarding, Flight, FlightRules, Leaving, SeatNo, Sight};
use crate::call::flights::{Aboard, Flights, RunGuard};
use crate::call::key::{CallKey, Form};
use crate::call::outcome::Outcome;
use crate::call::queue::Priority;
use crate::call::tests::rig::{Rig, secs};
use crate::deadline::Deadline;
use crate::ids::{PrincipalId, ToolId};
use crate::lifecycle::Executions;
use crate::provider::Reply;
use crate::tool::Tool;

/// Everybody who boards, and what was seen.
struct Port {
    flights: Arc<Flights>,
    tools: Vec<Arc<Tool>>,
    events: Events,
    /// What the seats of each generation were told.
    told: Mutex<HashMap<u64, String>>,
    /// Keys somebody works for, if nothing stops work before its end.
    working: Mutex<Vec<CallKey>>,
    calm: bool,
}

fn key(tool: u32) -> CallKey {
    CallKey {
        principal: PrincipalId(0),
        session: None,
        tool: ToolId(tool.into()),
        definition: 0,
        ordinal: 0,
        digest: 7,
    }
}

impl Port {
    async fn visits(self: &Arc<Self>) {
        let tool = thread_rng().gen_range(0..self.tools.len());
        let key = key(u32::try_from(tool).unwrap());
        let at = Instant::now();
        let boarding = Boarding {
            key: Some(key),
            arguments: Form::from("{}"),
            tool: Arc::clone(&self.tools[tool]),
            provider: Arc::from("stage"),
            rules: FlightRules { max_waiters: 4, reattach: secs(5) },
            keep: None,
            about: About::default(),
            at,
            priority: any(&[Priority::High, Priority::Medium, Priority::Low]),
            can: crate::provider::asking::Can::NOTHING,
            until: Deadline::since(at, secs(60)),
        };
        self.events.happened();
        let (flight, seat) = match self.flights.board(boarding) {
            Ok(Aboard::Joined(flight, seat)) => (flight, seat),
            Ok(Aboard::Opened(guard, seat)) => {
                let flight = Arc::clone(guard.flight());
                let port = Arc::clone(self);
                drop(spawn(async move { port.works(key, guard).await }));
                (flight, seat)
            }
            Err(_) => return,
        };
        dawdle(2).await;
        match thread_rng().gen_range(0..6) {
            0 => {
                let _ = flight.leave(seat, Leaving::ConnectionGone);
            }
            1 if !self.calm => {
                let (taken_back, events) = (Arc::clone(&flight), self.events.clone());
                let other = spawn(async move {
                    taken_back.cancel(seat);
                    events.happened();
                });
                self.waits(&flight, seat).await;
                other.await.unwrap();
            }
            2 if !self.calm => {
                let _ = flight.leave(seat, Leaving::DeadlineCame);
            }
            _ => self.waits(&flight, seat).await,
        }
        self.events.happened();
    }

    /// A Run: it ends by itself, is stopped, or is lost.
    async fn works(&self, key: CallKey, mut guard: RunGuard) {
        if self.calm {
            let mut working = self.working.lock();
            assert!(!working.contains(&key), "two work for one key");
            working.push(key);
        }
        let flight = Arc::clone(guard.flight());
        let work = dawdle(6);
        let lost = tokio::select! {
            biased;
            () = flight.stopped() => false,
            () = work => thread_rng().gen_ratio(1, 4),
        };
        self.events.happened();
        if self.calm {
            self.working.lock().retain(|each| *each != key);
        }
        if lost {
            drop(guard);
        } else {
            guard.land(Ok(Arc::new(Reply::text(&format!("of {}", flight.generation())))));
        }
    }

    async fn waits(&self, flight: &Arc<Flight>, seat: SeatNo) {
        let outcome = std::future::poll_fn(|cx| match flight.look(seat, None, cx) {
            Poll::Ready(Sight::Landed(outcome)) => Poll::Ready(Some(outcome)),
            Poll::Ready(Sight::Cancelled) => Poll::Ready(None),
            Poll::Ready(_) => unreachable!("who asks for no news is told only of the end"),
            Poll::Pending => Poll::Pending,
        });
        if let Some(outcome) = outcome.await {
            self.was_told(flight, &outcome);
        }
        let _ = flight.leave(seat, Leaving::Cancelled);
    }

    fn was_told(&self, flight: &Flight, outcome: &Outcome) {
        let says = match outcome {
            Ok(reply) => {
                assert!(
                    reply.content().contains(&format!("of {}", flight.generation())),
                    "another's outcome"
                );
                reply.content().to_owned()
            }
            Err(error) => error.to_string(),
        };
        let mut told = self.told.lock();
        assert_eq!(told.entry(flight.generation()).or_insert_with(|| says.clone()), &says);
        self.events.happened();
    }
}

fn visits(events: Events, calm: bool) {
    let cache = OutcomeCache::new(0, std::time::Duration::ZERO);
    let port = Arc::new(Port {
        flights: Arc::new(Flights::new(6, cache)),
        tools: tools(),
        events,
        told: Mutex::default(),
        working: Mutex::default(),
        calm,
    });
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let port = Arc::clone(&port);
            spawn(async move {
                for _ in 0..6 {
                    port.visits().await;
                    assert!(port.flights.executions() <= 6);
                }
            })
        })
        .collect();
    block_on(async {
        for visitor in visitors {
            visitor.await.unwrap();
        }
        // Every Run has an end: whoever forgot one waits here for ever.
        while port.flights.executions() > 0 {
            shuttle::future::yield_now().await;
        }
    });
    assert_eq!((port.flights.keys(), port.flights.without_run().len()), (0, 0));
}

/// A read and a write: the last waiter's leaving stops the one and not the other.
fn tools() -> Vec<Arc<Tool>> {
    let rig = Rig::new(&[]);
    ["look", "post"].map(|name| Arc::clone(rig.calls.registry().find(name).unwrap())).into()
}

#[test]
fn in_every_interleaving_one_key_has_one_run_at_a_time() {
    in_every_interleaving("one run a key", |events| visits(events, true));
}

#[test]
fn in_every_interleaving_each_seat_is_told_what_its_own_generation_came_to() {
    in_every_interleaving("seats", |events| visits(events, false));
}

#[test]
fn in_every_interleaving_nobody_who_is_refused_takes_anothers_room() {
    in_every_interleaving("room", |events| {
        let executions = Arc::new(Executions::new(2));
        let works = || {
            let (executions, events) = (Arc::clone(&executions), events.clone());
            spawn(async move {
                for _ in 0..4 {
                    let has_room = executions.open();
                    assert!(executions.active() <= 2, "one that was refused is counted");
                    events.happened();
                    dawdle(1).await;
                    if has_room {
                        executions.close();
                    }
                }
            })
        };
        let workers = [works(), works(), works()];
        block_on(async {
            for worker in workers {
                worker.await.unwrap();
            }
        });
        assert_eq!(executions.active(), 0);
    });
}
