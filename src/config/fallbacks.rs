//! Who is asked where a provider fails: the `[fallbacks]` of the TOML file.

use super::aliases::Alias;
use super::parse::Wrong;
use super::problem::{Origin, Problem, Shown};
use super::{providers, sources, tables};

/// The section of fallbacks.
pub(super) const TABLE: &str = "fallbacks";

/// What would do.
const REMEDY: &str = "kimi = [\"glm\", \"openai\"] below [fallbacks] would do";

/// Who is asked instead, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The provider or alias whose calls they are.
    pub of: Box<str>,
    /// Providers, each with its own model, and aliases.
    pub then: Vec<Box<str>>,
}

/// Reads the fallbacks; `own` are the names of one's own providers.
pub(super) fn read(
    said: Option<&toml::Value>,
    aliases: &[Alias],
    own: &[&str],
    problems: &mut Vec<Problem>,
) -> Vec<Fallback> {
    let presets = providers::provider_presets().map(|(name, _)| name);
    let names = presets.chain(own.iter().copied()).chain([providers::OFFLINE]);
    let names: Vec<_> = names.chain(aliases.iter().map(|alias| &*alias.name)).collect();
    let mut refuse = |setting, wrong| {
        problems.push(Problem::Value { setting, wrong, remedy: REMEDY.to_owned() });
    };
    let chains = match said {
        None => return Vec::new(),
        Some(toml::Value::Table(chains)) => chains,
        Some(other) => {
            let wrong = Wrong::TomlType { found: sources::kind_of(other) };
            refuse(Shown::without_value(TABLE, Origin::Toml), wrong);
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (of, then) in chains {
        let path = format!("{TABLE}.{}", tables::shown(of));
        let strings = match then {
            toml::Value::Array(entries) => entries.iter().map(toml::Value::as_str).collect(),
            _ => None,
        };
        let Some(then): Option<Vec<_>> = strings else {
            let wrong = Wrong::TomlType { found: sources::kind_of(then) };
            refuse(Shown::without_value(&path, Origin::Toml), wrong);
            continue;
        };
        for name in [of.as_str()].into_iter().chain(then.iter().copied()).filter(|name| !names.contains(name))
        {
            let wrong = Wrong::NotChoice { words: names.join(", ") };
            refuse(Shown::with_value(&path, name, Origin::Toml), wrong);
        }
        if then.contains(&of.as_str()) {
            refuse(Shown::with_value(&path, of, Origin::Toml), Wrong::FallsBackToItself);
        }
        found.push(Fallback { of: of.as_str().into(), then: then.into_iter().map(Into::into).collect() });
    }
    found
}

/// What is named there and not offered, and so is passed over.
pub(super) fn warnings(fallbacks: &[Fallback], aliases: &[Alias], offered: &[&str]) -> Vec<String> {
    let missing = |name: &str| -> Option<String> {
        let alias = aliases.iter().find(|alias| *alias.name == *name);
        let provider =
            if offered.contains(&name) { None } else { alias.map_or(Some(name), |a| a.provider.as_deref()) };
        provider.filter(|provider| !offered.contains(provider)).map(ToOwned::to_owned)
    };
    let mut warnings = Vec::new();
    for Fallback { of, then } in fallbacks {
        for name in then {
            let why = missing(name);
            warnings.extend(why.map(|provider| {
                format!("{TABLE}.{of}: {name} is passed over, since {provider} is not offered here")
            }));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(name: &str, provider: Option<&str>) -> Alias {
        Alias { name: name.into(), provider: provider.map(Into::into), model: "m".into() }
    }

    fn reads(toml: &str) -> (Vec<Fallback>, Vec<String>) {
        let toml: toml::Table = toml.parse().unwrap();
        let mut problems = Vec::new();
        let aliases = [alias("fast", Some("glm")), alias("big", None)];
        let found = read(toml.get(TABLE), &aliases, &["lab"], &mut problems);
        (found, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_chain_is_of_a_provider_or_an_alias_and_names_either() {
        let (found, problems) =
            reads("[fallbacks]\nfast = [\"big\", \"offline\"]\nkimi = [\"lab\"]\nglm = []");
        let chain = |of: &str, then: &[&str]| Fallback {
            of: of.into(),
            then: then.iter().map(|name| Box::from(*name)).collect(),
        };
        assert_eq!(found, [chain("fast", &["big", "offline"]), chain("glm", &[]), chain("kimi", &["lab"])]);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn each_wrong_chain_is_a_problem_with_what_would_do() {
        let names = "kimi, glm, openai, anthropic, gemini, openrouter, deepseek, ollama, vllm, lab, offline, fast, big";
        for (toml, expected) in [
            ("fallbacks = 1", "fallbacks (from the TOML file): is a number in TOML".to_owned()),
            (
                "[fallbacks]\nkimi = \"glm\"",
                "fallbacks.kimi (from the TOML file): is a string in TOML".to_owned(),
            ),
            (
                "[fallbacks]\nkimi = [1]",
                "fallbacks.kimi (from the TOML file): is an array in TOML".to_owned(),
            ),
            (
                "[fallbacks]\nkimi = [\"gml\"]",
                format!("fallbacks.kimi=gml (from the TOML file): is none of {names}"),
            ),
            (
                "[fallbacks]\nslow = [\"glm\"]",
                format!("fallbacks.slow=slow (from the TOML file): is none of {names}"),
            ),
            (
                "[fallbacks]\nkimi = [\"glm\", \"kimi\"]",
                "fallbacks.kimi=kimi (from the TOML file): cannot be asked instead of itself".to_owned(),
            ),
        ] {
            assert_eq!(reads(toml).1, [format!("{expected}; {REMEDY}")], "{toml}");
        }
    }

    #[test]
    fn who_is_named_and_not_offered_is_told() {
        let aliases = [alias("fast", Some("glm")), alias("big", None)];
        let then = ["fast", "big", "kimi", "openai"].map(Box::from).to_vec();
        let told = warnings(&[Fallback { of: "offline".into(), then }], &aliases, &["kimi", "offline"]);
        assert_eq!(
            told,
            [
                "fallbacks.offline: fast is passed over, since glm is not offered here",
                "fallbacks.offline: openai is passed over, since openai is not offered here",
            ]
        );
    }
}
