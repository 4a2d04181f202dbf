use crate::config::{Config, Loaded, Secret, Sources, Wire, resolve};

fn loaded(toml: &str, set: &[(&str, &str)]) -> Loaded {
    let flags = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { flags, toml: toml.parse().unwrap(), ..Sources::default() };
    resolve(sources).unwrap_or_else(|problems| panic!("{problems}"))
}

fn config(toml: &str, set: &[(&str, &str)]) -> Config {
    loaded(toml, set).config
}

fn names(config: &Config) -> Vec<&str> {
    config.providers.iter().map(|provider| &*provider.name).collect()
}

fn problems(toml: &str, set: &[(&str, &str)]) -> Vec<String> {
    let flags = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { flags, toml: toml.parse().unwrap(), ..Sources::default() };
    resolve(sources).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn every_preset_is_offered_by_its_key_or_its_address_in_the_order_of_preference() {
    let keyed = ["OPENROUTER", "DEEPSEEK", "GEMINI", "ANTHROPIC", "OPENAI", "GLM", "KIMI"];
    let keys: Vec<_> = keyed.iter().map(|prefix| (format!("{prefix}_API_KEY"), "k")).collect();
    let mut set: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    set.extend([
        ("OLLAMA_API_URL", "http://127.0.0.1:11434/v1/"),
        ("VLLM_API_URL", "http://127.0.0.1:8000/v1"),
    ]);
    set.push(("VLLM_MODEL", "qwen"));
    let config = config("", &set);
    let order = ["kimi", "glm", "openai", "anthropic", "gemini", "openrouter", "deepseek", "ollama", "vllm"];
    assert_eq!(names(&config), order);
    let wires: Vec<_> = config.providers.iter().map(|provider| provider.wire).collect();
    assert_eq!(wires[3..5], [Wire::Anthropic, Wire::Gemini]);
    assert!(wires.iter().filter(|wire| **wire == Wire::OpenAi).count() == 7);
    let ollama = &config.providers[7];
    assert!(ollama.api_key.is_none() && ollama.base_url == "http://127.0.0.1:11434/v1");
}

#[test]
fn a_provider_without_a_timeout_of_its_own_has_that_of_its_class_cut_to_the_tools() {
    let timeouts = |set: &[(&str, &str)]| {
        let config = config("", &[&[("OPENAI_API_KEY", "k"), ("GLM_API_KEY", "k")], set].concat());
        let of = |at: usize| {
            let provider = &config.providers[at];
            [provider.timeout, provider.follow_up_timeout].map(|time| time.as_secs())
        };
        (of(0), of(1))
    };
    assert_eq!(timeouts(&[]), ([30, 30], [180, 120]));
    let longer = [("WORKFLOW_TOOL_TIMEOUT_SECS", "400")];
    assert_eq!(timeouts(&longer).1, [300, 120]);
    let set = [("STREAMING_TIMEOUT_SECS", "50"), ("CONTINUATION_TIMEOUT_SECS", "40")];
    assert_eq!(timeouts(&set), ([30, 30], [50, 40]));
    assert_eq!(timeouts(&[("OPENAI_TIMEOUT_SECS", "70"), set[0], set[1]]).1, [70, 70]);
    let shorter = [("WORKFLOW_TOOL_TIMEOUT_SECS", "20"), ("EXPERT_ANALYSIS_TIMEOUT_SECS", "25")];
    assert_eq!(timeouts(&shorter).1, [25, 25]);
}

#[test]
fn a_provider_of_ones_own_is_offered_behind_the_presets() {
    let toml = "[providers.mine]\nurl = \"http://127.0.0.1:9/v1/\"\nmodel = \"m\"\n\
        [providers.whole]\nurl = \"http://127.0.0.1:9\"\nmodel = \"w\"\nwire = \"gemini\"\napi_key = \"hush\"\n\
        max_inflight = 3\nstream = false";
    let config = config(toml, &[("KIMI_API_KEY", "k")]);
    assert_eq!(names(&config), ["kimi", "mine", "whole"]);
    let [_, mine, whole] = &config.providers[..] else { panic!("three") };
    assert_eq!((mine.base_url.as_str(), mine.model.as_str()), ("http://127.0.0.1:9/v1", "m"));
    assert_eq!((mine.wire, mine.max_inflight, mine.stream), (Wire::OpenAi, 8, true));
    assert_eq!((mine.timeout.as_secs(), mine.follow_up_timeout.as_secs()), (180, 120));
    assert!(mine.api_key.is_none());
    assert_eq!((whole.wire, whole.max_inflight, whole.stream), (Wire::Gemini, 3, false));
    assert_eq!(whole.timeout.as_secs(), 30);
    assert_eq!(whole.api_key.as_ref().map(Secret::reveal), Some("hush"));
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn what_is_wrong_with_a_provider_of_ones_own_is_said_with_what_would_do() {
    let toml = "[providers]\nc = 1\n[providers.kimi]\nurl = \"http://h\"\n[providers.offline]\n[providers.\"My One\"]\n\
        [providers.a]\nurl = \"ftp://h\"\nmodel = \"m\"\napi_key = \"hush hush\"\nstream = \"no\"\nmax_inflight = 0\n\
        [providers.b]\nurl = \"http://h\"\nwires = \"openai\"";
    let found = problems(toml, &[]).join("\n");
    for line in [
        "providers.kimi (from the TOML file): is the name of a provider that is there already; [providers.mine] would do",
        "providers.a.url (from the TOML file): is not an http or https URL; url = \"http://127.0.0.1:8000/v1\" would do",
        "providers.a.max_inflight (from the TOML file): must be at least 1; max_inflight = 8 would do",
        "providers.a.stream (from the TOML file): is a string in TOML; stream = false would do",
        "providers.b.wires (from the TOML file): there is no such key; the nearest is wire",
        "providers.b.model (from the TOML file): is missing; model = \"my-model\" would do",
        "providers.c (from the TOML file): is a number in TOML; [providers.mine] with url",
    ] {
        assert!(found.contains(line), "{line}\n{found}");
    }
    assert!(!found.contains("hush"), "{found}");
}

#[test]
fn a_keyless_preset_says_what_is_missing() {
    let found = problems("", &[("VLLM_API_URL", "http://127.0.0.1:9")]);
    assert!(found[0].contains("set VLLM_MODEL to the name under which it serves one"), "{found:?}");
    let warnings = loaded("", &[("OLLAMA_API_KEY", "k")]).warnings;
    assert!(warnings[0].contains("OLLAMA_API_URL is not"), "{warnings:?}");
}
