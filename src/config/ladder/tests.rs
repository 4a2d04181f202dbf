use proptest::prelude::*;

use super::*;

const KEYS: [&str; 10] = [
    "KIMI_TIMEOUT_SECS",
    "GLM_TIMEOUT_SECS",
    "OPENAI_TIMEOUT_SECS",
    "WORKFLOW_TOOL_TIMEOUT_SECS",
    "EXPERT_ANALYSIS_TIMEOUT_SECS",
    "QUEUE_TIMEOUT_SECS",
    "CONNECT_TIMEOUT_SECS",
    "DAEMON_TIMEOUT_SECS",
    "SHIM_TIMEOUT_SECS",
    "CLIENT_TIMEOUT_SECS",
];

/// The rungs with these keys set, in milliseconds; the usual values come from the table.
fn asked(set: &[(&str, u64)]) -> Rungs {
    let rung = |key: &'static str| Rung {
        key,
        usual: crate::config::parse::seconds(crate::config::keys::find(key).unwrap().default.shown())
            .unwrap(),
        set: set
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, millis)| Set { value: Duration::from_millis(*millis), origin: Origin::Process }),
    };
    Rungs {
        providers: KEYS[..3].iter().map(|key| rung(key)).collect(),
        workflow_tool: rung(KEYS[3]),
        expert_tool: rung(KEYS[4]),
        queue: rung(KEYS[5]),
        connect: rung(KEYS[6]),
        daemon: rung(KEYS[7]),
        shim: rung(KEYS[8]),
        client: rung(KEYS[9]),
    }
}

fn held(set: &[(&str, u64)]) -> Resolved {
    resolve(&asked(set)).unwrap_or_else(|violations| panic!("{set:?}: {violations:?}"))
}

/// Tool, queue, daemon, shim and client.
fn rungs(set: &[(&str, u64)]) -> [Duration; 5] {
    let ladder = held(set).ladder;
    [ladder.tool(), ladder.queue, ladder.daemon, ladder.shim, ladder.client]
}

fn secs(rungs: [u64; 5]) -> [Duration; 5] {
    rungs.map(Duration::from_secs)
}

