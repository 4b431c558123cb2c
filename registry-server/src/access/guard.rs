//! From a request's credentials to a caller, and from a caller to yes or no.

use std::{net::IpAddr, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::{
    Action, Caller, Principal,
    password::Users,
    publisher::{self, Publishers},
    token::{Claims, Issuer},
};
use crate::{
    config::{Config, ConfigError, Rule},
    metadata,
    name::Repository,
};

/// `aud` of our tokens, `service` of our challenges.
pub const ISSUED_FOR: &str = "bpfseal-registry";

/// The user name under which clients that know only names and passwords send an OIDC
/// identity token.
const OIDC_USER: &str = "oidc";

/// How long a token is good for unless configured.
const TOKEN_SECONDS: u64 = 300;

/// File name of the secret that signs tokens.
const TOKEN_KEY: &str = "token.key";

/// Who may do what, as configured.
pub struct Access {
    /// Nothing: everybody may do everything.
    auth: Option<Logins>,
    rules: Vec<Rule>,
    anonymous_pull: bool,
}

struct Logins {
    users: Option<Users>,
    publishers: Publishers,
    issuer: Issuer,
}

/// What a token is limited to, in the shape of Docker's token specification.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Granted {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A repository's name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`, `*`.
    pub actions: Vec<String>,
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: health, the description of the interface.
    Nothing,
    /// To be logged in, where logins are configured.
    Login,
    /// One of the rights, in a repository.
    Any(Repository, &'static [Action]),
    /// The list of repositories.
    Catalog,
    /// What is the operator's.
    Operator,
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The client should log in, or ask for a token with this scope.
    Challenge(Option<String>),
    /// Wrong password, or a token that is none.
    Wrong(String),
    /// The caller may not do it.
    Forbidden,
}

/// The credentials of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// None.
    None,
    /// Name and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
    /// Something else.
    Unknown,
}

/// Who asks at the token endpoint, and for what.
pub struct Asked {
    /// Who.
    pub principal: Principal,
    /// What tells a changed password.
    pub proof: String,
    /// What the token should be limited to.
    pub scopes: Option<Vec<Granted>>,
}

