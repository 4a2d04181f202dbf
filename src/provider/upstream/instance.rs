//! One process or session of a server, owned by one task: started, greeted, and started again when it ends, at once and
//! then with growing pauses.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::servers::Restart;
use crate::deadline::Deadline;
use crate::provider::upstream::child::{self, LastWords, Program, Running};
use crate::provider::upstream::greet::{self, Greeting, NoGreeting};
use crate::provider::upstream::http::{Address, Session};
use crate::provider::upstream::link::{Link, Param, Request};
use crate::provider::upstream::message::Era;
use crate::provider::upstream::pipe::{self, End, Failed, Hear, Oddities};
use crate::provider::upstream::questions::{Inbox, Present, questions};
use crate::provider::upstream::watched::Watched;
use crate::provider::{Level, Logged};
use crate::tasks::{TaskKind, Tasks};

/// One that lived so long had settled: when it ends, it is started at once.
const SETTLED: Duration = Duration::from_secs(10);
/// The first pause, doubled each time…
const PAUSE: Duration = Duration::from_secs(1);
/// …up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What a child that has ended may still have in its pipe.
const LEFT_IN_PIPE: Duration = Duration::from_millis(500);

/// How a server is reached.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    /// As a child.
    Program(Program),
    /// Over HTTP.
    Address(Address),
}

/// What every instance of a server goes by.
pub(super) struct Terms {
    pub(super) name: Arc<str>,
    pub(super) reach: Reach,
    pub(super) start: Duration,
    pub(super) restart: Restart,
    /// The longest message.
    pub(super) limit: usize,
    /// It is told that it may ask.
    pub(super) asks: bool,
    /// The era it was found to speak, for the next start.
    pub(super) era: KnownEra,
    /// Told when its tools may have changed.
    pub(super) changed: Arc<Notify>,
    pub(super) tasks: Tasks,
}

/// What is known of a server's era.
#[derive(Debug, Default)]
pub(super) struct KnownEra(AtomicU8);

impl KnownEra {
    pub(super) fn get(&self) -> Option<Era> {
        match self.0.load(Ordering::Relaxed) {
            1 | 3 => Some(Era::Handshake),
            2 => Some(Era::Stateless),
            _ => None,
        }
    }

    /// It may be an older one.
    fn guess(&self) {
        self.0.store(3, Ordering::Relaxed);
    }

    /// The guess was of no use.
    fn forget_guess(&self) {
        let _ = self.0.compare_exchange(3, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn set(&self, era: Era) {
        let number = match era {
            Era::Handshake => 1,
            Era::Stateless => 2,
        };
        self.0.store(number, Ordering::Relaxed);
    }
}

/// A connection that was greeted.
pub(super) struct Live {
    pub(super) link: Link,
    pub(super) greeting: Greeting,
    /// What a server of the older era was told of what it is to log.
    level: Mutex<Option<Level>>,
}

impl Live {
    /// Whether it is still to be told that it is to log from this level on; it is told once.
    pub(super) fn logs_less_than(&self, level: Level) -> bool {
        let mut told = self.level.lock();
        let less = told.is_none_or(|told| level < told);
        if less {
            *told = Some(level);
        }
        less
    }
}

/// Where an instance is.
#[derive(Clone)]
pub(super) enum State {
    /// It is being started.
    Starting,
    /// It answers.
    Ready(Arc<Live>),
    /// It is down, and is started again then.
    Waiting { until: Instant, why: Arc<str> },
    /// It is down for good.
    Over(Arc<str>),
}

/// What is told of an instance.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) process: AtomicU32,
    pub(super) starts: AtomicU32,
    pub(super) oddities: Arc<Oddities>,
    pub(super) last_words: LastWords,
    pub(super) last_end: Mutex<Option<Arc<str>>>,
}

/// An instance, for those who use it.
pub(super) struct Instance {
    state: watch::Receiver<State>,
    stop: CancellationToken,
    pub(super) shown: Arc<Shown>,
    /// Calls under way here.
    pub(super) present: Arc<Present>,
    /// What it is to tell of.
    pub(super) watched: Arc<Watched>,
}

impl Instance {
    /// Starts one.
    pub(super) fn start(terms: &Arc<Terms>) -> Self {
        let (set, state) = watch::channel(State::Starting);
        let (stop, shown) = (CancellationToken::new(), Arc::<Shown>::default());
        let (present, watched) = (Arc::<Present>::default(), Arc::<Watched>::default());
        let keeper = Keeper {
            terms: Arc::clone(terms),
            set,
            stop: stop.clone(),
            shown: Arc::clone(&shown),
            present: Arc::clone(&present),
            watched: Arc::clone(&watched),
            ready_at: Mutex::default(),
        };
        terms.tasks.spawn(TaskKind::Upstream, keeper.keep());
        Self { state, stop, shown, present, watched }
    }

