//! Those who have a key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, header};

use crate::domain::Failure;

use super::config::KeyConfig;
use super::key::Lock;
use super::quota::Bucket;
use super::role::Role;

/// Longest header that is looked at: no key of ours is longer.
const LONGEST: usize = 512;

/// One that has a key.
#[derive(Debug)]
struct Client {
    name: String,
    roles: Vec<Role>,
    quota: Option<Bucket>,
}

/// Who calls: one that has a key, or anybody where there are no keys.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Caller(Option<Arc<Client>>);

impl Caller {
    /// The name of its key; none where there are no keys.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|client| client.name.as_str())
    }

    /// Counts one more request against the quota.
    ///
    /// # Errors
    /// [`Failure::OverQuota`]
    pub fn ask(&self) -> Result<(), Failure> {
        let Some(client) = &self.0 else { return Ok(()) };
        let Some(quota) = &client.quota else { return Ok(()) };
        let over = |retry_after| Failure::OverQuota { client: client.name.clone(), retry_after };
        quota.take(1, Instant::now()).map_err(over)
    }

    /// Counts requests that came in one call that was let in.
    pub fn owe(&self, requests: usize) {
        if let Some(quota) = self.0.as_ref().and_then(|client| client.quota.as_ref()) {
            quota.owe(requests, Instant::now());
        }
    }
}

/// All that have a key, by name.
pub(in crate::server) struct Clients(HashMap<String, (Lock, Arc<Client>)>);

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Clients {
    /// Those of the settings, which have been checked: a key without a usable hash opens nothing.
    pub fn new(keys: &[KeyConfig]) -> Self {
        let now = Instant::now();
        let client = |key: &KeyConfig| {
            let quota = key.quota().map(|(rate, burst)| Bucket::new(rate, burst, now));
            let client = Client { name: key.name.clone(), roles: key.roles.clone(), quota };
            (key.name.clone(), (key.hash.lock().unwrap_or(Lock::SHUT), Arc::new(client)))
        };
        Self(keys.iter().map(client).collect())
    }

    /// Whether anybody may call anything.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// Who calls, if it may call this and has not called too often.
    ///
    /// # Errors
    /// [`Failure::Unauthenticated`] without a key of ours, [`Failure::Denied`] without the role, [`Failure::OverQuota`].
    pub fn admit(&self, headers: &HeaderMap, needed: Option<Role>) -> Result<Caller, Failure> {
        if self.is_open() {
            return Ok(Caller::default());
        }
        let client = self.recognise(headers)?;
        if let Some(role) = needed
            && !client.roles.contains(&role)
        {
            return Err(Failure::Denied(role.lacking()));
        }
        let caller = Caller(Some(client));
        caller.ask()?;
        Ok(caller)
    }

    /// Tells neither which names there are nor how close a key came.
    fn recognise(&self, headers: &HeaderMap) -> Result<Arc<Client>, Failure> {
        let mut said = headers.get_all(header::AUTHORIZATION).iter();
        let missing = Failure::Unauthenticated("a key is needed, in the metadata `authorization: Bearer KEY`");
        let wrong = Failure::Unauthenticated("the key is not known here");
        let value = said.next().ok_or(missing.clone())?;
        if said.next().is_some() || value.len() > LONGEST {
            return Err(wrong);
        }
        let (scheme, key) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(missing.clone())?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing);
        }
        let key = key.trim();
        let named = key.split_once('.').and_then(|(name, _)| self.0.get(name));
        let (lock, client) = named.map_or((&Lock::SHUT, None), |(lock, client)| (lock, Some(client)));
        let opens = lock.opens(key);
        client.filter(|_| opens).cloned().ok_or(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::access::NewKey;

    fn clients() -> (Clients, NewKey) {
        let key = NewKey::make("shop").unwrap();
        let config = KeyConfig {
            name: "shop".into(),
            hash: key.hash.clone(),
            roles: vec![Role::Recommend],
            requests_per_second: Some(0.5),
            burst: Some(2),
        };
        (Clients::new(&[config]), key)
    }

    fn saying(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_known_by_its_hash_whatever_the_case_of_the_scheme() {
        let (clients, key) = clients();
        for scheme in ["Bearer", "bearer"] {
            let caller = clients.admit(&saying(&format!("{scheme} {}", key.reveal())), Some(Role::Recommend)).unwrap();
            assert_eq!(caller.name(), Some("shop"));
        }
        let over = clients.admit(&saying(&format!("Bearer {}", key.reveal())), None).unwrap_err();
        let Failure::OverQuota { client, retry_after } = over else { panic!("{over:?}") };
        assert!(client == "shop" && retry_after.as_secs_f64() > 1.0);
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused_before_it_counts() {
        let (clients, key) = clients();
        let refused = |headers: &HeaderMap| clients.admit(headers, None).unwrap_err();
        let wrong = format!("shop.{}", "0".repeat(64));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Basic c2hvcDp4",
            &format!("Bearer {wrong}"),
            "Bearer nobody.00",
            &format!("Bearer {}0", key.reveal()),
            &format!("Bearer {}", "a".repeat(600)),
        ] {
            assert!(matches!(refused(&saying(value)), Failure::Unauthenticated(_)), "{value:?}");
        }
        assert!(matches!(refused(&HeaderMap::new()), Failure::Unauthenticated(_)));
        let mut twice = saying(&format!("Bearer {}", key.reveal()));
        twice.append(header::AUTHORIZATION, "Bearer x".parse().unwrap());
        assert!(matches!(refused(&twice), Failure::Unauthenticated(_)));
        let denied = clients.admit(&saying(&format!("Bearer {}", key.reveal())), Some(Role::Admin)).unwrap_err();
        assert!(matches!(denied, Failure::Denied(reason) if reason.contains("admin")));
        // None of all that was paid for.
        assert!(clients.admit(&saying(&format!("Bearer {}", key.reveal())), None).is_ok());
        assert!(!format!("{clients:?}").contains("sha256"));
    }

    #[test]
    fn without_keys_everybody_may() {
        let clients = Clients::new(&[]);
        let caller = clients.admit(&HeaderMap::new(), Some(Role::Admin)).unwrap();
        assert!(caller.name().is_none() && caller.ask().is_ok());
    }
}
