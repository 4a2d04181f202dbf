//! `run_batch`: several modules, so many at a time, each a call of its own. What one does never touches the others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Map, Value, json};

use crate::provider::module::{Modules, not_run};
use crate::provider::submit::{Child, ChildFailed, Submit};
use crate::provider::{Context, Fault, Job, Reply, Step, Tell, content};
use crate::tool::place::{Composite, Place};
use crate::tool::prompt::TimeoutClass;
use crate::tool::registry::{Prepared, Registration};
use crate::tool::{Asked, CustomWork, Effect, Unprepared, Work, Worth, module};

/// Its name, and that of its slots.
pub(super) const NAME: &str = "run_batch";

/// The most modules of one batch.
const MOST: usize = 1000;

/// Less time than this is too little to begin another run.
const TOO_LITTLE: Duration = Duration::from_secs(2);

/// The tool.
pub(super) fn registration(modules: &Modules) -> Registration {
    Registration {
        name: NAME.into(),
        description: "Run several local commands that the daemon's operator allows, so many at a time, and return their \
            results in the order in which they were asked for, one for each. One that fails does not touch the others."
            .into(),
        effect: Effect::Write,
        worth: Worth::Cheap,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        input_schema: schema(modules),
        counts_steps: true,
        work: Work::Custom(Box::new(RunBatch { at_once: modules.config().max_concurrent })),
    }
}

fn schema(modules: &Modules) -> Map<String, Value> {
    let at_once = modules.config().max_concurrent;
    let schema = json!({
        "type": "object",
        "required": ["modules"],
        "additionalProperties": false,
        "properties": {
            "modules": {
                "type": "array", "maxItems": MOST, "description": "What to run, each as run_module takes it.",
                "items": {
                    "type": "object",
                    "required": ["module_id"],
                    "additionalProperties": false,
                    "properties": module::properties(modules),
                },
            },
            "batch_size": {"type": "integer", "minimum": 1, "maximum": MOST,
                "description": format!("How many run at a time; {at_once} when absent.")},
            "delay_ms": {"type": "integer", "minimum": 0, "maximum": 60_000,
                "description": "How long to wait after so many before the next; none when absent."},
            "min_success_ratio": {"type": "number", "minimum": 0, "maximum": 1,
                "description": "The whole counts as failed where fewer than this part succeed; 0 when absent."},
        },
    });
    schema.as_object().cloned().unwrap_or_default()
}

#[derive(Debug)]
struct RunBatch {
    /// So many run at a time where nothing is said.
    at_once: usize,
}

impl CustomWork for RunBatch {
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared> {
        let number = |name: &str| asked.arguments.get(name).and_then(Value::as_f64);
        let size = number("batch_size").map_or(self.at_once, whole);
        let job = Batch {
            children: children(&asked.arguments),
            size: size.clamp(1, MOST),
            delay: number("delay_ms").map_or(Duration::ZERO, |ms| Duration::from_secs_f64(ms / 1000.0)),
            min_success: number("min_success_ratio").unwrap_or(0.0),
        };
        let place = Place::Composite(Composite::Batch);
        Ok(Prepared { place, definition: 0, is_settled: true, model: None, limit: None, job: Box::new(job) })
    }
}

/// The schema holds it between 1 and [`MOST`], and whole.
fn whole(number: f64) -> usize {
    (1..=MOST)
        .find(|count| u32::try_from(*count).is_ok_and(|count| f64::from(count) >= number))
        .unwrap_or(MOST)
}

/// The runs that are asked for, with the names that they are called by.
fn children(arguments: &Value) -> Vec<(Box<str>, Child)> {
    let runs = arguments.get("modules").and_then(Value::as_array).into_iter().flatten();
    let mut seen = std::collections::HashMap::new();
    let child = |run: &Value| {
        let id = run.get("module_id").and_then(Value::as_str).unwrap_or_default();
        let arguments = run.to_string();
        let count = seen.entry(arguments.clone()).or_insert(0_u32);
        let ordinal = *count;
        *count += 1;
        (Box::from(id), Child { tool: Arc::from(module::NAME), arguments, ordinal })
    };
    runs.map(child).collect()
}

struct Batch {
    children: Vec<(Box<str>, Child)>,
    size: usize,
    delay: Duration,
    min_success: f64,
}

