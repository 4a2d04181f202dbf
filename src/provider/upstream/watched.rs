//! Resources that somebody wants to be told of when they change, and how one process or session of a server is brought
//! to tell: by a request for each in the older era, by one list of all in the stateless one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::deadline::Deadline;
use crate::provider::push_json_string;
use crate::provider::upstream::instance::Live;
use crate::provider::upstream::link::{Param, Request};
use crate::provider::upstream::listing::PAGE;
use crate::provider::upstream::message::Refusal;
use crate::provider::upstream::pipe::{Failed, Outcome, Pipe};

/// Requests of one server at once that only begin or end to watch.
const AT_ONCE: usize = 8;
/// How long a server that ended its stream of changes is left alone.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Whoever is told. It must not wait.
pub trait Watcher: Send + Sync {
    /// The resource at `uri` has changed, which is the one that was `watched`, or inside it.
    fn updated(&self, watched: &str, uri: &str);
}

/// What is watched through one instance, over all its lives.
#[derive(Default)]
pub(super) struct Watched {
    table: Mutex<Table>,
    /// Something more or less is watched.
    changed: Notify,
    /// The server has said yes or no to something.
    settled: Notify,
}

#[derive(Default)]
struct Table {
    last: u64,
    resources: BTreeMap<Box<str>, Resource>,
    /// The list that the server was sent last, and under which id.
    listed: Option<(u64, Vec<Box<str>>)>,
}

#[derive(Default)]
struct Resource {
    watchers: Vec<(u64, Arc<dyn Watcher>)>,
    /// What the server said; `None`: it is still to be asked.
    said: Option<Result<(), Failed>>,
}

/// A resource is watched as long as this is held.
pub struct Watch {
    watched: Arc<Watched>,
    uri: Box<str>,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.watched.table.lock();
        let Some(resource) = table.resources.get_mut(&self.uri) else { return };
        resource.watchers.retain(|(number, _)| *number != self.number);
        if resource.watchers.is_empty() {
            table.resources.remove(&self.uri);
            drop(table);
            self.watched.changed.notify_one();
        }
    }
}

impl Watched {
    /// Somebody wants to be told.
    pub(super) fn begin(self: &Arc<Self>, uri: &str, watcher: Arc<dyn Watcher>) -> Watch {
        let mut table = self.table.lock();
        table.last += 1;
        let number = table.last;
        let resource = table.resources.entry(uri.into()).or_default();
        resource.watchers.push((number, watcher));
        // One that was refused is asked for again.
        resource.said.take_if(|said| said.is_err());
        let asks = resource.said.is_none();
        drop(table);
        if asks {
            self.changed.notify_one();
        }
        Watch { watched: Arc::clone(self), uri: uri.into(), number }
    }