impl Access {
    /// As configured. `root` is where a secret for tokens is kept unless one is named.
    pub fn new(config: &Config, root: &Path) -> Result<Self, ConfigError> {
        let Some(auth) = &config.auth else {
            if !config.access.is_empty() {
                return Err(unusable("[[access]] needs [auth]: nobody can log in"));
            }
            let mutual = config
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_ca.is_some());
            if mutual {
                return Err(unusable(
                    "client_ca needs [auth], which says what clients may do",
                ));
            }
            return Ok(Self {
                auth: None,
                rules: Vec::new(),
                anonymous_pull: true,
            });
        };
        let publishers = Publishers::new(&auth.publisher)?;
        check_names(&config.access, &publishers)?;
        let seconds = auth
            .token_seconds
            .unwrap_or(TOKEN_SECONDS)
            .clamp(60, 86_400);
        let (path, create) = match &auth.token_key {
            Some(path) => (path.clone(), false),
            None => (root.join(TOKEN_KEY), true),
        };
        let issuer = Issuer::open(&path, create, seconds);
        let issuer = issuer.map_err(|error| ConfigError::Read {
            path: path.display().to_string(),
            error,
        })?;
        let users = auth.htpasswd.as_deref().map(Users::open).transpose()?;
        Ok(Self {
            auth: Some(Logins {
                users,
                publishers,
                issuer,
            }),
            rules: config.access.clone(),
            anonymous_pull: auth.anonymous_pull,
        })
    }

    /// Whether logins are configured.
    pub fn is_closed(&self) -> bool {
        self.auth.is_some()
    }

    /// Whether the principal has a right, whatever its token is limited to.
    pub fn allows(&self, principal: &Principal, repository: &str, action: Action) -> bool {
        if self.auth.is_none() {
            return true;
        }
        if self.anonymous_pull && action == Action::Pull {
            return true;
        }
        // Without rules a password is good for everything that is not the operator's.
        if self.rules.is_empty() {
            return matches!(principal, Principal::User(_)) && action != Action::Admin;
        }
        let name = principal.name();
        self.rules.iter().any(|rule| {
            rule.repository.covers(repository)
                && rule.actions.iter().any(|right| right.implies(action))
                && rule.who.iter().any(|who| match who.as_str() {
                    "anonymous" => true,
                    "authenticated" => *principal != Principal::Anonymous,
                    _ => {
                        *principal != Principal::Anonymous
                            && same_kind(who.as_str(), &name)
                            && who.covers(&name)
                    }
                })
        })
    }

    /// Whether the principal may see what is the operator's: a right to `admin` on `*`.
    pub fn is_operator(&self, principal: &Principal) -> bool {
        self.auth.is_none() || self.allows(principal, "*", Action::Admin)
    }

    /// The caller of a request.
    pub async fn identify(
        self: &Arc<Self>,
        credentials: Credentials,
        certificate: Option<&str>,
        peer: IpAddr,
    ) -> Result<Caller, Denial> {
        let caller = |principal, granted| Caller {
            principal,
            granted,
            peer,
            access: Arc::clone(self),
        };
        let Some(auth) = &self.auth else {
            return Ok(caller(Principal::Open, None));
        };
        match credentials {
            Credentials::None => Ok(match certificate {
                Some(name) => caller(Principal::Certificate(name.to_owned()), None),
                None => caller(Principal::Anonymous, None),
            }),
            Credentials::Basic(name, password) => {
                let (principal, _) = auth.login(&name, &password).await.map_err(Denial::Wrong)?;
                Ok(caller(principal, None))
            }
            Credentials::Bearer(token) => {
                let claims = auth.issuer.verify(&token);
                let found = claims.and_then(|claims| auth.principal(claims));
                match found {
                    Some((principal, granted)) => Ok(caller(principal, granted)),
                    None => Err(Denial::Wrong("the token is not valid any more".to_owned())),
                }
            }
            Credentials::Unknown => Err(Denial::Wrong(
                "the registry knows Basic and Bearer credentials".to_owned(),
            )),
        }
    }

    /// Whether `caller` has what a request needs.
    pub fn permit(&self, caller: &Caller, need: &Need) -> Result<(), Denial> {
        if self.auth.is_none() {
            return Ok(());
        }
        let anonymous = caller.principal == Principal::Anonymous;
        match need {
            Need::Nothing => Ok(()),
            // A token for nobody is an answer to the challenge, too.
            Need::Login if !anonymous || caller.granted.is_some() => Ok(()),
            Need::Login => Err(Denial::Challenge(None)),
            Need::Operator if self.is_operator(&caller.principal) => Ok(()),
            Need::Operator if anonymous => Err(Denial::Challenge(None)),
            Need::Operator => Err(Denial::Forbidden),
            Need::Catalog => {
                let scope = "registry:catalog:*";
                let limited = caller.granted.as_ref().is_some_and(|granted| {
                    !granted
                        .iter()
                        .any(|g| g.kind == "registry" && g.name == "catalog")
                });
                match (anonymous, limited) {
                    (false, false) => Ok(()),
                    _ => Err(Denial::Challenge(Some(scope.to_owned()))),
                }
            }
            Need::Any(repository, actions) => {
                if actions.iter().any(|action| caller.may(repository, *action)) {
                    return Ok(());
                }
                let name = repository.as_str();
                let scope = format!("repository:{name}:{}", scope_of(actions));
                let has_right = actions
                    .iter()
                    .any(|action| self.allows(&caller.principal, name, *action));
                // The right is there and the token is too narrow, or nobody logged in.
                if has_right || anonymous {
                    return Err(Denial::Challenge(Some(scope)));
                }
                Err(Denial::Forbidden)
            }
        }
    }

    /// Who asks for a token with these credentials.
    pub async fn ask(
        &self,
        credentials: Credentials,
        certificate: Option<&str>,
        scopes: Option<Vec<Granted>>,
    ) -> Result<Asked, String> {
        let auth = self.auth.as_ref().ok_or("this registry needs no token")?;
        let (principal, proof) = match (credentials, certificate) {
            (Credentials::Basic(name, password), _) => auth.login(&name, &password).await?,
            (Credentials::None, Some(name)) => {
                (Principal::Certificate(name.to_owned()), String::new())
            }
            (Credentials::None, None) => (Principal::Anonymous, String::new()),
            (Credentials::Bearer(token), _) if publisher::is_token(&token) => {
                auth.publisher(&token).await?
            }
            _ => return Err("the credentials are not understood".to_owned()),
        };
        Ok(Asked {
            principal,
            proof,
            scopes,
        })
    }

    /// A token for whoever asked, and how long it is good.
    pub fn issue(&self, asked: Asked) -> Option<(String, u64)> {
        let auth = self.auth.as_ref()?;
        let access = asked.scopes.map(|scopes| {
            scopes
                .into_iter()
                .map(|scope| self.narrow(&asked.principal, scope))
                .collect()
        });
        let (kind, sub, proof) = match asked.principal {
            Principal::Open | Principal::Anonymous => ("anonymous", String::new(), String::new()),
            Principal::User(name) => ("user", name, asked.proof),
            Principal::Publisher(name, subject) => ("publisher", name, subject),
            Principal::Certificate(name) => ("certificate", name, String::new()),
        };
        // A token for nobody is good for what is public, and never more.
        let access = match (kind, access) {
            ("anonymous", None) => Some(Vec::new()),
            (_, access) => access,
        };
        let now = metadata::now().unsigned_abs();
        let claims = Claims {
            aud: ISSUED_FOR.to_owned(),
            kind: kind.to_owned(),
            sub,
            proof,
            exp: now + auth.issuer.seconds,
            iat: now,
            access,
        };
        Some((auth.issuer.sign(&claims), auth.issuer.seconds))
    }

    /// What of `scope` the principal has a right to.
    fn narrow(&self, principal: &Principal, mut scope: Granted) -> Granted {
        if scope.kind == "repository" {
            let rights = scope.actions.iter().flat_map(|action| meaning(action));
            let mut kept: Vec<String> = Vec::new();
            for (word, right) in rights {
                let has = self.allows(principal, &scope.name, *right);
                if has && !kept.iter().any(|kept| kept == word) {
                    kept.push((*word).to_owned());
                }
            }
            scope.actions = kept;
        }
        scope
    }
}

