//! `run_module` and `run_batch` through a daemon.

use std::fs;

use serde_json::{Value, json};

use crate::daemon::{Daemon, Process};
use crate::hostile::{STAYS, is_up};
use crate::stage::{Stage, until};

/// A table of one module that is a script of the stage's.
fn table(id: &str, more: &str) -> String {
    format!("[modules.{id}]\nprogram = \"$stage/{id}\"\nwrite = [\"$stage\"]\n{more}\n")
}

#[tokio::test]
async fn a_module_is_run_and_told_as_one_object() {
    let stage = Stage::new();
    stage.script("greet", r#"echo "grüße $1 $2"; echo "weh" >&2"#);
    let daemon = Daemon::start(&stage, &table("greet", "args = [\"erst\"]")).await;
    let told = daemon.run("greet", json!({"args": ["世界 🎉"]})).await;
    let took = told["duration_ms"].as_u64().unwrap();
    let expected = json!({"module_id": "greet", "exit_code": 0, "success": true, "error": null,
        "stdout": "grüße erst 世界 🎉\n", "stderr": "weh\n", "duration_ms": took, "timed_out": false});
    assert_eq!(told, expected);
    daemon.is_at_rest().await;
}

#[tokio::test]
async fn each_row_of_the_table_is_told_so() {
    let stage = Stage::new();
    stage.script("three", "echo one >&2; echo two >&2; exit 3");
    stage.script("killed", "kill -9 $$");
    stage.script("slow", "exec sleep 1000");
    fs::write(stage.path("plain"), "text").unwrap();
    let tables = ["three", "killed", "slow", "plain", "absent"].map(|id| table(id, "")).concat();
    let daemon = Daemon::start(&stage, &tables).await;
    let absent = format!("Script not found: {}", stage.path("absent").display());
    for (id, more, code, error) in [
        ("three", json!({}), 3, "Process exited with code 3\none\ntwo"),
        ("killed", json!({}), -9, "Process killed by signal 9"),
        ("slow", json!({"timeout_secs": 0.5}), -1, "Module execution timed out after 0.5s"),
        ("plain", json!({}), -1, "Permission denied (os error 13)"),
        ("absent", json!({}), -1, &*absent),
    ] {
        let told = daemon.run(id, more).await;
        assert_eq!((&told["exit_code"], &told["error"]), (&json!(code), &json!(error)), "{id}");
        assert_eq!((&told["success"], &told["timed_out"]), (&json!(false), &json!(id == "slow")));
    }
    daemon.is_at_rest().await;
    stage.is_dead();
}

#[tokio::test]
async fn its_own_time_holds_where_the_caller_asks_for_more() {
    let stage = Stage::new();
    stage.script("slow", "exec sleep 1000");
    let daemon = Daemon::start(&stage, &table("slow", "timeout_secs = 0.25")).await;
    let told = daemon.run("slow", json!({"timeout_secs": 1000})).await;
    assert_eq!(told["error"], "Module execution timed out after 0.25s");
}

#[tokio::test]
async fn what_does_not_fit_names_its_argument_and_starts_nothing() {
    let stage = Stage::new();
    stage.script("lint", "touch \"$(dirname \"$0\")/ran\"");
    stage.script("outside", "touch \"$(dirname \"$0\")/ran\"");
    fs::create_dir_all(stage.path("scripts")).unwrap();
    fs::create_dir_all(stage.path("work")).unwrap();
    std::os::unix::fs::symlink(stage.path("outside"), stage.path("scripts/link")).unwrap();
    let keys = "modules_script_dirs = [\"$stage/scripts\"]\n";
    let daemon = Daemon::start(&stage, &(keys.to_owned() + &table("lint", "cwd = [\"$stage/work\"]"))).await;
    let path = |name: &str| stage.path(name).to_str().unwrap().to_owned();
    for (arguments, says) in [
        (
            json!({"module_id": "lnit"}),
            "argument `module_id`: no such module is declared here; the nearest is lint",
        ),
        (json!({"module_id": "lint", "cwd": path("")}), "argument `cwd`: it is no folder in which"),
        (json!({"module_id": "lint", "cwd": path("work/../..")}), "argument `cwd`: it is no folder in which"),
        (json!({"module_id": "lint", "args": [1]}), "argument `args/0`: "),
        (json!({"module_id": "lint", "timeout_secs": 0}), "argument `timeout_secs`: "),
        (
            json!({"module_id": "lint", "script_path": path("scripts/x")}),
            "argument `script_path`: `lint` is a module",
        ),
        (
            json!({"module_id": "x", "script_path": path("outside")}),
            "argument `script_path`: it is in no folder",
        ),
        (
            json!({"module_id": "x", "script_path": path("scripts/../outside")}),
            "argument `script_path`: it is in no folder",
        ),
        (
            json!({"module_id": "x", "script_path": path("scripts/link")}),
            "argument `script_path`: it is in no folder",
        ),
        (json!({"module_id": "x", "script_path": "scripts/x"}), "argument `script_path`: it is in no folder"),
    ] {
        let answer = daemon.call("run_module", arguments.clone()).await;
        let (code, message) = answer.error();
        assert_eq!(code, "VALIDATION_ERROR", "{arguments}: {}", answer.body);
        assert!(message.starts_with(says), "{arguments}: {message}");
    }
    assert!(!stage.path("ran").exists());
}

#[tokio::test]
async fn a_script_of_an_allowed_folder_is_run_by_its_path() {
    let stage = Stage::new();
    fs::create_dir_all(stage.path("scripts")).unwrap();
    stage.script("scripts/hello", "echo hello; pwd; env | grep -c SEEN");
    let daemon = Daemon::start(&stage, "modules_script_dirs = [\"$stage/scripts\"]").await;
    let script = stage.path("scripts/hello");
    let told = daemon.run("any", json!({"script_path": script.to_str().unwrap()})).await;
    let stdout = told["stdout"].as_str().unwrap();
    assert!(stdout.starts_with("hello\n/") && stdout.ends_with("\n0\n"), "{told}");
    let own = stdout.lines().nth(1).unwrap();
    assert!(own.contains("inflightd_module_") && !fs::exists(own).unwrap(), "{own}");
    let absent = stage.path("scripts/absent");
    let told = daemon.run("any", json!({"script_path": absent.to_str().unwrap()})).await;
    assert_eq!(told["error"], format!("Script not found: {}", absent.display()));
}

#[tokio::test]
async fn it_sees_what_its_table_allows_and_its_deadline() {
    let stage = Stage::new();
    fs::create_dir_all(stage.path("work")).unwrap();
    stage.file(
        "see",
        "#!/usr/bin/perl\nuse Cwd; print getcwd, \"\\n\"; print \"$_=$ENV{$_}\\n\" for sort keys %ENV;",
    );
    let more = "cwd = [\"$stage/work\"]\nenv = [\"SEEN\", \"ABSENT\"]\ntimeout_secs = 60";
    let daemon = Daemon::start(&stage, &table("see", more)).await;
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let (work, before) = (stage.path("work"), now());
    let told = daemon.run("see", json!({"cwd": work.to_str().unwrap()})).await;
    let stdout = told["stdout"].as_str().unwrap();
    let [cwd, deadline, seen] = stdout.lines().collect::<Vec<_>>()[..] else { panic!("{stdout}") };
    assert_eq!((cwd, seen), (work.to_str().unwrap(), "SEEN=yes ü"));
    let deadline: u128 = deadline.strip_prefix("INFLIGHTD_DEADLINE_MS=").unwrap().parse().unwrap();
    assert!((before + 60_000..=now() + 60_000).contains(&deadline));
    assert!(work.exists(), "a folder that was given stays");
}

#[tokio::test]
async fn a_dry_run_shows_the_words_and_starts_nothing() {
    let stage = Stage::new();
    stage.script("touch", "touch \"$(dirname \"$0\")/ran\"");
    let daemon = Daemon::start(&stage, &table("touch", "args = [\"-a\"]")).await;
    let told = daemon.run("touch", json!({"args": ["b c"], "dry_run": true})).await;
    let words = format!("DRY_RUN: {} -a 'b c'", stage.path("touch").display());
    assert_eq!((&told["stdout"], &told["exit_code"]), (&json!(words), &json!(0)));
    let dry = Daemon::start(&stage, &("modules_dry_run = \"on\"\n".to_owned() + &table("touch", ""))).await;
    assert!(dry.run("touch", json!({})).await["stdout"].as_str().unwrap().starts_with("DRY_RUN: "));
    assert!(!stage.path("ran").exists());
}

#[tokio::test]
async fn equal_reads_run_once_and_writes_each() {
    let stage = Stage::new();
    let text =
        "echo x >> \"$(dirname \"$0\")/$1\"; until [ -e \"$(dirname \"$0\")/go\" ]; do sleep 0.01; done";
    stage.script("look", text);
    stage.script("put", text);
    let daemon = Daemon::start(&stage, &(table("look", "effect = \"read\"") + &table("put", ""))).await;
    let call = |id: &str| daemon.calls("run_module", json!({"module_id": id, "args": [format!("{id}s")]}));
    let calls: Vec<_> = ["look", "look", "look", "put", "put"].into_iter().map(call).collect();
    until("all five", || daemon.hub.calls.watch().active() == 5).await;
    until("three runs", || stage.text("looks").len() + stage.text("puts").len() == 6).await;
    fs::write(stage.path("go"), "").unwrap();
    let mut roles = Vec::new();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.told()["success"], true);
        roles.push(answer.body["metadata"]["role"].as_str().unwrap().to_owned());
    }
    assert_eq!(roles.iter().filter(|role| *role == "follower").count(), 2);
    assert_eq!((stage.text("looks"), stage.text("puts")), ("x\n".into(), "x\nx\n".into()));
}