    /// Waits for what the server says. What nobody watches is settled.
    ///
    /// Cancel safe.
    pub(super) async fn settled(&self, uri: &str) -> Result<(), Failed> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            match self.table.lock().resources.get(uri).map(|resource| resource.said.clone()) {
                Some(Some(said)) => return said,
                Some(None) => {}
                None => return Ok(()),
            }
            settled.await;
        }
    }

    /// A resource has changed, says the server: perhaps one inside of what is watched.
    pub(super) fn updated(&self, params: Option<&str>) {
        #[derive(Deserialize)]
        struct Updated<'a> {
            #[serde(borrow)]
            uri: Cow<'a, str>,
        }
        let Some(Ok(updated)) = params.map(serde_json::from_str::<Updated<'_>>) else { return };
        let told: Vec<_> = {
            let table = self.table.lock();
            let of = table.resources.iter().filter(|(watched, _)| is_inside(&updated.uri, watched));
            of.flat_map(|(watched, resource)| {
                resource.watchers.iter().map(|(_, watcher)| (watched.clone(), Arc::clone(watcher)))
            })
            .collect()
        };
        for (watched, watcher) in told {
            watcher.updated(&watched, &updated.uri);
        }
    }

    /// The server says which of what it was sent it tells of.
    pub(super) fn acknowledged(&self, params: Option<&str>) {
        #[derive(Deserialize)]
        struct Acknowledged<'a> {
            #[serde(borrow, default)]
            notifications: Honoured<'a>,
            #[serde(default, rename = "_meta")]
            meta: Meta,
        }
        #[derive(Default, Deserialize)]
        struct Honoured<'a> {
            #[serde(borrow, default, rename = "resourceSubscriptions")]
            resources: Vec<Cow<'a, str>>,
        }
        #[derive(Default, Deserialize)]
        struct Meta {
            #[serde(default, rename = "io.modelcontextprotocol/subscriptionId")]
            subscription: Option<u64>,
        }
        let Some(Ok(said)) = params.map(serde_json::from_str::<Acknowledged<'_>>) else { return };
        let listed = {
            let mut table = self.table.lock();
            table.listed.take_if(|(id, _)| Some(*id) == said.meta.subscription)
        };
        for uri in listed.map(|(_, uris)| uris).unwrap_or_default() {
            let honoured = said.notifications.resources.contains(&Cow::Borrowed(&*uri));
            self.says(&uri, if honoured { Ok(()) } else { Err(does_not_tell()) });
        }
    }

    /// Another connection: the server knows of nothing.
    pub(super) fn forget(&self) {
        let mut table = self.table.lock();
        table.listed = None;
        table.resources.values_mut().for_each(|resource| resource.said = None);
    }

    /// Resolves once something more or less is watched than when this was called last.
    ///
    /// Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the stateless era is asked for, under this id: changes of all lists, and of these resources.
    pub(super) fn list(&self, id: u64) -> String {
        let mut table = self.table.lock();
        let uris: Vec<Box<str>> = table.resources.keys().cloned().collect();
        let mut list = String::from(
            "{\"toolsListChanged\":true,\"promptsListChanged\":true,\"resourcesListChanged\":true",
        );
        for (at, uri) in uris.iter().enumerate() {
            list.push_str(if at == 0 { ",\"resourceSubscriptions\":[" } else { "," });
            push_json_string(&mut list, uri);
        }
        list.push_str(if uris.is_empty() { "}" } else { "]}" });
        table.listed = Some((id, uris));
        list
    }

    /// The server refuses the list that it was sent last.
    pub(super) fn refused(&self, failed: &Failed) {
        let listed = self.table.lock().listed.take();
        for uri in listed.map(|(_, uris)| uris).unwrap_or_default() {
            self.says(&uri, Err(failed.clone()));
        }
    }

    fn says(&self, uri: &str, said: Result<(), Failed>) {
        if let Some(resource) = self.table.lock().resources.get_mut(uri) {
            resource.said = Some(said);
        }
        self.settled.notify_waiters();
    }

    /// Asks a server of the older era for each, as long as it lives.
    pub(super) async fn ask_for_each(&self, live: &Live) -> Infallible {
        let mut asked: Vec<Box<str>> = Vec::new();
        loop {
            let (more, fewer): (Vec<_>, Vec<_>) = {
                let resources = &self.table.lock().resources;
                let more = resources.iter().filter(|(_, resource)| resource.said.is_none());
                let more = more.map(|(uri, _)| uri.clone()).collect();
                (more, asked.extract_if(.., |uri| !resources.contains_key(uri)).collect())
            };
            let requests = more.iter().map(|uri| (uri, true)).chain(fewer.iter().map(|uri| (uri, false)));
            stream::iter(requests)
                .for_each_concurrent(AT_ONCE, |(uri, begins)| async move {
                    let method = if begins { "resources/subscribe" } else { "resources/unsubscribe" };
                    let outcome = if live.greeting.serves.updates {
                        ask(live, method, uri).await
                    } else {
                        Err(does_not_tell())
                    };
                    if begins {
                        self.says(uri, outcome.map(drop));
                    }
                })
                .await;
            asked.retain(|uri| !more.contains(uri));
            asked.extend(more);
            self.changed().await;
        }
    }

    /// Has a child of the stateless era tell of all, as long as it lives.
    pub(super) async fn listen_on(&self, pipe: &Pipe, write: impl Fn(u64, &str) -> String) -> Infallible {
        let mut listening = None;
        loop {
            let id = pipe.next_id();
            // The one before ends only now: there is no time at which nothing is told.
            listening = pipe.ask(id, write(id, &self.list(id)), None).ok().or(listening);
            let Some(open) = &mut listening else {
                self.refused(&Failed::NotSent("it does not read what it is sent"));
                self.changed().await;
                continue;
            };
            tokio::select! {
                ended = open => {
                    listening = None;
                    match ended {
                        Ok(_) => tokio::time::sleep(PAUSE).await,
                        Err(failed) => {
                            self.refused(&failed);
                            self.changed().await;
                        }
                    }
                }
                () = self.changed() => {}
            }
        }
    }
}