impl Logins {
    async fn login(&self, name: &str, password: &str) -> Result<(Principal, String), String> {
        if name == OIDC_USER && publisher::is_token(password) {
            return self.publisher(password).await;
        }
        let wrong = || "the user name or the password is wrong".to_owned();
        let users = self.users.as_ref().ok_or_else(wrong)?;
        let proof = users.check(name, password).await.ok_or_else(wrong)?;
        Ok((Principal::User(name.to_owned()), proof))
    }

    async fn publisher(&self, token: &str) -> Result<(Principal, String), String> {
        if self.publishers.is_empty() {
            return Err("no publisher is configured".to_owned());
        }
        let (name, subject) = self.publishers.identify(token).await?;
        Ok((Principal::Publisher(name, subject), String::new()))
    }

    /// The principal of a token of ours, if it still exists.
    fn principal(&self, claims: Claims) -> Option<(Principal, Option<Vec<Granted>>)> {
        let Claims {
            kind,
            sub,
            proof,
            access,
            ..
        } = claims;
        let principal = match kind.as_str() {
            "anonymous" => Principal::Anonymous,
            "user" => {
                let now = self.users.as_ref()?.fingerprint(&sub)?;
                (now == proof).then_some(Principal::User(sub))?
            }
            "publisher" => {
                let known = self.publishers.knows(&sub);
                known.then_some(Principal::Publisher(sub, proof))?
            }
            "certificate" => Principal::Certificate(sub),
            _ => return None,
        };
        Some((principal, access))
    }
}

impl Granted {
    /// Reads `repository:team/app:pull,push`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    }

