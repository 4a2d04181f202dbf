//! `run_module` and `run_batch`: the operator's local commands, one or several.

use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::servers::SaidEffect;
use crate::config::{Ladder, ModuleConfig};
use crate::provider::command::Fence;
use crate::provider::module::{ModuleRun, Modules, within};
use crate::tool::place::{Lane, LaneId, Place};
use crate::tool::prompt::TimeoutClass;
use crate::tool::registry::{Prepared, Registration, RegistryError};
use crate::tool::{Asked, CustomWork, Effect, Misfit, Registry, Unprepared, Work, Worth, batch};

/// The tool that runs one, and its lane.
pub const NAME: &str = "run_module";

/// The lane in which modules run.
const LANE: &str = "modules";

/// The most arguments of one run.
const MOST_ARGUMENTS: usize = 1000;

/// Adds the tools, in a lane of their own.
///
/// # Errors
/// Another tool has their name.
pub fn offer(registry: &mut Registry, modules: &Arc<Modules>, ladder: &Ladder) -> Result<(), RegistryError> {
    let max_inflight = modules.config().max_concurrent;
    let lane = registry.add_lane(Lane { name: Arc::from(LANE), max_inflight, timeout: None });
    let entry = |effect| registration(modules, lane, effect);
    let others = [Effect::Read, Effect::Idempotent].map(entry).into();
    // What is not said to be harmless is not.
    registry.register_varied(entry(Effect::Write), others, ladder)?;
    registry.register(batch::registration(modules), ladder)
}

fn registration(modules: &Arc<Modules>, lane: LaneId, effect: Effect) -> Registration {
    Registration {
        name: NAME.into(),
        description: description(modules),
        effect,
        worth: Worth::Cheap,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        input_schema: schema(modules),
        counts_steps: true,
        work: Work::Custom(Box::new(RunModule { modules: Arc::clone(modules), lane })),
    }
}

fn description(modules: &Modules) -> String {
    let names: Vec<_> = modules.config().declared.iter().map(|module| &*module.id).collect();
    let which = if names.is_empty() { String::new() } else { format!(" Modules: {}.", names.join(", ")) };
    let scripts = if modules.config().script_dirs.is_empty() {
        ""
    } else {
        " Scripts in the operator's folders can be run by `script_path`, under any module_id."
    };
    format!(
        "Run one local command that the daemon's operator allows, and return its exit code, output and error. A command \
         that fails is a result too: look at `success` and `error`. No shell reads the arguments.{which}{scripts}"
    )
}

/// The properties of one run.
pub(super) fn properties(modules: &Modules) -> Map<String, Value> {
    let properties = json!({
        "module_id": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Which module to run."},
        "args": {"type": "array", "maxItems": MOST_ARGUMENTS, "items": {"type": "string"},
            "description": "Its arguments, handed over as they are, behind those that the operator gave it."},
        "cwd": {"type": "string", "minLength": 1,
            "description": "Where it works; only folders that the operator allows it. A folder of its own when absent."},
        "timeout_secs": {"type": "number", "exclusiveMinimum": 0,
            "description": "Ends it sooner than the operator would."},
        "dry_run": {"type": "boolean", "description": "Shows what would be started, and starts nothing."},
    });
    let mut properties = properties.as_object().cloned().unwrap_or_default();
    if !modules.config().script_dirs.is_empty() {
        let script = json!({"type": "string", "minLength": 1,
            "description": "A script to run that is no declared module: an absolute path in a folder that the operator allows."});
        properties.insert("script_path".into(), script);
    }
    properties
}

fn schema(modules: &Modules) -> Map<String, Value> {
    let schema = json!({
        "type": "object",
        "required": ["module_id"],
        "additionalProperties": false,
        "properties": properties(modules),
    });
    schema.as_object().cloned().unwrap_or_default()
}

struct RunModule {
    modules: Arc<Modules>,
    lane: LaneId,
}

/// Whatever is part of a call's key beside the module itself, which is mixed in where it is found.
impl std::fmt::Debug for RunModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAME)
    }
}

impl CustomWork for RunModule {
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared> {
        let (run, definition) = run(&self.modules, &asked.arguments)?;
        let place = Place::Lane(self.lane);
        Ok(Prepared { place, definition, is_settled: false, model: None, limit: None, job: Box::new(run) })
    }