fn texts(set: &[(&str, u64)]) -> Vec<String> {
    resolve(&asked(set)).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_usual_ladder_reads_as_promised() {
    let resolved = held(&[]);
    assert_eq!(
        resolved.ladder.summary(),
        "Timeout hierarchy validated: daemon=270s, tool=180.0s (ratio=1.50x)"
    );
    assert_eq!(VALIDATING, "Validating timeout hierarchy...");
    assert_eq!(rungs(&[]), secs([180, 60, 270, 360, 450]));
    assert_eq!(resolved.providers.iter().map(Duration::as_secs).collect::<Vec<_>>(), [180, 30, 180]);
    assert_eq!(resolved.ladder.connect.as_secs(), 10);
    assert!(resolved.warnings.is_empty());
}

#[test]
fn the_summary_shows_parts_of_a_second() {
    let text = held(&[("DAEMON_TIMEOUT_SECS", 100_500)]).ladder.summary();
    assert_eq!(text, "Timeout hierarchy validated: daemon=100.5s, tool=67.0s (ratio=1.50x)");
}

#[test]
fn unset_rungs_follow_a_set_one_down() {
    assert_eq!(rungs(&[("DAEMON_TIMEOUT_SECS", 90_000)]), secs([60, 30, 90, 120, 150]));
    assert_eq!(rungs(&[("SHIM_TIMEOUT_SECS", 120_000)]), secs([60, 30, 90, 120, 150]));
    assert_eq!(rungs(&[("CLIENT_TIMEOUT_SECS", 150_000)]), secs([60, 30, 90, 120, 150]));
    let providers = held(&[("CLIENT_TIMEOUT_SECS", 150_000)]).providers;
    assert_eq!(providers.iter().map(Duration::as_secs).collect::<Vec<_>>(), [60, 30, 60]);
}

#[test]
fn unset_rungs_follow_a_set_one_up() {
    assert_eq!(rungs(&[("KIMI_TIMEOUT_SECS", 200_000)]), secs([200, 60, 300, 400, 500]));
    assert_eq!(rungs(&[("WORKFLOW_TOOL_TIMEOUT_SECS", 600_000)]), secs([600, 60, 900, 1200, 1500]));
    assert_eq!(rungs(&[("QUEUE_TIMEOUT_SECS", 420_000)]), secs([180, 420, 600, 800, 1000]));
    assert_eq!(rungs(&[("SHIM_TIMEOUT_SECS", 1_000_000)]), secs([180, 60, 270, 1000, 1250]));
}

#[test]
fn an_unset_rung_finds_room_between_two_set_ones() {
    assert_eq!(
        rungs(&[("WORKFLOW_TOOL_TIMEOUT_SECS", 100_000), ("SHIM_TIMEOUT_SECS", 110_000)]),
        secs([100, 5, 105, 110, 175])
    );
    assert_eq!(
        rungs(&[("QUEUE_TIMEOUT_SECS", 100_000), ("SHIM_TIMEOUT_SECS", 110_000)]),
        secs([5, 100, 105, 110, 175])
    );
    assert_eq!(
        rungs(&[("DAEMON_TIMEOUT_SECS", 270_000), ("CLIENT_TIMEOUT_SECS", 280_000)]),
        secs([180, 60, 270, 275, 280])
    );
}

#[test]
fn an_unset_tool_stays_where_the_other_is_set_lower() {
    let ladder = held(&[("WORKFLOW_TOOL_TIMEOUT_SECS", 20_000)]).ladder;
    assert_eq!([ladder.workflow_tool.as_secs(), ladder.expert_tool.as_secs()], [20, 180]);
}

#[test]
fn an_equal_rung_names_both_and_a_value_that_would_do() {
    assert_eq!(
        texts(&[("DAEMON_TIMEOUT_SECS", 180_000), ("EXPERT_ANALYSIS_TIMEOUT_SECS", 180_000)]),
        ["DAEMON_TIMEOUT_SECS=180 (from the environment): must be longer than \
          EXPERT_ANALYSIS_TIMEOUT_SECS=180 (from the environment); DAEMON_TIMEOUT_SECS=270 would do"]
    );
}

#[test]
fn a_provider_over_the_set_tools_names_them_all() {
    assert_eq!(
        texts(&[
            ("KIMI_TIMEOUT_SECS", 200_000),
            ("WORKFLOW_TOOL_TIMEOUT_SECS", 100_000),
            ("EXPERT_ANALYSIS_TIMEOUT_SECS", 120_000)
        ]),
        ["KIMI_TIMEOUT_SECS=200 (from the environment): must not be longer than \
          WORKFLOW_TOOL_TIMEOUT_SECS=100 (from the environment) and \
          EXPERT_ANALYSIS_TIMEOUT_SECS=120 (from the environment); KIMI_TIMEOUT_SECS=120 would do"]
    );
    // The other tool would have room, but nobody said so.
    assert_eq!(texts(&[("KIMI_TIMEOUT_SECS", 150_000), ("WORKFLOW_TOOL_TIMEOUT_SECS", 100_000)]).len(), 1);
}

#[test]
fn queue_and_tool_must_fit_into_the_daemon() {
    assert_eq!(
        texts(&[
            ("DAEMON_TIMEOUT_SECS", 200_000),
            ("QUEUE_TIMEOUT_SECS", 60_000),
            ("WORKFLOW_TOOL_TIMEOUT_SECS", 180_000)
        ]),
        ["DAEMON_TIMEOUT_SECS=200 (from the environment): must leave room for \
          QUEUE_TIMEOUT_SECS=60 (from the environment) and \
          WORKFLOW_TOOL_TIMEOUT_SECS=180 (from the environment); DAEMON_TIMEOUT_SECS=270 would do"]
    );
}

#[test]
fn every_violation_is_reported_at_once() {
    let found = texts(&[
        ("KIMI_TIMEOUT_SECS", 400_000),
        ("WORKFLOW_TOOL_TIMEOUT_SECS", 300_000),
        ("DAEMON_TIMEOUT_SECS", 100_000),
        ("SHIM_TIMEOUT_SECS", 90_000),
        ("CLIENT_TIMEOUT_SECS", 90_000),
    ]);
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_low_ratio_only_warns() {
    let resolved = held(&[("DAEMON_TIMEOUT_SECS", 200_000), ("WORKFLOW_TOOL_TIMEOUT_SECS", 180_000)]);
    assert_eq!(
        resolved.warnings,
        ["the daemon's timeout of 200s is 1.11 times the tools' 180s, less than 1.5: little is left for \
          waiting; DAEMON_TIMEOUT_SECS=270 would do"]
    );
    assert_eq!(resolved.ladder.queue.as_secs(), 20);
}

#[test]
fn connecting_is_cut_to_the_tool() {
    let resolved = held(&[
        ("CONNECT_TIMEOUT_SECS", 30_000),
        ("WORKFLOW_TOOL_TIMEOUT_SECS", 20_000),
        ("EXPERT_ANALYSIS_TIMEOUT_SECS", 20_000),
    ]);
    assert_eq!(resolved.ladder.connect.as_secs(), 20);
    assert_eq!(resolved.warnings.len(), 1);
}

fn holds(rungs: &Rungs, resolved: &Resolved) -> Result<(), TestCaseError> {
    let ladder = &resolved.ladder;
    prop_assert!(resolved.providers.iter().all(|provider| *provider <= ladder.tool()), "{resolved:?}");
    prop_assert!(ladder.connect <= ladder.tool() && !ladder.connect.is_zero(), "{resolved:?}");
    prop_assert!(ladder.tool() < ladder.daemon, "{resolved:?}");
    prop_assert!(ladder.daemon < ladder.shim && ladder.shim < ladder.client, "{resolved:?}");
    prop_assert!(ladder.tool() + ladder.queue <= ladder.daemon, "{resolved:?}");
    prop_assert!(!ladder.workflow_tool.is_zero() && !ladder.expert_tool.is_zero(), "{resolved:?}");
    prop_assert!(!ladder.queue.is_zero(), "{resolved:?}");
    let pairs = [
        (rungs.workflow_tool, ladder.workflow_tool),
        (rungs.expert_tool, ladder.expert_tool),
        (rungs.queue, ladder.queue),
        (rungs.daemon, ladder.daemon),
        (rungs.shim, ladder.shim),
        (rungs.client, ladder.client),
    ];
    let providers = rungs.providers.iter().copied().zip(resolved.providers.iter().copied());
    for (rung, value) in pairs.into_iter().chain(providers) {
        prop_assert!(rung.value().is_none_or(|set| set == value), "{} was set: {resolved:?}", rung.key);
    }
    Ok(())
}

fn involved(broken: &Broken) -> Vec<Named> {
    match broken {
        Broken::ProviderOverTool { provider, tools } => [vec![*provider], tools.clone()].concat(),
        Broken::NotLonger { outer, inner } => [vec![*outer], inner.clone()].concat(),
        Broken::NoRoomToWait { queue, inner, outer } => [vec![*queue, *outer], inner.clone()].concat(),
    }
}

/// Times that are often equal or next to each other, and times from all the range.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![1..6_u64, 1..1_000_000_u64, 1..=604_800_000_u64]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_ladder_holds_or_set_values_are_named(
        times in prop::array::uniform10(prop::option::of(time())),
    ) {
        let set: Vec<(&str, u64)> =
            KEYS.iter().zip(times).filter_map(|(key, time)| Some((*key, time?))).collect();
        let asked = asked(&set);
        match resolve(&asked) {
            Ok(resolved) => holds(&asked, &resolved)?,
            Err(violations) => {
                let mut mended = asked.clone();
                for violation in &violations {
                    for named in involved(&violation.broken) {
                        let millis = u64::try_from(named.value.as_millis()).unwrap();
                        prop_assert!(set.contains(&(named.key, millis)), "{named}");
                    }
                    let rung = [&mut mended.daemon, &mut mended.shim, &mut mended.client]
                        .into_iter()
                        .chain(&mut mended.providers)
                        .find(|rung| rung.key == violation.key)
                        .unwrap();
                    rung.set = Some(Set { value: violation.would_do, origin: Origin::Process });
                }
                let resolved = resolve(&mended)
                    .map_err(|left| TestCaseError::fail(format!("{set:?}: {violations:?} left {left:?}")))?;
                holds(&mended, &resolved)?;
            }
        }
    }

    #[test]
    fn one_set_rung_never_violates(key in prop::sample::select(KEYS.to_vec()), time in time()) {
        let asked = asked(&[(key, time)]);
        let resolved = resolve(&asked)
            .map_err(|violations| TestCaseError::fail(format!("{key}={time}: {violations:?}")))?;
        holds(&asked, &resolved)?;
        prop_assert!(key == "CONNECT_TIMEOUT_SECS" || resolved.warnings.is_empty(), "{:?}", resolved.warnings);
    }
}