/// Writes down how many run at once, and gives the others time to come.
const COUNTS: &str = r#"here=$(dirname "$0"); touch "$here/up/$1"; ls "$here/up" | wc -l >> "$here/seen"
sleep 0.05; rm "$here/up/$1""#;

async fn many(limit: usize, runs: usize) {
    let stage = Stage::new();
    fs::create_dir_all(stage.path("up")).unwrap();
    stage.script("count", COUNTS);
    let keys =
        format!("modules_max_concurrent = {limit}\nglobal_max_inflight = 100\nsession_max_inflight = 100\n");
    let daemon = Daemon::start(&stage, &(keys + &table("count", ""))).await;
    let calls: Vec<_> = (0..runs)
        .map(|run| daemon.calls("run_module", json!({"module_id": "count", "args": [run.to_string()]})))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().told()["success"], true);
    }
    let seen = stage.text("seen");
    let most = seen.lines().map(|line| line.trim().parse::<usize>().unwrap()).max().unwrap();
    assert_eq!(seen.lines().count(), runs);
    assert!(most <= limit, "{most} at once");
    daemon.is_at_rest().await;
}

#[tokio::test]
async fn fifty_at_limit_ten_all_succeed_and_never_more_than_ten_at_once() {
    many(10, 50).await;
}

