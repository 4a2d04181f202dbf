//! The bounds of what is kept.

use super::kept::{BYTES, OUTCOMES};
use super::*;
use crate::call::cache::OutcomeCache;
use crate::call::flight::{About, Boarding, FlightRules};
use crate::call::flights::{Aboard, Flights, RunGuard};
use crate::call::key::Form;
use crate::call::queue::Priority;
use crate::config::{Sources, resolve};
use crate::deadline::Deadline;
use crate::provider::Reply;
use crate::provider::catalog::Catalog;
use crate::tool::Registry;

const MINUTE: Duration = Duration::from_secs(60);

/// Flights of `echo` that land when told to.
struct Rig {
    flights: Arc<Flights>,
    tool: Arc<Tool>,
    attachments: Attachments,
}

impl Rig {
    fn new() -> Self {
        let config = resolve(Sources::default()).unwrap().config;
        let registry = Registry::new(Catalog::new(&config).unwrap(), &[], &config.ladder).unwrap();
        let tool = Arc::clone(registry.find("echo").unwrap());
        Self {
            flights: Arc::new(Flights::new(10_000, OutcomeCache::new(0, MINUTE))),
            tool,
            attachments: Attachments::new(MINUTE),
        }
    }

    fn attach(&self, key: u128) -> Arc<Attachment> {
        self.attachments.attach(PrincipalId(0), SessionKey::new(key)).unwrap()
    }

    fn open(&self) -> (RunGuard, SeatNo) {
        let boarding = Boarding {
            key: None,
            arguments: Form::default(),
            tool: Arc::clone(&self.tool),
            provider: Arc::from("offline"),
            rules: FlightRules { max_waiters: 9, reattach: MINUTE },
            keep: None,
            about: About::default(),
            at: Instant::now(),
            priority: Priority::Medium,
            can: crate::provider::asking::Can::NOTHING,
            until: Deadline::after(MINUTE),
        };
        match self.flights.board(boarding).unwrap() {
            Aboard::Opened(guard, seat) => (guard, seat),
            Aboard::Joined(..) => panic!("it has no key"),
        }
    }

    /// A call under this id that was answered with so many bytes.
    fn answered(&self, attachment: &Arc<Attachment>, id: usize, bytes: usize) {
        let (mut guard, seat) = self.open();
        guard.land(Ok(Arc::new(Reply::text(&"x".repeat(bytes)))));
        let request = RequestId::mint();
        let attached = attached(attachment, id);
        attached.begin(request, seat, guard.flight());
        attached.keep(request);
    }
}

fn attached(attachment: &Arc<Attachment>, id: usize) -> Attached {
    Attached { attachment: Arc::clone(attachment), id: Arc::from(id.to_string()) }
}

fn is_kept(attachment: &Arc<Attachment>, id: usize) -> bool {
    attached(attachment, id).find().is_some()
}

#[tokio::test(start_paused = true)]
async fn the_oldest_outcome_gives_way_to_the_newest() {
    let rig = Rig::new();
    let attachment = rig.attach(1);
    (0..OUTCOMES + 3).for_each(|id| rig.answered(&attachment, id, 10));
    assert_eq!(attachment.kept().0, OUTCOMES);
    assert!(!is_kept(&attachment, 2) && is_kept(&attachment, 3));
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_bounded_in_bytes_and_one_that_is_too_large_is_not_kept() {
    let rig = Rig::new();
    let attachment = rig.attach(1);
    (0..9).for_each(|id| rig.answered(&attachment, id, BYTES / 8));
    assert!(!is_kept(&attachment, 0) && is_kept(&attachment, 8));
    assert!(attachment.kept().1 <= BYTES && rig.attachments.bytes() == attachment.kept().1);
    rig.answered(&attachment, 9, BYTES);
    assert_eq!((attachment.kept(), rig.attachments.bytes()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_kept_for_its_time_and_no_longer() {
    let rig = Rig::new();
    let attachment = rig.attach(1);
    rig.answered(&attachment, 1, 10);
    tokio::time::advance(MINUTE.checked_sub(Duration::from_millis(1)).unwrap()).await;
    assert!(is_kept(&attachment, 1));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!is_kept(&attachment, 1));
    drop(attachment);
    rig.attachments.sweep();
    assert_eq!((rig.attachments.sessions(), rig.attachments.bytes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_lands_after_its_waiter_left_counts_as_well() {
    let rig = Rig::new();
    let attachment = rig.attach(1);
    let mut landed = Vec::new();
    for id in 0..=OUTCOMES {
        let (guard, seat) = rig.open();
        let request = RequestId::mint();
        attached(&attachment, id).begin(request, seat, guard.flight());
        attached(&attachment, id).leave(request);
        landed.push(guard);
    }
    assert!(is_kept(&attachment, 0));
    for guard in &mut landed {
        guard.land(Ok(Arc::new(Reply::text("late"))));
    }
    assert!(!is_kept(&attachment, 0) && is_kept(&attachment, 1));
    let (mut stopped, seat) = rig.open();
    let request = RequestId::mint();
    attached(&attachment, 999).begin(request, seat, stopped.flight());
    attached(&attachment, 999).leave(request);
    stopped.land(Err(Arc::new(CallError::Cancelled)));
    assert!(!is_kept(&attachment, 999));
    assert_eq!(attachment.kept().0, OUTCOMES);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_used_again_holds_one_place() {
    let rig = Rig::new();
    let attachment = rig.attach(1);
    (0..9).for_each(|_| rig.answered(&attachment, 7, 10));
    assert_eq!(attachment.kept().0, 1);
    let (guard, seat) = rig.open();
    let request = RequestId::mint();
    attached(&attachment, 7).begin(request, seat, guard.flight());
    assert_eq!(attachment.kept(), (0, 0));
    // One that was replaced changes nothing.
    attached(&attachment, 7).forget(RequestId::mint());
    assert!(is_kept(&attachment, 7));
    attached(&attachment, 7).forget(request);
    assert!(!is_kept(&attachment, 7));
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_are_bounded() {
    let rig = Rig::new();
    let attachment = rig.attach(1);
    let (guard, seat) = rig.open();
    let begin = |id| attached(&attachment, id).begin(RequestId::mint(), seat, guard.flight());
    (0..5000).for_each(begin);
    assert!(is_kept(&attachment, 1000) && !is_kept(&attachment, 4999));
}

#[tokio::test(start_paused = true)]
async fn the_session_that_is_gone_longest_gives_way_and_one_in_use_never_does() {
    let rig = Rig::new();
    let held = rig.attach(0);
    for key in 1..10_000 {
        let attachment = rig.attach(key);
        rig.answered(&attachment, 1, 1);
        tokio::time::advance(Duration::from_micros(1)).await;
    }
    assert_eq!(rig.attachments.sessions(), SESSIONS);
    let next = rig.attach(10_000);
    assert_eq!(rig.attachments.sessions(), SESSIONS);
    assert!(is_kept(&rig.attach(2), 1) && !is_kept(&rig.attach(1), 1));
    assert!(Arc::ptr_eq(&held, &rig.attach(0)) && Arc::ptr_eq(&next, &rig.attach(10_000)));
}

#[tokio::test(start_paused = true)]
async fn all_sessions_together_are_bounded_in_bytes() {
    let rig = Rig::new();
    for key in 0..80 {
        let attachment = rig.attach(key);
        rig.answered(&attachment, 1, BYTES - 2000);
    }
    let bytes = rig.attachments.bytes();
    assert!(bytes <= kept::ALL_BYTES && bytes > kept::ALL_BYTES - BYTES, "{bytes}");
}