    /// Whether it includes `action` in `repository`.
    pub fn covers(&self, repository: &str, action: Action) -> bool {
        self.kind == "repository"
            && self.name == repository
            && self
                .actions
                .iter()
                .flat_map(|word| meaning(word))
                .any(|(_, right)| right.implies(action))
    }
}

impl Credentials {
    /// Reads an `Authorization` header.
    pub fn parse(header: Option<&str>) -> Self {
        let Some(header) = header else {
            return Self::None;
        };
        let (scheme, value) = header.trim().split_once(' ').unwrap_or((header, ""));
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
            return Self::Bearer(value.to_owned());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Unknown;
        }
        let decoded = BASE64.decode(value).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((name, password)) => Self::Basic(name.to_owned(), password.to_owned()),
            None => Self::Unknown,
        }
    }
}

/// Docker's words for rights. `push` is asked for by whoever pushes, with whatever right.
fn meaning(word: &str) -> &'static [(&'static str, Action)] {
    match word {
        "pull" => &[("pull", Action::Pull)],
        "push" => &[
            ("push", Action::Push),
            ("push", Action::Create),
            ("push", Action::Sign),
        ],
        "delete" => &[("delete", Action::Delete)],
        "*" => &[
            ("pull", Action::Pull),
            ("push", Action::Push),
            ("push", Action::Create),
            ("push", Action::Sign),
            ("delete", Action::Delete),
            ("*", Action::Admin),
        ],
        _ => &[],
    }
}

fn scope_of(actions: &[Action]) -> &'static str {
    match actions.first() {
        Some(Action::Delete) => "delete",
        Some(Action::Push | Action::Create | Action::Sign) => "pull,push",
        Some(Action::Admin) => "*",
        Some(Action::Pull) | None => "pull",
    }
}

/// `*` in `who` means any user, not any publisher.
fn same_kind(pattern: &str, name: &str) -> bool {
    let kind = |text: &str| {
        let (kind, _) = text.split_once(':').unwrap_or(("", text));
        kind.to_owned()
    };
    kind(pattern) == kind(name)
}

fn check_names(rules: &[Rule], publishers: &Publishers) -> Result<(), ConfigError> {
    for who in rules.iter().flat_map(|rule| &rule.who) {
        match who.as_str().split_once(':') {
            Some(("publisher", name)) if !name.contains('*') && !publishers.knows(name) => {
                return Err(unusable(&format!(
                    "[[access]]: there is no publisher {name}"
                )));
            }
            Some(("publisher" | "certificate", _)) | None => {}
            Some((kind, _)) => {
                return Err(unusable(&format!(
                    "[[access]]: {kind}: is no kind of principal"
                )));
            }
        }
    }
    Ok(())
}

