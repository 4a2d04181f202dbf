//! Which principal a token stands for.

use std::sync::Arc;

use crate::call::Principal;
use crate::config::PrincipalConfig;
use crate::config::principals::TokenHash;
use crate::ids::{PrincipalId, epoch_ms};

/// Everybody who may call, by what their tokens hash to.
#[derive(Debug)]
pub struct Auth {
    tokens: Box<[(TokenHash, Arc<Principal>)]>,
    principals: Box<[Arc<Principal>]>,
    nobody: Arc<Principal>,
}

impl Auth {
    /// Only who brings one of these principals' tokens comes in; where there is no token, everybody is the first
    /// of them. `queue` calls wait where a principal has places of its own and does not say how many.
    pub fn new(configured: &[PrincipalConfig], queue: usize) -> Self {
        let principals: Box<[_]> = (0..)
            .zip(configured)
            .map(|(id, config)| Arc::new(Principal::new(PrincipalId(id), config, queue)))
            .collect();
        let tokens = configured
            .iter()
            .zip(&principals)
            .flat_map(|(config, principal)| config.tokens.iter().map(|hash| (*hash, Arc::clone(principal))));
        Self { tokens: tokens.collect(), nobody: Arc::new(Principal::nobody()), principals }
    }

    /// Whether callers must bring a token.
    pub fn required(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// All principals, in the order of their ids.
    pub fn principals(&self) -> &[Arc<Principal>] {
        &self.principals
    }

    /// Who has not said who it is.
    pub fn nobody(&self) -> &Arc<Principal> {
        &self.nobody
    }

    /// Whom this token stands for; `None` where it stands for nobody, or no more.
    pub fn admit(&self, token: Option<&str>) -> Option<&Arc<Principal>> {
        let principal = if self.required() { self.owner(token?)? } else { self.principals.first()? };
        (!principal.has_expired(epoch_ms())).then_some(principal)
    }

    /// Compares with every hash, each in constant time: how long it takes tells neither which token it was nor whether
    /// it was one.
    fn owner(&self, token: &str) -> Option<&Arc<Principal>> {
        let hash = TokenHash::of(token);
        // One past its place, since no two hashes are the same; 0 where there is none.
        let found = (1..).zip(&self.tokens).fold(0_usize, |found, (place, (known, _))| {
            found | (place & usize::from(known.same(&hash)).wrapping_neg())
        });
        self.tokens.get(found.checked_sub(1)?).map(|(_, principal)| principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::principals::Expiry;

    fn principal(name: &str, tokens: &[&str]) -> PrincipalConfig {
        let tokens = tokens.iter().map(|token| TokenHash::of(token)).collect();
        PrincipalConfig { tokens, ..PrincipalConfig::plain(name) }
    }

    fn name(auth: &Auth, token: &str) -> Option<String> {
        auth.admit(Some(token)).map(|principal| principal.name.to_string())
    }

    #[test]
    fn only_the_token_itself_comes_in() {
        let auth = Auth::new(&[principal("local", &["0123456789abcdef"])], 1);
        assert!(auth.required() && name(&auth, "0123456789abcdef").is_some());
        assert!(auth.admit(None).is_none());
        for wrong in ["", "0123456789abcde", "0123456789abcdef ", "0123456789ABCDEF"] {
            assert!(name(&auth, wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_token_stands_for_its_own_principal() {
        let auth = Auth::new(
            &[principal("a", &["one"]), principal("b", &["two", "three"]), principal("c", &["four"])],
            1,
        );
        for (token, owner) in [("one", "a"), ("two", "b"), ("three", "b"), ("four", "c")] {
            assert_eq!(name(&auth, token).as_deref(), Some(owner), "{token}");
        }
        let ids: Vec<_> = auth.principals().iter().map(|principal| principal.id).collect();
        assert_eq!(ids, [0, 1, 2].map(PrincipalId));
    }

    #[test]
    fn without_any_token_everybody_is_local_whatever_they_bring() {
        let auth = Auth::new(&[PrincipalConfig::plain("local")], 1);
        assert!(!auth.required());
        assert_eq!(auth.admit(None).map(|principal| &*principal.name), Some("local"));
        assert_eq!(name(&auth, "anything").as_deref(), Some("local"));
    }

    #[test]
    fn an_expired_token_stands_for_nobody() {
        let expires = |text| Expiry::parse(text).ok();
        let gone = PrincipalConfig { expires: expires("2000-01-01"), ..principal("gone", &["one"]) };
        let good = PrincipalConfig { expires: expires("9999-12-31"), ..principal("good", &["two"]) };
        let auth = Auth::new(&[gone, good], 1);
        assert_eq!((name(&auth, "one"), name(&auth, "two").as_deref()), (None, Some("good")));
    }
}
