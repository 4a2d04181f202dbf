//! What a run may touch, and what it leaves.

use super::*;

/// A folder of this test, with one for flows, one for runs, and one that is nobody's.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inflightd-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        for part in ["flows/deep", "work", "elsewhere", "allowed"] {
            fs::create_dir_all(path.join(part)).unwrap();
        }
        fs::write(path.join("flows/a.json"), "a").unwrap();
        fs::write(path.join("flows/deep/b.json"), "b").unwrap();
        fs::write(path.join("elsewhere/secret.json"), "secret").unwrap();
        Self(path)
    }

    fn site(&self) -> Site {
        let config = FlowsConfig {
            folders: vec![self.0.join("flows")],
            writes: vec![self.0.join("allowed")],
            work: self.0.join("work"),
            work_is_set: true,
            per_minute: 10,
        };
        Site::open(&config).unwrap()
    }

    fn runs(&self) -> usize {
        fs::read_dir(self.0.join("work")).unwrap().count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn content(opened: Result<File, NoGraph>) -> Result<String, String> {
    let file = opened.map_err(|error| error.to_string())?;
    io::read_to_string(file).map_err(|error| error.to_string())
}

#[test]
fn a_graph_is_opened_in_its_folder_and_nowhere_else() {
    let place = Place::new("graphs");
    let site = place.site();
    let open = |path: &str| content(site.graph(path));
    let within = |path: &str| place.0.join(path).to_str().unwrap().to_owned();
    for (path, text) in [("a.json", "a"), ("./deep/b.json", "b")] {
        assert_eq!(open(path).as_deref(), Ok(text));
        assert_eq!(open(&within(&format!("flows/{path}"))).as_deref(), Ok(text));
    }
    let (outside, missing) = (Err("it lies in no flows folder".into()), Err("there is no such file".into()));
    for path in ["../elsewhere/secret.json", "deep/../a.json", "/etc/hostname", "a\0.json"] {
        assert_eq!(open(path), outside, "{path}");
    }
    for path in ["elsewhere/secret.json", "flows/../elsewhere/secret.json", "flowsy/a.json"] {
        assert_eq!(open(&within(path)), outside, "{path}");
    }
    for path in ["b.json", "a.json/b", "deep/c.json"] {
        assert_eq!(open(path), missing, "{path}");
    }
}

#[cfg(unix)]
#[test]
fn no_link_leads_out_of_the_flows_folder() {
    use std::os::unix::fs::symlink;
    let place = Place::new("links");
    let (site, flows) = (place.site(), place.0.join("flows"));
    symlink(place.0.join("elsewhere/secret.json"), flows.join("absolute.json")).unwrap();
    symlink("../elsewhere/secret.json", flows.join("relative.json")).unwrap();
    symlink(place.0.join("elsewhere"), flows.join("folder")).unwrap();
    for path in ["absolute.json", "relative.json", "folder/secret.json"] {
        assert_eq!(content(site.graph(path)), Err("it lies in no flows folder".into()), "{path}");
    }
    // As a mounted volume of Kubernetes has them: they stay inside.
    if cfg!(target_os = "linux") {
        symlink("deep", flows.join("..data")).unwrap();
        symlink("..data/b.json", flows.join("b.json")).unwrap();
        assert_eq!(content(site.graph("b.json")).as_deref(), Ok("b"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_race_leads_out_of_the_flows_folder() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new("race");
    let (site, flows) = (place.site(), place.0.join("flows"));
    fs::create_dir(flows.join("swaps")).unwrap();
    fs::write(flows.join("swaps/secret.json"), "inside").unwrap();
    std::os::unix::fs::symlink(place.0.join("elsewhere"), flows.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, other) = (flows.join("swaps"), flows.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let here = rustix::fs::CWD;
                rustix::fs::renameat_with(here, &one, here, &other, flags).unwrap();
            }
        });
        let (mut inside, mut outside) = (0, 0);
        while inside < 200 || outside < 200 {
            match content(site.graph("swaps/secret.json")) {
                Ok(text) => {
                    assert_eq!(text, "inside");
                    inside += 1;
                }
                Err(_) => outside += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn whatever_a_node_writes_stays_in_its_runs_folder() {
    let place = Place::new("writes");
    let site = place.site();
    let mut folder = site.folder(FlowId::mint(), b"{}", "context").unwrap();
    let own = folder.path().to_owned();
    let mut write = |path: &str| -> Result<String, String> {
        let target = folder.target(path).map_err(|error| error.to_string())?;
        folder.write(&target, "text").map_err(|error| error.to_string())?;
        Ok(target.name())
    };
    for (path, name) in
        [("a.md", "a.md"), ("./deep/b.md", "deep/b.md"), ("~/Downloads/c.md", "Downloads/c.md")]
    {
        assert_eq!(write(path).as_deref(), Ok(name));
        assert_eq!(fs::read_to_string(own.join(name)).unwrap(), "text");
    }
    let allowed = place.0.join("allowed/new/d.md");
    assert_eq!(write(allowed.to_str().unwrap()).as_deref(), Ok(allowed.to_str().unwrap()));
    assert_eq!(fs::read_to_string(&allowed).unwrap(), "text");
    let not_allowed = place.0.join("elsewhere/e.md");
    for path in [
        not_allowed.to_str().unwrap(),
        "/tmp/e.md",
        "~//etc/../e.md",
        "../e.md",
        "a/../../e.md",
        "",
        "~",
        ".",
    ] {
        assert!(write(path).is_err(), "{path}");
    }
    assert!(write("/e.md").unwrap_err().contains("FLOWS_WRITE_DIRS"));
    assert_eq!(write("flow.json"), Err("The file is the run's own.".into()));
    assert_eq!(write("~/fullcode.txt"), Err("The file is the run's own.".into()));
    assert!(write(&"a/".repeat(100)).is_err() && write(&"a".repeat(5000)).is_err());
    assert!(!not_allowed.exists());
    drop(folder);
    assert_eq!(place.runs(), 0);
    assert!(allowed.exists());
}

#[cfg(unix)]
#[test]
fn a_node_writes_over_no_link_and_into_no_pipe() {
    use std::os::unix::fs::symlink;
    let place = Place::new("written-links");
    let site = place.site();
    let allowed = place.0.join("allowed");
    symlink(place.0.join("elsewhere"), allowed.join("folder")).unwrap();
    symlink(place.0.join("elsewhere/secret.json"), allowed.join("file")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, allowed.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let mut folder = site.folder(FlowId::mint(), b"{}", "context").unwrap();
    for name in ["folder/secret.json", "file", "pipe"] {
        let target = folder.target(allowed.join(name).to_str().unwrap()).unwrap();
        assert!(folder.write(&target, "text").is_err(), "{name}");
    }
    assert_eq!(fs::read_to_string(place.0.join("elsewhere/secret.json")).unwrap(), "secret");
}

#[test]
fn a_run_writes_only_so_much() {
    let place = Place::new("bytes");
    let mut folder = place.site().folder(FlowId::mint(), b"{}", "context").unwrap();
    folder.written = MOST_WRITTEN_BYTES - 3;
    let target = folder.target("a").unwrap();
    assert!(matches!(folder.write(&target, "four"), Err(NoWrite::TooMuch)));
    folder.write(&target, "two").unwrap();
}

#[cfg(unix)]
#[test]
fn folders_of_killed_daemons_go_at_the_next_start_and_those_of_living_ones_stay() {
    let place = Place::new("sweep");
    let site = place.site();
    let held = site.folder(FlowId::mint(), b"{}", "context").unwrap();
    // No process has so high an id, and in a container each daemon has the one that this has.
    for process in [i32::MAX, rustix::process::getpid().as_raw_pid()] {
        fs::create_dir_all(place.0.join(format!("work/flow_{}_{process}/deep", FlowId::mint()))).unwrap();
    }
    // Somebody's own, whatever they are called.
    let id = FlowId::mint();
    for own in [
        "mine".to_owned(),
        "flow_charts".into(),
        "flow_2024_1".into(),
        format!("flow_{id}"),
        format!("flow_{id}_x"),
    ] {
        fs::create_dir(place.0.join("work").join(own)).unwrap();
    }
    std::os::unix::fs::symlink(place.0.join("elsewhere"), place.0.join("work/flow_link_1")).unwrap();
    assert_eq!(place.runs(), 9);
    drop(place.site());
    assert_eq!(place.runs(), 7);
    assert!(held.path().exists() && place.0.join("elsewhere/secret.json").exists());
}

#[cfg(unix)]
#[test]
fn a_usual_folder_that_others_write_into_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new("others");
    let work = place.0.join("work");
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).unwrap();
    let config = FlowsConfig { work: work.clone(), ..FlowsConfig::default() };
    assert!(matches!(Site::open(&config), Err(NoFolder::NotOurs(_))));
    fs::set_permissions(&work, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Site::open(&config).is_ok());
}

#[cfg(unix)]
#[test]
fn a_runs_folder_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new("modes");
    let folder = place.site().folder(FlowId::mint(), b"{}", "context").unwrap();
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(folder.path().join("fullcode.txt")).unwrap(), "context");
    assert_eq!(fs::read_to_string(folder.path().join("flow.json")).unwrap(), "{}");
}