async fn ask(live: &Live, method: &str, uri: &str) -> Outcome {
    let params = [("uri", Param::Text(uri))];
    let request = Request::new(method, &params);
    let asked = Deadline::after(PAGE).limit(live.link.ask(request, live.greeting.era)).await;
    asked.unwrap_or(Err(Failed::Broken("it does not answer")))
}

fn does_not_tell() -> Failed {
    let message = "this server does not tell when resources change".into();
    Failed::Refused(Refusal { code: -32601, message, data: None })
}

/// Whether a URI is the one that is watched, or of something inside it.
fn is_inside(uri: &str, watched: &str) -> bool {
    let Some(rest) = uri.strip_prefix(watched) else { return false };
    rest.is_empty() || watched.ends_with('/') || rest.starts_with(['/', '#', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(String, String)>>);

    impl Watcher for Seen {
        fn updated(&self, watched: &str, uri: &str) {
            self.0.lock().push((watched.into(), uri.into()));
        }
    }

    #[test]
    fn who_watches_is_told_of_it_and_of_what_is_inside_and_of_nothing_else() {
        let (watched, seen) = (Arc::<Watched>::default(), Arc::<Seen>::default());
        let watch = watched.begin("file:///a", seen.clone());
        for uri in ["file:///a", "file:///a/b", "file:///ab", "file:///"] {
            watched.updated(Some(&format!("{{\"uri\":\"{uri}\"}}")));
        }
        let told = |uri: &str| ("file:///a".to_owned(), uri.to_owned());
        assert_eq!(*seen.0.lock(), [told("file:///a"), told("file:///a/b")]);
        drop(watch);
        watched.updated(Some("{\"uri\":\"file:///a\"}"));
        watched.updated(Some("nonsense"));
        assert_eq!(seen.0.lock().len(), 2);
        assert!(watched.table.lock().resources.is_empty());
    }

    #[tokio::test]
    async fn what_the_server_leaves_out_is_refused_and_asked_for_again_by_the_next() {
        let (watched, seen) = (Arc::<Watched>::default(), Arc::<Seen>::default());
        let _watches = ["a:1", "a:2"].map(|uri| watched.begin(uri, seen.clone()));
        let ack = |id, uris| {
            format!(
                "{{\"_meta\":{{\"io.modelcontextprotocol/subscriptionId\":{id}}},\"notifications\":{{\"resourceSubscriptions\":{uris}}}}}"
            )
        };
        assert!(watched.list(7).ends_with("\"resourceSubscriptions\":[\"a:1\",\"a:2\"]}"));
        watched.acknowledged(Some(&ack(6, "[]")));
        watched.acknowledged(Some(&ack(7, "[\"a:1\"]")));
        assert_eq!(watched.settled("a:1").await, Ok(()));
        assert_eq!(watched.settled("a:2").await, Err(does_not_tell()));
        assert_eq!(watched.settled("a:3").await, Ok(()));
        let _again = watched.begin("a:2", seen.clone());
        assert!(watched.table.lock().resources["a:2"].said.is_none());
        watched.forget();
        assert!(watched.table.lock().resources["a:1"].said.is_none());
    }
}
