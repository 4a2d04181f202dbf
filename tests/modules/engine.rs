//! One program under its guard: how it ends, what it says, what it finds.

use std::fs;
use std::time::Duration;

use inflightd::deadline::Deadline;
use inflightd::provider::command::{End, EndedBy, Folder};

use crate::stage::{Stage, launch, run};

#[tokio::test]
async fn a_program_that_ends_well_has_its_code_and_both_its_streams() {
    let stage = Stage::new();
    let script = stage.script("s", "echo out; echo err >&2");
    let finished = run(launch(stage.order(&script, &[]))).await;
    assert_eq!((finished.end, finished.by), (Ok(End::Code(0)), EndedBy::Itself));
    assert_eq!((&*finished.stdout.text, &*finished.stderr.text), ("out\n", "err\n"));
    assert_eq!(finished.left, None);
}

#[tokio::test]
async fn codes_and_signals_are_told_apart() {
    let stage = Stage::new();
    for (text, end) in
        [("exit 3", End::Code(3)), ("kill -9 $$", End::Signal(9)), ("kill -TERM $$", End::Signal(15))]
    {
        let finished = run(launch(stage.order(&stage.script("s", text), &[]))).await;
        assert_eq!((finished.end, finished.by), (Ok(end), EndedBy::Itself), "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_what_the_system_says() {
    let stage = Stage::new();
    let nothing = run(launch(stage.order(&stage.path("nothing"), &[]))).await;
    assert_eq!(nothing.end, Err("No such file or directory (os error 2)".into()));
    let plain = stage.path("plain");
    fs::write(&plain, "text").unwrap();
    let refused = run(launch(stage.order(&plain, &[]))).await;
    assert_eq!(refused.end, Err("Permission denied (os error 13)".into()));
    let mut order = stage.order(&stage.script("s", "true"), &[]);
    order.folder = Folder::Own(stage.path("no/such"));
    assert!(run(launch(order)).await.end.is_err());
    let mut unguarded = launch(stage.order(&stage.script("s", "true"), &[]));
    unguarded.guard = stage.path("nothing");
    assert_eq!(run(unguarded).await.end, Err("No such file or directory (os error 2)".into()));
}

#[tokio::test]
async fn arguments_reach_it_as_they_are_and_no_shell_reads_them() {
    let stage = Stage::new();
    let script = stage.script("s", r#"printf '%s\n' "$#" "$@""#);
    let args = ["grüße 世界 🎉", "$(touch hacked); `id` && x", "", "a\nb"];
    let finished = run(launch(stage.order(&script, &args))).await;
    assert_eq!(finished.stdout.text, "4\ngrüße 世界 🎉\n$(touch hacked); `id` && x\n\na\nb\n");
    assert!(!stage.path("hacked").exists());
}

#[tokio::test]
async fn its_environment_is_what_it_was_given_and_its_input_is_empty() {
    let stage = Stage::new();
    let script = stage
        .file("s", "#!/usr/bin/perl\nprint \"$_=$ENV{$_}\\n\" for sort keys %ENV; print 'in:', <STDIN>;");
    let mut order = stage.order(&script, &[]);
    order.env = vec![("ONE".into(), "1 ü".into())];
    assert_eq!(run(launch(order)).await.stdout.text, "ONE=1 ü\nin:");
}

#[tokio::test]
async fn ten_mebibytes_on_both_streams_finish_and_their_ends_are_kept() {
    let stage = Stage::new();
    let script = stage.file(
        "s",
        "#!/usr/bin/perl\nmy $line = 'x' x 1023 . \"\\n\"; for (1..10240) { print $line; print STDERR $line }\n\
         print \"last\\n\"; print STDERR \"last too\\n\";",
    );
    let finished = run(launch(stage.order(&script, &[]))).await;
    assert_eq!(finished.end, Ok(End::Code(0)));
    assert!(finished.stdout.text.ends_with("x\nlast\n") && finished.stderr.text.ends_with("x\nlast too\n"));
    for (kept, own) in [(&finished.stdout, 5), (&finished.stderr, 9)] {
        assert_eq!(kept.text.len(), 64 << 10);
        assert_eq!(kept.cut_bytes, (10 << 20) + own - (64 << 10));
    }
}

#[tokio::test]
async fn its_own_folder_is_there_while_it_works_and_gone_afterwards() {
    let stage = Stage::new();
    let own = stage.path("own");
    let script = stage
        .script("s", "pwd; ls -A; echo kept > file; mkdir -p a/b; echo x > a/b/c; chmod 0 a; ln -s / up");
    let mut order = stage.order(&script, &[]);
    order.folder = Folder::Own(own.clone());
    let finished = run(launch(order)).await;
    assert_eq!((finished.end, &*finished.stderr.text), (Ok(End::Code(0)), ""));
    assert_eq!(finished.stdout.text.trim(), own.to_str().unwrap());
    assert!(!own.exists());
}

#[tokio::test]
async fn a_run_past_its_time_is_ended_by_it() {
    let stage = Stage::new();
    let mut launch = launch(stage.order(&stage.script("s", "echo before; exec sleep 1000"), &[]));
    launch.until = Deadline::after(Duration::from_millis(500));
    let finished = run(launch).await;
    assert_eq!((finished.end, finished.by), (Ok(End::Signal(15)), EndedBy::Time));
    stage.is_dead();
}

#[tokio::test]
async fn a_program_may_end_well_when_it_is_told_to() {
    let stage = Stage::new();
    let script = stage.script("s", "trap 'echo tidy; exit 0' TERM; touch up; while :; do sleep 0.01; done");
    let launch = launch(stage.order(&script, &[]));
    let stop = launch.stop.clone();
    let (finished, ()) = tokio::join!(run(launch), async {
        crate::stage::until("its start", || stage.path("up").exists()).await;
        stop.cancel();
    });
    assert_eq!((finished.end, finished.by), (Ok(End::Code(0)), EndedBy::Stop));
    assert_eq!(finished.stdout.text, "tidy\n");
}

#[tokio::test]
async fn how_a_run_goes_is_seen_while_it_goes() {
    let stage = Stage::new();
    let script = stage.script("s", "echo first; echo second; until [ -e go ]; do sleep 0.01; done");
    let mut seen = Vec::new();
    let go = stage.path("go");
    let finished = crate::stage::within(
        "the end of the run",
        inflightd::provider::command::run(launch(stage.order(&script, &[])), |glimpse| {
            seen.push(glimpse.line);
            fs::write(&go, "").unwrap();
        }),
    )
    .await;
    assert_eq!(finished.end, Ok(End::Code(0)));
    assert_eq!(seen[0].as_deref(), Some("second"));
}
