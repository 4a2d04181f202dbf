//! What all doors share: the path of a call, who may come in, and the bounds of a connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::call::reattach::Attachment;
use crate::call::{Caller, Calls, ClientSession, Principal, SessionEnded};
use crate::clients::Clients;
use crate::config::{Config, Ladder, Limits};
use crate::health::Health;
use crate::ids::{ClientSessionId, PrincipalId, SessionKey};
use crate::proto::{Auth, Turn, View};
use crate::tasks::Tasks;

mod changes;
mod doctor;
mod subscription;

pub use changes::Changes;
pub use subscription::Subscription;

/// Told to every connection at the end. Asking costs a load: a token alone takes a lock that all share.
#[derive(Debug, Default)]
pub struct Closing {
    set: AtomicBool,
    token: CancellationToken,
}

/// Resolves when connections are to be closed.
pub type Closed = WaitForCancellationFutureOwned;

impl Closing {
    /// Connections are to be closed.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether they are.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Resolves when they are.
    pub fn wait(&self) -> Closed {
        self.token.clone().cancelled_owned()
    }
}

/// What all doors share.
pub struct Hub {
    /// The path of a call.
    pub calls: Arc<Calls>,
    /// The daemon's own health.
    pub health: Arc<Health>,
    /// Who may come in.
    pub auth: Auth,
    /// Timeouts to announce.
    pub ladder: Ladder,
    /// Bounds.
    pub limits: Limits,
    /// Who the clients are, and when they give up.
    pub clients: Clients,
    /// How many connections are open.
    pub connections: Arc<AtomicUsize>,
    /// Set when connections are to be closed.
    pub closing: Closing,
    /// Where tasks start.
    pub tasks: Tasks,
    sessions: AtomicU64,
    /// Tells those who have something for one session alone that it has ended.
    ended: SessionEnded,
    /// What stands for a session over HTTP: one for each principal and address.
    addresses: Mutex<BTreeMap<(PrincipalId, IpAddr), Weak<ClientSession>>>,
}

impl Hub {
    /// The doors of a daemon.
    pub fn new(config: &Config, calls: Arc<Calls>, health: Arc<Health>, tasks: Tasks) -> Self {
        let known = Arc::downgrade(&calls);
        let ended = move |session| {
            let Some(calls) = known.upgrade() else { return };
            for server in calls.registry().servers() {
                server.session_ended(session);
            }
        };
        Self {
            ended: Arc::new(ended),
            calls,
            health,
            auth: Auth::new(&config.principals, config.limits.queue),
            ladder: config.ladder.clone(),
            limits: config.limits.clone(),
            clients: Clients::new(config.ladder.daemon, config.unknown_client_limit),
            connections: Arc::default(),
            closing: Closing::default(),
            tasks,
            sessions: AtomicU64::new(1),
            addresses: Mutex::default(),
        }
    }

    /// A caller with a session of its own: a WebSocket has one.
    pub fn new_caller(&self, principal: Arc<Principal>) -> Caller {
        Caller { principal, session: Arc::new(self.mint()), attachment: None }
    }

    /// The caller that stands for a principal at an address over HTTP.
    pub fn caller_at(&self, principal: Arc<Principal>, address: IpAddr) -> Caller {
        let place = (principal.id, address);
        let mut addresses = self.addresses.lock();
        let known = addresses.get(&place).and_then(Weak::upgrade);
        let session = known.unwrap_or_else(|| {
            // Sessions of addresses that call no more are gone already; their entries go here.
            addresses.retain(|at, session| *at == place || session.strong_count() > 0);
            let session = Arc::new(self.mint());
            addresses.insert(place, Arc::downgrade(&session));
            session
        });
        Caller { principal, session, attachment: None }
    }

    /// What is kept for this caller under the session key that its client brought.
    pub fn attach(&self, caller: &Caller, key: SessionKey) -> Option<Arc<Attachment>> {
        self.calls.attachments().attach(caller.principal.id, key)
    }

    fn mint(&self) -> ClientSession {
        let id = ClientSessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        ClientSession::new(id, self.limits.session, self.limits.queue).tells(&self.ended)
    }

    /// What a dialect may look at for this principal.
    pub fn view<'a>(&'a self, principal: &'a Principal) -> View<'a> {
        View {
            calls: &self.calls,
            insight: &*self.calls,
            ladder: &self.ladder,
            auth: &self.auth,
            principal,
            clients: &self.clients,
            turn: Turn::Free,
        }
    }
}