    fn effect(&self, arguments: &Value) -> Option<Effect> {
        let module = self.modules.find(text(arguments, "module_id")?)?;
        Some(match module.effect {
            SaidEffect::Read => Effect::Read,
            SaidEffect::Idempotent => Effect::Idempotent,
            SaidEffect::Write => Effect::Write,
        })
    }
}

/// The run that these arguments, which fit the schema, ask for; and what of the configuration decides its outcome.
fn run(modules: &Arc<Modules>, arguments: &Value) -> Result<(ModuleRun, u64), Misfit> {
    let id = text(arguments, "module_id").unwrap_or_default();
    let more = arguments.get("args").and_then(Value::as_array).into_iter().flatten();
    let more = more.filter_map(Value::as_str).map(str::to_owned);
    let given = arguments.get("timeout_secs").and_then(Value::as_f64);
    let given = given.map(|secs| Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX));
    let dry = modules.config().dry_run || arguments.get("dry_run").and_then(Value::as_bool).unwrap_or(false);
    let blank = |program: PathBuf| ModuleRun {
        id: id.into(),
        program,
        args: Vec::new(),
        env: Vec::new(),
        cwd: None,
        fence: Some(Fence::default()),
        timeout: given,
        dry,
        modules: Arc::clone(modules),
    };
    let (mut run, definition) = match (modules.find(id), text(arguments, "script_path")) {
        (Some(module), None) => (declared(module, blank(module.program.clone())), digest(module)),
        (Some(_), Some(_)) => {
            return Err(misfit(
                "script_path",
                format!("`{id}` is a module of its own: it runs no other script"),
            ));
        }
        (None, Some(path)) => (blank(script(modules, path)?), 0),
        (None, None) => return Err(misfit("module_id", unknown(modules, id))),
    };
    run.args.extend(more);
    if let Some(cwd) = text(arguments, "cwd") {
        let allowed = modules.find(id).map_or(&[][..], |module| &module.cwd);
        let real = within(cwd.as_ref(), allowed).filter(|real| real.is_dir());
        run.cwd = Some(real.ok_or_else(|| {
            misfit("cwd", format!("it is no folder in which the operator lets `{id}` work"))
        })?);
    }
    Ok((run, definition))
}

fn declared(module: &ModuleConfig, blank: ModuleRun) -> ModuleRun {
    let env = module.env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
    let everything = module.write.iter().any(|path| path.parent().is_none());
    let fence = Fence { read: module.read.clone(), write: module.write.clone() };
    let timeout = match (blank.timeout, module.timeout) {
        (Some(given), Some(own)) => Some(given.min(own)),
        (given, own) => given.or(own),
    };
    ModuleRun {
        args: module.args.clone(),
        env: env.collect(),
        fence: (!everything).then_some(fence),
        timeout,
        ..blank
    }
}

/// A script that may be run: what lies outside is refused before it is looked at, and so is a link that leads out.
fn script(modules: &Modules, path: &str) -> Result<PathBuf, Misfit> {
    let dirs = &modules.config().script_dirs;
    let outside =
        || misfit("script_path", "it is in no folder whose scripts the operator lets run".to_owned());
    let path = PathBuf::from(path);
    let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    if !plain || !path.is_absolute() || !dirs.iter().any(|dir| path.starts_with(dir)) {
        return Err(outside());
    }
    match path.symlink_metadata() {
        // It is told as a result of the run.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(path),
        _ => within(&path, dirs).filter(|real| real.is_file()).ok_or_else(outside),
    }
}

fn unknown(modules: &Modules, id: &str) -> String {
    let names: Vec<_> = modules.config().declared.iter().map(|module| &*module.id).collect();
    let distance = |name: &&&str| strsim::damerau_levenshtein(name, id);
    let near = names
        .iter()
        .min_by_key(distance)
        .filter(|near| id.len() <= 64 && distance(near) <= 3.max(near.len() / 3));
    match near {
        Some(near) => format!("no such module is declared here; the nearest is {near}"),
        None if names.is_empty() => "no module is declared here: name a script_path".to_owned(),
        None => format!("no such module is declared here; there are: {}", names.join(", ")),
    }
}

fn misfit(path: &str, message: String) -> Misfit {
    Misfit { path: path.into(), message }
}

/// Content hash of all that decides what a module does, its environment too. It never leaves the process.
fn digest(module: &ModuleConfig) -> u64 {
    let mut text = format!("{module:?}");
    for (name, value) in &module.env {
        for part in [name, value.reveal()] {
            text.push('\0');
            text.push_str(part);
        }
    }
    xxh3_64(text.as_bytes())
}

fn text<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}
