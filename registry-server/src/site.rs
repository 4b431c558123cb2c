//! What the configuration says while serving: it can change without a restart.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use policy::Policy;

use crate::{
    access::{Access, Rates},
    admission::Law,
    config::{Config, ConfigError, RepositoryRule, Revocation},
    metadata::Quota,
    name::{Repository, Tag},
    revocation::Revoked,
};

/// Rights, rules of repositories and limits, all from one reading of the configuration.
pub struct Site {
    /// Who may do what.
    pub access: Arc<Access>,
    /// Limits of requests.
    pub rates: Rates,
    /// What clients call this registry, if configured.
    pub name: Option<String>,
    /// Whether they reach it by TLS.
    pub https: bool,
    rules: Vec<RepositoryRule>,
    policies: Vec<Option<Arc<Policy>>>,
    /// What was signed once and is not good any more.
    pub revoked: Option<Arc<Revoked>>,
    revocation: Option<Revocation>,
}

impl Site {
    /// Puts a configuration in force.
    pub fn new(config: &Config, root: &Path) -> Result<Self, ConfigError> {
        let https = match config.scheme.as_deref() {
            None => config.tls.is_some(),
            Some("https") => true,
            Some("http") => false,
            Some(other) => {
                let message = format!("scheme is http or https, not {other:?}");
                return Err(ConfigError::Unusable(message));
            }
        };
        Ok(Self {
            access: Arc::new(Access::new(config, root)?),
            rates: Rates::new(&config.limits),
            name: config.name.clone(),
            https,
            policies: policies(config)?,
            revoked: revoked(config)?.map(Arc::new),
            revocation: config.revocation.clone(),
            rules: config.repository.clone(),
        })
    }

    /// The rule of a repository, if there is one.
    pub fn rule(&self, repository: &Repository) -> Option<&RepositoryRule> {
        let name = repository.as_str();
        self.rules.iter().find(|rule| rule.name.covers(name))
    }

    /// The policy that decides about a repository.
    pub fn policy(&self, repository: &Repository) -> Option<&Arc<Policy>> {
        let name = repository.as_str();
        let place = self.rules.iter().position(|rule| rule.name.covers(name))?;
        self.policies.get(place)?.as_ref()
    }

    /// What decides about a repository, if anything does.
    pub fn law(&self, repository: &Repository) -> Option<Law> {
        Some(Law {
            policy: Arc::clone(self.policy(repository)?),
            revoked: self.revoked.clone(),
            scope: self.scope(repository),
        })
    }

    /// What policies call a repository.
    fn scope(&self, repository: &Repository) -> String {
        match &self.name {
            Some(host) => format!("{host}/{repository}"),
            None => repository.to_string(),
        }
    }

    /// What a repository may hold.
    pub fn quota(&self, repository: &Repository) -> Quota {
        let rule = self.rule(repository);
        rule.map_or_else(Quota::default, |rule| Quota {
            bytes: rule.quota_bytes,
            manifests: rule.quota_manifests,
        })
    }

    /// Whether a tag stays where it is once set.
    pub fn is_immutable(&self, repository: &Repository, tag: &Tag) -> bool {
        let rule = self.rule(repository);
        rule.is_some_and(|rule| {
            let mut patterns = rule.immutable_tags.iter();
            patterns.any(|pattern| pattern.covers(tag.as_str()))
        })
    }

    /// Where clients reach this registry: the beginning of every URL that it hands out.
    pub fn origin(&self, host: Option<&str>) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let clean = |host: &&str| {
            let mut bytes = host.bytes();
            !host.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b))
        };
        let host = self.name.as_deref().or(host.filter(clean));
        format!("{scheme}://{}", host.unwrap_or("localhost"))
    }
}

/// Reads the policies that the rules name.
fn policies(config: &Config) -> Result<Vec<Option<Arc<Policy>>>, ConfigError> {
    let read = |path: &PathBuf| {
        let unusable = |message: &str| ConfigError::Unusable(message.to_owned());
        if config.auth.is_none() {
            return Err(unusable(
                "a policy needs [auth]: else nobody can be told from readers",
            ));
        }
        if config.name.is_none() {
            return Err(unusable(
                "a policy needs `name`: the scopes of its rules begin with it",
            ));
        }
        let display = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: display.clone(),
            error,
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let parsed = Policy::parse(&text, &|key| fs::read(folder.join(key)));
        let parsed =
            parsed.map_err(|error| ConfigError::Unusable(format!("{display}: {error}")))?;
        Ok(Arc::new(parsed))
    };
    let rules = config.repository.iter();
    rules
        .map(|rule| rule.policy.as_ref().map(read).transpose())
        .collect()
}

/// Reads the revocation list.
fn revoked(config: &Config) -> Result<Option<Revoked>, ConfigError> {
    let Some(revocation) = &config.revocation else {
        return Ok(None);
    };
    if config.repository.iter().all(|rule| rule.policy.is_none()) {
        let message = "[revocation] needs a [[repository]] with a policy: else nothing is decided";
        return Err(ConfigError::Unusable(message.to_owned()));
    }
    Revoked::read(revocation).map(Some)
}

/// The site in force.
pub struct Current {
    site: RwLock<Arc<Site>>,
    config: Option<PathBuf>,
    root: PathBuf,
    /// What the command line adds.
    flags: Box<Complete>,
}

/// Puts what the command line says into a configuration.
pub type Complete = dyn Fn(&mut Config) + Send + Sync;

impl Current {
    /// `site`, to be read again from `config` if there is such a file.
    pub fn new(site: Site, config: Option<PathBuf>, root: &Path, flags: Box<Complete>) -> Self {
        Self {
            site: RwLock::new(Arc::new(site)),
            config,
            root: root.to_owned(),
            flags,
        }
    }

    /// The files whose change means another site.
    pub fn files(&self) -> Vec<PathBuf> {
        let site = self.site();
        let policies = site.rules.iter().filter_map(|rule| rule.policy.clone());
        let revocation = site.revocation.iter();
        let lists = revocation.flat_map(|files| [files.authority.clone(), files.list.clone()]);
        let config = self.config.iter().cloned();
        config.chain(policies).chain(lists).collect()
    }

    /// The site as it is now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the configuration anew. One that is unusable changes nothing.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let Some(path) = &self.config else {
            return Ok(());
        };
        let mut config = Config::read(path)?;
        (self.flags)(&mut config);
        let site = Arc::new(Site::new(&config, &self.root)?);
        if let (Some(new), Some(old)) = (&site.revoked, &self.site().revoked) {
            new.check_not_older(old)?;
        }
        *self.site.write().unwrap_or_else(PoisonError::into_inner) = site;
        Ok(())
    }
}