/// How far a batch has come.
struct Course {
    tell: Arc<dyn Tell>,
    total: usize,
    done: usize,
    succeeded: usize,
}

impl Course {
    fn took_in(&mut self, result: &Value) {
        self.done += 1;
        self.succeeded += usize::from(result.get("success") == Some(&Value::Bool(true)));
        let (done, succeeded, total) = (self.done, self.succeeded, self.total);
        let failed = done - succeeded;
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let message = format!("{done} of {total} ended{failures}");
        self.tell.step(Step { progress: count(done), total: Some(count(total)), message });
    }
}

impl Job for Batch {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let Some(calls) = context.children.clone() else {
            unreachable!("the path gives every composite a way to call, and this is one")
        };
        async move {
            let total = self.children.len();
            let mut course = Course { tell: Arc::clone(&context.tell), total, done: 0, succeeded: 0 };
            let mut results = Vec::with_capacity(total);
            let mut children = self.children.into_iter().peekable();
            while children.peek().is_some() {
                let wave: Vec<_> = children.by_ref().take(self.size).collect();
                if context.deadline.remaining() < TOO_LITTLE {
                    let late = |(id, _): (Box<str>, Child)| {
                        not_run(&id, "Not started: the batch had no time left".into())
                    };
                    results.extend(wave.into_iter().map(late).inspect(|result| course.took_in(result)));
                    continue;
                }
                results.extend(together(&*calls, wave, &mut course).await);
                if children.peek().is_some() && !self.delay.is_zero() {
                    tokio::time::sleep(self.delay.min(context.deadline.remaining())).await;
                }
            }
            Ok(put_together(results, course.succeeded, self.min_success))
        }
        .boxed()
    }
}

/// Runs these side by side; their results in the order in which they were asked for.
async fn together(calls: &dyn Submit, wave: Vec<(Box<str>, Child)>, course: &mut Course) -> Vec<Value> {
    let mut pending: FuturesUnordered<_> = wave
        .into_iter()
        .enumerate()
        .map(|(place, (id, child))| {
            let end = calls.submit(child);
            async move { (place, id, end.await) }
        })
        .collect();
    let mut ends = Vec::with_capacity(pending.len());
    while let Some((place, id, end)) = pending.next().await {
        let result = result(&id, end);
        course.took_in(&result);
        ends.push((place, result));
    }
    ends.sort_by_key(|(place, _)| *place);
    ends.into_iter().map(|(_, result)| result).collect()
}

/// What one run is told as, also where its call was refused.
fn result(id: &str, end: Result<Arc<Reply>, ChildFailed>) -> Value {
    match end {
        Ok(reply) => serde_json::from_str(&content::text(reply.content()))
            .unwrap_or_else(|_| not_run(id, "its result is no object".into())),
        Err(failed) => not_run(id, format!("{}: {failed}", failed.code)),
    }
}

fn put_together(results: Vec<Value>, succeeded: usize, min_success: f64) -> Reply {
    let total = results.len();
    let ratio = if total == 0 { 1.0 } else { count(succeeded) / count(total) };
    let results = Value::Array(results);
    let mut reply = Reply::text(&results.to_string());
    let told = json!({"results": results, "total": total, "succeeded": succeeded, "success_ratio": ratio});
    reply = reply.with_structure(&told);
    reply.is_error = ratio < min_success;
    reply
}

/// There are at most [`MOST`].
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_runs_are_told_apart_by_their_ordinals() {
        let run = |id: &str| json!({"module_id": id});
        let children = children(&json!({"modules": [run("a"), run("b"), run("a"), run("a")]}));
        let seen: Vec<_> = children.iter().map(|(id, child)| (&**id, child.ordinal)).collect();
        assert_eq!(seen, [("a", 0), ("b", 0), ("a", 1), ("a", 2)]);
    }

    #[test]
    fn a_batch_fails_where_too_few_succeed() {
        let results = || vec![json!({"success": true}), json!({"success": false})];
        assert!(!put_together(results(), 1, 0.5).is_error);
        assert!(put_together(results(), 1, 0.51).is_error);
        let none = put_together(Vec::new(), 0, 1.0);
        assert!(!none.is_error);
        assert_eq!(content::text(none.content()), "[]");
    }

    #[test]
    fn sizes_are_whole() {
        assert_eq!([1.0, 2.0, 1000.0].map(whole), [1, 2, 1000]);
    }
}
