//! Programs that want to stay: nothing of them survives.

use std::time::Duration;

use inflightd::deadline::Deadline;
use inflightd::provider::command::{self, End, EndedBy, Fence, Folder};

use crate::stage::{Stage, launch, run, until, within};

/// It ignores TERM, and leaves children behind in each way there is: in the background, in a session of their own, and
/// twice forked, all deaf as itself.
pub const STAYS: &str = r#"
trap '' TERM INT HUP QUIT
(trap '' TERM; while :; do sleep 1000; done) &
setsid bash -c 'trap "" TERM HUP; echo setsid >> up; while :; do sleep 1000; done' &
(setsid bash -c '(trap "" TERM; echo orphan >> up; while :; do sleep 1000; done) & exit 0' &)
perl -e 'use POSIX; $SIG{TERM} = "IGNORE"; exit if fork; POSIX::setsid(); exit if fork; close STDIN; close STDOUT;
         close STDERR; open F, ">>", "up"; print F "daemon\n"; close F; sleep 1000 while 1' &
while :; do sleep 1000; done
"#;

/// Waits until all of it is up.
pub async fn is_up(stage: &Stage) {
    for line in ["setsid", "orphan", "daemon"] {
        stage.says("up", line).await;
    }
}

#[tokio::test]
async fn nothing_survives_a_timeout() {
    let stage = Stage::new();
    let mut launch = launch(stage.order(&stage.script("s", STAYS), &[]));
    launch.until = Deadline::after(Duration::from_secs(1));
    let finished = run(launch).await;
    assert_eq!((finished.end, finished.by), (Ok(End::Signal(9)), EndedBy::Time));
    stage.is_dead();
}

#[tokio::test]
async fn nothing_survives_a_stop() {
    let stage = Stage::new();
    let launch = launch(stage.order(&stage.script("s", STAYS), &[]));
    let stop = launch.stop.clone();
    let (finished, ()) = tokio::join!(run(launch), async {
        is_up(&stage).await;
        stop.cancel();
    });
    assert_eq!((finished.end, finished.by), (Ok(End::Signal(9)), EndedBy::Stop));
    stage.is_dead();
}

#[tokio::test]
async fn nothing_survives_when_nobody_listens_any_more() {
    let stage = Stage::new();
    let mut order = stage.order(&stage.script("s", STAYS), &[]);
    let own = stage.path("own");
    order.folder = Folder::Own(own.clone());
    order.fence = None;
    {
        let run = command::run(launch(order), |_| ());
        tokio::select! {
            _ = run => panic!("it ended by itself"),
            () = until("its start", || std::fs::read_to_string(own.join("up")).is_ok_and(|up| up.lines().count() == 3)) => {}
        }
    }
    until("the end of the tree", || stage.living().is_empty()).await;
    until("the end of its folder", || !own.exists()).await;
}

#[tokio::test]
async fn nothing_survives_the_end_of_the_program_itself() {
    let stage = Stage::new();
    let script = stage.script(
        "s",
        &format!("{}\nexit 0", STAYS.trim_end().trim_end_matches("while :; do sleep 1000; done")),
    );
    let finished = run(launch(stage.order(&script, &[]))).await;
    assert_eq!((finished.end, finished.by), (Ok(End::Code(0)), EndedBy::Itself));
    assert!(
        finished.took < Duration::from_secs(5),
        "what it left behind is not its own time: {:?}",
        finished.took
    );
    stage.is_dead();
}

#[tokio::test]
async fn one_that_writes_for_ever_is_ended() {
    let stage = Stage::new();
    let mut launch = launch(stage.order(&stage.script("s", "yes & exec yes >&2"), &[]));
    launch.until = Deadline::after(Duration::from_millis(700));
    let finished = run(launch).await;
    assert_eq!(finished.by, EndedBy::Time);
    assert!(finished.stdout.cut_bytes > 0 && finished.stdout.text.len() <= 64 << 10);
    stage.is_dead();
}

#[tokio::test]
async fn one_that_closes_its_streams_and_lives_on_is_waited_for_and_ended() {
    let stage = Stage::new();
    let script = stage.script("s", "exec >&- 2>&- <&-; until [ -e go ]; do sleep 0.01; done; exit 7");
    let (finished, ()) = tokio::join!(run(launch(stage.order(&script, &[]))), async {
        until("its start", || !stage.living().is_empty()).await;
        std::fs::write(stage.path("go"), "").unwrap();
    });
    assert_eq!(finished.end, Ok(End::Code(7)));
    let mut lives_on = launch(stage.order(&stage.script("s", "exec >&- 2>&- <&-; exec sleep 1000"), &[]));
    lives_on.until = Deadline::after(Duration::from_millis(300));
    assert_eq!(run(lives_on).await.by, EndedBy::Time);
    stage.is_dead();
}