    /// Where it is.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Resolves when it is elsewhere than it was.
    ///
    /// Cancel safe.
    pub(super) async fn moved(&self, from: &State) -> State {
        let mut state = self.state.clone();
        let moved = state.wait_for(|now| !same(now, from)).await.map(|state| state.clone());
        moved.unwrap_or_else(|_| State::Over(Arc::from("it was stopped")))
    }

    /// Ends it.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn same(a: &State, b: &State) -> bool {
    match (a, b) {
        (State::Starting, State::Starting) | (State::Over(_), State::Over(_)) => true,
        (State::Ready(a), State::Ready(b)) => Arc::ptr_eq(a, b),
        (State::Waiting { until: a, .. }, State::Waiting { until: b, .. }) => a == b,
        _ => false,
    }
}

/// Why one life of an instance has ended.
enum Ended {
    /// It was told to.
    Stopped,
    /// It does not know the newer era, and took the question for a reason to end.
    AtProbe,
    /// By itself, or it never began.
    ByItself(String),
}

/// The task of an instance.
struct Keeper {
    terms: Arc<Terms>,
    set: watch::Sender<State>,
    stop: CancellationToken,
    shown: Arc<Shown>,
    present: Arc<Present>,
    watched: Arc<Watched>,
    ready_at: Mutex<Option<Instant>>,
}

/// Hears what a server tells.
struct Ears {
    changed: Arc<Notify>,
    server: Arc<str>,
    watched: Arc<Watched>,
    /// Where questions go, if there is anybody to be asked.
    inbox: Option<Inbox>,
    /// Calls of the one client session that it works for.
    present: Option<Arc<Present>>,
}

impl Hear for Ears {
    fn notice(&self, method: &str, params: Option<&str>) {
        match method {
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => self.changed.notify_one(),
            "notifications/resources/updated" => self.watched.updated(params),
            "notifications/subscriptions/acknowledged" => self.watched.acknowledged(params),
            "notifications/message" => {
                if let (Some(present), Some(logged)) = (&self.present, params.and_then(Logged::read)) {
                    present.log(&logged);
                }
                let text: String = params.unwrap_or_default().chars().take(256).collect();
                tracing::debug!(server = &*self.server, "it logs {}", text.escape_debug());
            }
            "notifications/cancelled" => {
                if let Some(inbox) = &self.inbox {
                    inbox.cancelled(params);
                }
            }
            _ => {}
        }
    }

    fn question(&self, id: &str, method: &str, params: Option<&str>) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.question(id, method, params))
    }
}

