//! Other names for models: the `[aliases]` of the TOML file.

use super::keys::Kind;
use super::problem::Problem;
use super::tables::{self, Member, Table};

/// The section of aliases.
pub(super) const TABLE: &str = "aliases";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name itself.
    pub name: Box<str>,
    /// The provider that answers, where the caller names none.
    pub provider: Option<Box<str>>,
    /// The model that is asked.
    pub model: Box<str>,
}

/// The members of an alias.
pub(super) const MEMBERS: [Member; 2] = [
    Member { name: "model", example: "\"kimi-k2.6\"", help: "The model that is asked." },
    Member {
        name: "provider",
        example: "\"kimi\"",
        help: "The provider that answers where the caller names none. Unset, the one that would have answered.",
    },
];

/// Reads the aliases.
pub(super) fn read(said: Option<&toml::Value>, problems: &mut Vec<Problem>) -> Vec<Alias> {
    let remedy = "fast = { model = \"glm-4.6\", provider = \"glm\" } below [aliases] would do";
    let mut aliases = Vec::new();
    for (name, members) in tables::each(TABLE, said, remedy, problems) {
        let path = format!("{TABLE}.{}", tables::shown(name));
        let mut table = Table::new(path, members, &MEMBERS, problems);
        let model = table.need("model", Kind::Text, tables::text);
        let provider = table.get("provider", Kind::Text, tables::text);
        aliases.extend(model.map(|model| Alias { name: name.into(), provider, model }));
    }
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_a_model_and_perhaps_who_answers() {
        let toml: toml::Table =
            "[aliases]\nfast = { model = \"glm-4.6\", provider = \"glm\" }\nbig = { model = \"b\" }\nbad = \"x\"\n\
             worse = { provider = \"p\" }"
                .parse()
                .unwrap();
        let mut problems = Vec::new();
        let aliases = read(toml.get(TABLE), &mut problems);
        let alias = |name: &str, provider: Option<&str>, model: &str| Alias {
            name: name.into(),
            provider: provider.map(Into::into),
            model: model.into(),
        };
        assert_eq!(aliases, [alias("big", None, "b"), alias("fast", Some("glm"), "glm-4.6")]);
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "aliases.bad (from the TOML file): is a string in TOML; fast = { model = \"glm-4.6\", provider = \
                 \"glm\" } below [aliases] would do",
                "aliases.worse.model (from the TOML file): is missing; model = \"kimi-k2.6\" would do"
            ]
        );
    }
}