#[tokio::test]
async fn five_at_limit_two_all_succeed() {
    many(2, 5).await;
}

#[tokio::test]
async fn ten_mebibytes_on_both_streams_are_told_with_their_ends() {
    let stage = Stage::new();
    stage.file(
        "flood",
        "#!/usr/bin/perl\nmy $line = 'x' x 1023 . \"\\n\"; for (1..10240) { print $line; print STDERR $line }\nprint \"last\\n\";",
    );
    let daemon =
        Daemon::start(&stage, &("modules_output_bytes = 1000\n".to_owned() + &table("flood", ""))).await;
    let told = daemon.run("flood", json!({})).await;
    assert_eq!(told["success"], true);
    let stdout = told["stdout"].as_str().unwrap();
    assert!(stdout.ends_with("x\nlast\n") && stdout.len() == 1000);
    assert_eq!(told["stdout_cut_bytes"], (10 << 20) + 5 - 1000);
    assert_eq!(told["stderr_cut_bytes"], (10 << 20) - 1000);
}

#[tokio::test]
async fn a_run_whose_last_caller_left_is_dead_before_its_permit_comes_back() {
    let stage = Stage::new();
    let deaf = "trap '' TERM; echo up > \"$(dirname \"$0\")/up\"; while :; do sleep 1000; done";
    stage.script("deaf", deaf);
    stage.script("next", "true");
    // `read` stops when its connection has gone for a while.
    let keys = "modules_max_concurrent = 1\n";
    let tables = table("deaf", "effect = \"read\"") + &table("next", "");
    let daemon = Daemon::start(&stage, &(keys.to_owned() + &tables)).await;
    let call = daemon.calls("run_module", json!({"module_id": "deaf"}));
    stage.says("up", "up").await;
    call.abort();
    // It waits for the permit, which comes back when nothing of the other lives.
    let next = daemon.calls("run_module", json!({"module_id": "next"}));
    until("the next one's turn", || daemon.modules().1 == 1).await;
    assert_eq!(next.await.unwrap().told()["success"], true);
    stage.is_dead();
    daemon.is_at_rest().await;
}