fn unusable(message: &str) -> ConfigError {
    ConfigError::Unusable(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str) -> Access {
        let config = Config::parse(text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Access::new(&config, folder.path()).unwrap()
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.to_owned())
    }

    const RULES: &str = r#"
        [auth]
        [[access]]
        who = ["alice", "publisher:*"]
        repository = "team/*"
        actions = ["push"]
        [[access]]
        who = ["authenticated"]
        repository = "team/*"
        actions = ["pull"]
        [[access]]
        who = ["anonymous"]
        repository = "public/*"
        actions = ["pull"]
        [[access]]
        who = ["root"]
        repository = "*"
        actions = ["admin"]
    "#;

    #[test]
    fn rights_add_up_and_nothing_else_is_allowed() {
        let access = access(RULES);
        let ci = || Principal::Publisher("ci".into(), "x".into());
        let certificate = || Principal::Certificate("alice".into());
        for (principal, repository, action, want) in [
            (user("alice"), "team/app", Action::Push, true),
            (user("alice"), "team/app", Action::Pull, true),
            (user("alice"), "team/app", Action::Delete, false),
            (user("alice"), "teams/app", Action::Push, false),
            (user("alice"), "team", Action::Push, false),
            (user("bob"), "team/app", Action::Push, false),
            (user("bob"), "team/app", Action::Pull, true),
            (ci(), "team/app", Action::Push, true),
            // Names of one kind are not names of another.
            (certificate(), "team/app", Action::Push, false),
            (certificate(), "team/app", Action::Pull, true),
            (Principal::Anonymous, "team/app", Action::Pull, false),
            (Principal::Anonymous, "public/a", Action::Pull, true),
            (Principal::Anonymous, "public/a", Action::Push, false),
            (user("root"), "any/thing", Action::Delete, true),
        ] {
            assert_eq!(
                access.allows(&principal, repository, action),
                want,
                "{principal} {action:?} {repository}"
            );
        }
        assert!(access.is_operator(&user("root")));
        assert!(!access.is_operator(&user("alice")));
    }

    #[test]
    fn without_rules_a_password_is_good_for_pushing() {
        let closed = access("[auth]");
        assert!(closed.allows(&user("alice"), "a", Action::Push));
        assert!(!closed.allows(&user("alice"), "a", Action::Admin));
        assert!(!closed.allows(&Principal::Anonymous, "a", Action::Pull));
        let ci = Principal::Publisher("ci".into(), "x".into());
        assert!(!closed.allows(&ci, "a", Action::Pull));
        let public = access("[auth]\nanonymous_pull = true");
        assert!(public.allows(&Principal::Anonymous, "a", Action::Pull));
        assert!(!public.allows(&Principal::Anonymous, "a", Action::Push));
        assert!(access("").allows(&Principal::Open, "a", Action::Admin));
    }

    #[tokio::test]
    async fn a_token_is_narrow_and_gives_no_rights() {
        let access = Arc::new(access(RULES));
        let peer = IpAddr::from([127, 0, 0, 1]);
        let scope = |text: &str| Granted::parse(text).unwrap();
        let token = |principal: Principal, scopes: &[&str]| {
            let asked = Asked {
                principal,
                proof: String::new(),
                scopes: Some(scopes.iter().map(|text| scope(text)).collect()),
            };
            Credentials::Bearer(access.issue(asked).unwrap().0)
        };
        let ci = || Principal::Publisher("ci".into(), "x".into());
        // The publisher is not configured any more: its token is worth nothing.
        let gone = access.identify(token(ci(), &[]), None, peer).await;
        assert!(matches!(gone, Err(Denial::Wrong(_))));
        let certificate = || Principal::Certificate("b".into());
        let both = token(certificate(), &["repository:team/app:pull,push,delete"]);
        let caller = access.identify(both, None, peer).await.unwrap();
        let team: Repository = "team/app".parse().unwrap();
        let other: Repository = "team/other".parse().unwrap();
        assert!(caller.may(&team, Action::Pull));
        assert!(!caller.may(&team, Action::Push));
        assert!(!caller.may(&other, Action::Pull));
        let need = |name: &Repository, actions| Need::Any(name.clone(), actions);
        assert_eq!(
            access.permit(&caller, &need(&other, &[Action::Pull])),
            Err(Denial::Challenge(Some("repository:team/other:pull".into())))
        );
        assert_eq!(
            access.permit(&caller, &need(&team, &[Action::Push])),
            Err(Denial::Forbidden)
        );
    }

    #[test]
    fn headers() {
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text));
        for (header, want) in [
            (None, Credentials::None),
            (
                Some(basic("alice:a:b")),
                Credentials::Basic("alice".into(), "a:b".into()),
            ),
            (Some("bearer x".into()), Credentials::Bearer("x".into())),
            (Some(basic("alice")), Credentials::Unknown),
            (Some("Basic !".into()), Credentials::Unknown),
            (Some("Digest x".into()), Credentials::Unknown),
            (Some("Bearer".into()), Credentials::Unknown),
        ] {
            assert_eq!(Credentials::parse(header.as_deref()), want, "{header:?}");
        }
        for (text, want) in [
            ("repository:a/b:pull,push", true),
            ("registry:catalog:*", true),
            ("repository", false),
            ("repository:a", false),
        ] {
            assert_eq!(Granted::parse(text).is_some(), want, "{text}");
        }
    }
}