impl Keeper {
    async fn keep(self) {
        let mut failures = 0;
        loop {
            self.set.send_replace(State::Starting);
            self.shown.starts.fetch_add(1, Ordering::Relaxed);
            let ended = self.live().await;
            self.shown.process.store(0, Ordering::Relaxed);
            let why = match ended {
                Ended::Stopped => break,
                // Only once: it is greeted as an older one next.
                Ended::AtProbe => {
                    self.terms.era.guess();
                    continue;
                }
                Ended::ByItself(why) => why,
            };
            self.terms.era.forget_guess();
            let ready_at = self.ready_at.lock().take();
            let settled = ready_at.is_some_and(|at| at.elapsed() >= SETTLED);
            failures = if settled { 0 } else { failures + 1 };
            let why: Arc<str> = Arc::from(why);
            *self.shown.last_end.lock() = Some(Arc::clone(&why));
            if self.terms.restart == Restart::Never {
                tracing::warn!(server = &*self.terms.name, "it is down and stays down: {why}");
                self.set.send_replace(State::Over(why));
                self.stop.cancelled().await;
                break;
            }
            let pause = pause(failures);
            tracing::warn!(server = &*self.terms.name, again_in_ms = pause.as_millis(), "it is down: {why}");
            if !pause.is_zero() {
                let until = Instant::now() + pause;
                self.set.send_replace(State::Waiting { until, why });
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = self.stop.cancelled() => break,
                }
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        self.set.send_replace(State::Over(Arc::from("it was stopped")));
    }

    async fn live(&self) -> Ended {
        match &self.terms.reach {
            Reach::Program(program) => self.live_as_child(program).await,
            Reach::Address(address) => self.live_over_http(address.clone()).await,
        }
    }

    fn ears(&self, inbox: Option<Inbox>) -> Arc<dyn Hear> {
        let (changed, server) = (Arc::clone(&self.terms.changed), Arc::clone(&self.terms.name));
        let present = inbox.is_some().then(|| Arc::clone(&self.present));
        let watched = Arc::clone(&self.watched);
        Arc::new(Ears { changed, server, watched, inbox, present })
    }

    async fn live_as_child(&self, program: &Program) -> Ended {
        let (mut running, pipes) = match child::start(program) {
            Ok(started) => started,
            Err(error) => return Ended::ByItself(format!("it cannot be started: {error}")),
        };
        self.shown.process.store(running.id().unwrap_or_default(), Ordering::Relaxed);
        let stderr =
            child::tell_stderr(Arc::clone(&self.terms.name), pipes.stderr, self.shown.last_words.clone());
        self.terms.tasks.spawn(TaskKind::Upstream, stderr);
        let oddities = Arc::clone(&self.shown.oddities);
        let (inbox, questions) = questions(&self.present);
        let ears = self.ears(self.terms.asks.then_some(inbox));
        let (pipe, mut driver) = pipe::connect(pipes.stdout, pipes.stdin, self.terms.limit, ears, oddities);
        let link = Link::Pipe(pipe.clone());
        let ended = {
            let driving = questions.beside(driver.run(&self.stop), pipe);
            tokio::pin!(driving);
            let greeting = tokio::select! {
                end = &mut driving => Err(self.why(end, &mut running).await),
                greeting = self.greet(&link) => greeting,
            };
            match greeting {
                Err(ended) => ended,
                Ok(greeting) => {
                    let live = self.ready(link, greeting);
                    tokio::select! {
                        never = self.watch(&live) => match never {},
                        end = &mut driving => self.why(end, &mut running).await,
                        status = running.ended() => {
                            // What it has still said is read; then nobody can say more.
                            let _ = Deadline::after(LEFT_IN_PIPE).limit(&mut driving).await;
                            Ended::ByItself(said(status))
                        }
                    }
                }
            }
        };
        // Whoever waits is answered once nobody can take the dead connection for a live one.
        if !self.stop.is_cancelled() {
            self.set.send_replace(State::Starting);
        }
        drop(driver);
        let _ = running.end().await;
        ended
    }

    /// Has a child tell of what changes, as long as it lives.
    async fn watch(&self, live: &Live) -> Infallible {
        match &live.link {
            Link::Pipe(pipe) if live.greeting.era == Era::Stateless => {
                let listen = |id, list: &str| {
                    let params = [("notifications", Param::Json(list))];
                    Request::new("subscriptions/listen", &params).write(id, Era::Stateless)
                };
                self.watched.listen_on(pipe, listen).await
            }
            Link::Pipe(_) | Link::Http(_) => self.watched.ask_for_each(live).await,
        }
    }

    async fn live_over_http(&self, address: Address) -> Ended {
        let oddities = Arc::clone(&self.shown.oddities);
        let (session, chores) = Session::new(address, self.terms.limit, self.ears(None), oddities);
        let link = Link::Http(Arc::clone(&session));
        let greeting = tokio::select! {
            () = self.stop.cancelled() => return Ended::Stopped,
            greeting = self.greet(&link) => greeting,
        };
        let greeting = match greeting {
            Ok(greeting) => greeting,
            Err(ended) => return ended,
        };
        let live = self.ready(link, greeting);
        session.keep(chores, &live, &self.watched, &self.stop).await;
        if self.stop.is_cancelled() {
            Ended::Stopped
        } else {
            Ended::ByItself("it knows the session no more".into())
        }
    }

    fn ready(&self, link: Link, greeting: Greeting) -> Arc<Live> {
        let (name, version) = (&*greeting.name, &*greeting.version);
        tracing::info!(server = &*self.terms.name, "it is ready: {name}, MCP {version}");
        self.terms.era.set(greeting.era);
        *self.ready_at.lock() = Some(Instant::now());
        self.watched.forget();
        let live = Arc::new(Live { link, greeting, level: Mutex::default() });
        self.set.send_replace(State::Ready(Arc::clone(&live)));
        self.terms.changed.notify_one();
        live
    }

    async fn greet(&self, link: &Link) -> Result<Greeting, Ended> {
        let greeted = Deadline::after(self.terms.start)
            .limit(greet::greet(link, self.terms.era.get(), self.terms.asks))
            .await;
        let Ok(greeted) = greeted else {
            let limit = self.terms.start.as_secs_f64();
            return Err(Ended::ByItself(format!("it did not answer initialize within {limit} s")));
        };
        greeted.map_err(|none| match none {
            // Its end is what is told, by whoever sees it.
            NoGreeting::EndedAtProbe => Ended::AtProbe,
            NoGreeting::Failed(failed) => Ended::ByItself(format!("it was not greeted: {}", shown(&failed))),
            NoGreeting::Revision(version) => Ended::ByItself(format!(
                "it speaks the revision {}, which is not known",
                version.escape_debug()
            )),
        })
    }

    /// What an end of the connection means.
    async fn why(&self, end: End, running: &mut Running) -> Ended {
        if end == End::Stopped || self.stop.is_cancelled() {
            return Ended::Stopped;
        }
        let status = Deadline::after(LEFT_IN_PIPE).limit(running.ended()).await;
        // One that was never greeted may have been frightened by the newer era.
        let was_asked = self.terms.era.get().is_none();
        match status {
            _ if was_asked => Ended::AtProbe,
            Ok(status) => Ended::ByItself(said(status)),
            Err(_) => Ended::ByItself("it closed its output".into()),
        }
    }
}

/// What a failure is called in our log.
pub(super) fn shown(failed: &Failed) -> String {
    match failed {
        Failed::Refused(refusal) => format!("error {}", refusal.code),
        Failed::NotSent(reason) | Failed::Broken(reason) => (*reason).to_owned(),
        Failed::Gone => "it has just ended".to_owned(),
        Failed::Status { status, .. } => format!("HTTP {status}"),
        Failed::TooLarge => "its answer is too large".to_owned(),
    }
}

fn said(status: Option<std::process::ExitStatus>) -> String {
    #[cfg(unix)]
    if let Some(signal) = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status)) {
        return format!("it was killed by signal {signal}");
    }
    match status.and_then(|status| status.code()) {
        Some(code) => format!("it exited with {code}"),
        None => "it ended".to_owned(),
    }
}

/// None for the first failure; then doubled, with a fifth of it left to chance so that many do not come back as one.
fn pause(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
    let pause = PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE);
    pause.mul_f64(0.8 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_the_others_come_later_and_later() {
        assert_eq!((pause(0), pause(1)), (Duration::ZERO, Duration::ZERO));
        let mut last = Duration::ZERO;
        for failures in 2..7 {
            let this = pause(failures);
            assert!(this > last, "{failures}: {this:?} after {last:?}");
            last = this;
        }
        assert!((48..=60).contains(&pause(100).as_secs()));
    }
}