/// It forks a child and ends, so that it is another process each time one looks; bounded, if nobody ends it.
const HOPS: &str = r"#!/usr/bin/perl
use POSIX; $SIG{TERM} = 'IGNORE'; open F, '>', 'up'; close F;
for (1 .. 300_000) { my $child = fork; exit if $child; LEAVE POSIX::_exit(1) unless defined $child; }
";

async fn hops(leave: &str) {
    let stage = Stage::new();
    let script = stage.file("s", &HOPS.replace("LEAVE", leave));
    let launch = launch(stage.order(&script, &[]));
    let stop = launch.stop.clone();
    let (finished, ()) = tokio::join!(run(launch), async {
        until("its start", || stage.path("up").exists()).await;
        stop.cancel();
    });
    // The process that was started has hopped on long since.
    assert_eq!(finished.end, Ok(End::Code(0)), "{leave}");
    stage.is_dead();
}

#[tokio::test]
async fn one_that_hops_from_process_to_process_is_ended_whether_it_leaves_its_group_or_not() {
    tokio::join!(hops(""), hops("POSIX::setsid();"));
}

/// Each process forks two, as fast as it can, deaf to TERM; bounded by their number.
const BOMB: &str = r#"#!/usr/bin/perl
use POSIX; $SIG{TERM} = 'IGNORE'; $SIG{CHLD} = 'IGNORE';
for my $depth (1 .. 7) { fork; POSIX::setsid() if $depth % 2; }
open F, '>>', 'up'; syswrite F, "$$\n"; close F;
while (1) { my $child = fork; POSIX::_exit(0) if defined $child && !$child; select undef, undef, undef, 0.02; }
"#;

#[tokio::test]
async fn one_that_forks_for_ever_is_ended() {
    let stage = Stage::new();
    let launch = launch(stage.order(&stage.file("s", BOMB), &[]));
    let stop = launch.stop.clone();
    let (finished, ()) = tokio::join!(run(launch), async {
        until("a hundred and more", || stage.text("up").lines().count() == 128).await;
        stop.cancel();
    });
    assert_eq!((finished.end, finished.by), (Ok(End::Signal(9)), EndedBy::Stop));
    stage.is_dead();
}

#[tokio::test]
async fn a_fenced_program_reaches_neither_what_is_outside_nor_its_guard() {
    if !command::guard::fence_is_there() {
        println!("SKIPPED: this kernel has no Landlock");
        return;
    }
    let (stage, outside) = (Stage::new(), Stage::new());
    std::fs::write(outside.path("secret"), "s3cret").unwrap();
    let script = stage.script(
        "s",
        r#"cat "$1/secret"; echo x > "$1/new"; kill -9 $PPID; kill -STOP $PPID; echo mine > mine; cat mine"#,
    );
    let at = outside.path("");
    let finished = run(launch(stage.order(&script, &[at.to_str().unwrap()]))).await;
    assert_eq!((finished.end, &*finished.stdout.text), (Ok(End::Code(0)), "mine\n"), "{:?}", finished.stderr);
    assert_eq!(finished.stderr.text.matches("ermission denied").count(), 2, "{:?}", finished.stderr);
    assert_eq!(finished.stderr.text.matches("not permitted").count(), 2, "{:?}", finished.stderr);
    assert!(!outside.path("new").exists());
    // What the operator lists is within reach.
    let mut order = stage.order(&script, &[at.to_str().unwrap()]);
    order.fence = Some(Fence { read: Vec::new(), write: vec![at.clone()] });
    assert!(run(launch(order)).await.stdout.text.starts_with("s3cret"));
    assert!(outside.path("new").exists());
}

#[tokio::test]
async fn a_program_that_kills_its_guard_dies_too() {
    let stage = Stage::new();
    let script =
        stage.script("s", "(trap '' TERM; while :; do sleep 1000; done) & kill -9 $PPID; sleep 1000");
    let mut order = stage.order(&script, &[]);
    order.fence = None;
    let finished = within("the end of the run", run(launch(order))).await;
    assert_eq!(finished.end, Err("its guard was killed".into()));
    stage.is_dead();
}
