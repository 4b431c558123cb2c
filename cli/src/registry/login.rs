//! Trying a password before remembering it.

use http::{HeaderMap, Method};

use super::{
    Client, Error, Secret,
    credential::{Credential, Store},
    exchange::{Call, Registry},
    token::Scope,
};
use crate::reference::Host;

/// Asks `/v2/` with the password; remembers it if the registry lets us in.
pub async fn login(
    client: &Client,
    host: &Host,
    user: &str,
    password: &Secret,
) -> Result<String, Error> {
    let credential = Credential::Password {
        user: user.to_owned(),
        password: password.clone(),
    };
    let trial = Store::holding(credential);
    let registry = Registry::new(host.clone(), &client.connection, trial, client.pace)?;
    let call = Call {
        method: Method::GET,
        url: registry.root(),
        headers: HeaderMap::new(),
        body: None,
        scope: Scope::none(),
        repeatable: true,
        what: format!("login as {user}"),
    };
    let response = registry.send(&call, &client.progress).await?;
    if !response.status().is_success() {
        return Err(registry.failed(response, &call.what).await);
    }
    client.store.save(host, user, password)
}