#[tokio::test]
async fn a_batch_answers_in_the_order_of_its_modules_whatever_each_does() {
    let stage = Stage::new();
    stage.script("say", "sleep \"$2\"; echo \"$1\"; exit \"$3\"");
    let daemon = Daemon::start(&stage, &table("say", "")).await;
    let run = |what: &str, secs: &str, code: &str| json!({"module_id": "say", "args": [what, secs, code]});
    let runs = [
        run("a", "0.2", "0"),
        run("b", "0", "3"),
        json!({"module_id": "none"}),
        run("c", "0.1", "0"),
        run("a", "0.2", "0"),
    ];
    let answer = daemon.call("run_batch", json!({"modules": runs, "batch_size": 2, "delay_ms": 1})).await;
    let told = answer.told();
    let column =
        |name: &str| told.as_array().unwrap().iter().map(|each| each[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("stdout"), ["a\n", "b\n", "", "c\n", "a\n"].map(Value::from));
    assert_eq!(column("exit_code"), [0, 3, -1, 0, 0].map(Value::from));
    assert!(
        told[2]["error"].as_str().unwrap().starts_with("VALIDATION_ERROR: argument `module_id`"),
        "{told}"
    );
    assert_eq!(daemon.call("run_batch", json!({"modules": []})).await.told(), json!([]));
    let answer = daemon.call("run_batch", json!({"modules": runs, "min_success_ratio": 0.9})).await;
    assert_eq!(
        answer.body["metadata"]["is_error"].as_bool().or(answer.body["is_error"].as_bool()),
        Some(true),
        "{}",
        answer.body
    );
    daemon.is_at_rest().await;
}

#[tokio::test]
async fn all_limits_at_one_and_eight_batches_at_once_all_finish() {
    let stage = Stage::new();
    stage.script("say", "echo \"$1\"");
    let keys = "modules_max_concurrent = 1\nbatches_max_inflight = 1\nglobal_max_inflight = 1\nsession_max_inflight = 1\n";
    let daemon = Daemon::start(&stage, &(keys.to_owned() + &table("say", ""))).await;
    let batch = |_| {
        let runs = ["a", "b", "a"].map(|what| json!({"module_id": "say", "args": [what]}));
        daemon.calls("run_batch", json!({"modules": runs}))
    };
    let batches: Vec<_> = (0..8).map(batch).collect();
    for batch in batches {
        let told = batch.await.unwrap().told();
        assert!(told.as_array().unwrap().iter().all(|each| each["success"] == true), "{told}");
    }
    daemon.is_at_rest().await;
}

#[tokio::test]
async fn too_little_left_of_the_machine_refuses() {
    let stage = Stage::new();
    stage.script("say", "echo said");
    let keys = "modules_gate = \"on\"\nmodules_gate_cpu_percent = 100\nmodules_gate_memory_gb = 1000000\n";
    let daemon = Daemon::start(&stage, &(keys.to_owned() + &table("say", ""))).await;
    let told = daemon.run("say", json!({})).await;
    let error = told["error"].as_str().unwrap();
    assert!(error.starts_with("Insufficient system resources: Insufficient memory: "), "{error}");
    assert!(error.ends_with("GB available (required: 1000000.0GB)") && told["exit_code"] == -1, "{told}");
    let stats = daemon.call("get_system_stats", json!({})).await.told();
    for name in ["cpu_percent", "memory_total_gb", "memory_available_gb", "memory_used_percent"] {
        assert!(stats[name].is_f64(), "{stats}");
    }
}

#[tokio::test]
async fn without_modules_there_are_no_such_tools() {
    let daemon = Daemon::start(&Stage::new(), "").await;
    for tool in ["run_module", "run_batch"] {
        assert_eq!(daemon.call(tool, json!({})).await.error().0, "TOOL_NOT_FOUND");
    }
}

#[tokio::test]
async fn nothing_survives_a_daemon_that_is_killed_or_told_to_end() {
    for signal in ["-KILL", "-TERM"] {
        let stage = Stage::new();
        stage.script("stays", &format!("cd \"$(dirname \"$0\")\"\n{STAYS}"));
        let toml = "drain_timeout_secs = 0.1\n".to_owned() + &table("stays", "");
        let mut daemon = Process::start(&stage, &toml);
        daemon.calls("run_batch", json!({"modules": [{"module_id": "stays"}]}));
        is_up(&stage).await;
        daemon.signal(signal);
        daemon.child.wait().unwrap();
        until(&format!("the end of all after {signal}"), || stage.living().is_empty()).await;
    }
}

#[tokio::test]
async fn what_forks_writes_or_hides_for_ever_ends_with_its_time() {
    let stage = Stage::new();
    stage.script("writes", "exec yes");
    stage.script("forks", "cd \"$(dirname \"$0\")\"; while :; do sleep 1000 & sleep 0.01; done");
    stage.script("hides", "cd \"$(dirname \"$0\")\"; exec <&- >&- 2>&-; sleep 1000");
    let daemon =
        Daemon::start(&stage, &["writes", "forks", "hides"].map(|id| table(id, "timeout_secs = 1")).concat())
            .await;
    for id in ["writes", "forks", "hides"] {
        let told = daemon.run(id, json!({})).await;
        assert_eq!(told["error"], "Module execution timed out after 1s", "{id}");
    }
    daemon.is_at_rest().await;
    stage.is_dead();
}

#[tokio::test]
async fn its_last_line_and_the_end_of_each_of_a_batch_reach_who_waits() {
    let stage = Stage::new();
    stage
        .script("walks", "echo first; until [ -e \"$(dirname \"$0\")/go\" ]; do sleep 0.01; done; echo last");
    let daemon = Daemon::start(&stage, &table("walks", "")).await;
    let mut seen = Vec::new();
    let go = stage.path("go");
    daemon
        .told("run_module", json!({"module_id": "walks"}), |progress| {
            seen.push(progress["message"].as_str().unwrap_or_default().to_owned());
            fs::write(&go, "").unwrap();
        })
        .await;
    assert_eq!(seen[0], "first");
    let mut ends = Vec::new();
    let runs = json!({"modules": [{"module_id": "walks"}, {"module_id": "walks"}]});
    daemon.told("run_batch", runs, |progress| ends.push(progress["total"].clone())).await;
    assert!(!ends.is_empty() && ends.iter().all(|total| *total == 2.0), "{ends:?}");
}
