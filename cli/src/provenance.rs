//! SLSA provenance v1, from what a CI system says about the build that runs in it.

use std::{collections::BTreeMap, env, path::PathBuf};

use bundle::Digest;
use serde_json::{Value, json};

use crate::Failure;

/// What the command line says about the build.
#[derive(clap::Args)]
#[command(next_help_heading = "Provenance options")]
pub struct BuildArgs {
    /// A file that it was made from, named in the provenance with its digest; can be repeated.
    #[arg(long, value_name = "FILE", requires = "provenance")]
    material: Vec<PathBuf>,
    /// What chose the build's course beyond its source, as NAME=VALUE; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "provenance")]
    parameter: Vec<(String, String)>,
    /// Who builds, as a URI, where no CI system says it.
    #[arg(long, value_name = "URI", requires_all = ["provenance", "source", "revision"])]
    builder: Option<String>,
    /// The source repository's URL.
    #[arg(long, value_name = "URL", requires = "builder")]
    source: Option<String>,
    /// The commit that was built, in hex digits.
    #[arg(long, value_name = "COMMIT", value_parser = commit, requires = "builder")]
    revision: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("want NAME=VALUE".to_owned()),
    }
}

fn commit(text: &str) -> Result<String, String> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex && (7..=64).contains(&text.len()) {
        true => Ok(text.to_lowercase()),
        false => Err("want a commit in hex digits".to_owned()),
    }
}

/// The predicate for the build that runs here.
pub fn ambient(args: &BuildArgs) -> Result<Value, Failure> {
    let variables: BTreeMap<String, String> = env::vars().collect();
    let known = explicit(args).or_else(|| of(&variables));
    let mut predicate = known.ok_or_else(|| {
        Failure::usage("no CI system runs this: neither GitHub, GitLab nor Buildkite").with_remedy(
            "Say it yourself: `--builder URI --source URL --revision COMMIT`, or give a \
             predicate of your own: `--predicate FILE --type slsa-provenance`.",
        )
    })?;
    for (name, value) in &args.parameter {
        predicate["buildDefinition"]["externalParameters"][name] = json!(value);
    }
    let mut files = Vec::new();
    for path in &args.material {
        let bytes = std::fs::read(path).map_err(|error| Failure::io("cannot read", path, error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push(json!({
            "name": name,
            "digest": { "sha256": Digest::of(&bytes).to_hex() },
        }));
    }
    if let Some(list) = predicate["buildDefinition"]["resolvedDependencies"].as_array_mut() {
        list.extend(files);
    }
    Ok(predicate)
}

/// As the command line says it.
fn explicit(args: &BuildArgs) -> Option<Value> {
    let (builder, source, revision) = (
        args.builder.as_ref()?,
        args.source.as_ref()?,
        args.revision.as_ref()?,
    );
    Some(json!({
        "buildDefinition": {
            "buildType": "https://github.com/bpfseal/bpfseal/build/v1",
            "externalParameters": { "source": source, "revision": revision },
            "resolvedDependencies": [{
                "uri": format!("git+{source}@{revision}"),
                "digest": { "gitCommit": revision },
            }],
        },
        "runDetails": { "builder": { "id": builder } },
    }))
}

fn of(variables: &BTreeMap<String, String>) -> Option<Value> {
    let is = |name: &str| variables.get(name).is_some_and(|value| value == "true");
    let of = |name: &str| variables.get(name).map_or("", String::as_str);
    if is("GITHUB_ACTIONS") {
        Some(github(of))
    } else if is("GITLAB_CI") {
        Some(gitlab(of))
    } else if is("BUILDKITE") {
        Some(buildkite(of))
    } else {
        None
    }
}

/// As `actions/attest-build-provenance` writes it
/// (`https://actions.github.io/buildtypes/workflow/v1`).
fn github<'v>(of: impl Fn(&str) -> &'v str) -> Value {
    let repository = format!("{}/{}", of("GITHUB_SERVER_URL"), of("GITHUB_REPOSITORY"));
    let flow = of("GITHUB_WORKFLOW_REF");
    let path = flow
        .strip_prefix(&format!("{}/", of("GITHUB_REPOSITORY")))
        .and_then(|rest| rest.split('@').next())
        .unwrap_or_default();
    let run = format!(
        "{repository}/actions/runs/{}/attempts/{}",
        of("GITHUB_RUN_ID"),
        of("GITHUB_RUN_ATTEMPT")
    );
    json!({
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": { "workflow": {
                "ref": of("GITHUB_REF"),
                "repository": repository,
                "path": path,
            }},
            "internalParameters": { "github": {
                "event_name": of("GITHUB_EVENT_NAME"),
                "repository_id": of("GITHUB_REPOSITORY_ID"),
                "repository_owner_id": of("GITHUB_REPOSITORY_OWNER_ID"),
                "runner_environment": of("RUNNER_ENVIRONMENT"),
            }},
            "resolvedDependencies": [source(&repository, of("GITHUB_REF"), of("GITHUB_SHA"))],
        },
        "runDetails": {
            "builder": { "id": format!("{}/{flow}", of("GITHUB_SERVER_URL")) },
            "metadata": { "invocationId": run },
        },
    })
}

fn gitlab<'v>(of: impl Fn(&str) -> &'v str) -> Value {
    let project = of("CI_PROJECT_URL");
    json!({
        "buildDefinition": {
            "buildType": "https://docs.gitlab.com/ci/yaml/",
            "externalParameters": {
                "source": project,
                "ref": of("CI_COMMIT_REF_NAME"),
                "entryPoint": of("CI_JOB_NAME"),
                "config": of("CI_CONFIG_PATH"),
            },
            "internalParameters": {
                "pipeline_source": of("CI_PIPELINE_SOURCE"),
                "project_id": of("CI_PROJECT_ID"),
                "runner_version": of("CI_RUNNER_VERSION"),
            },
            "resolvedDependencies": [source(project, of("CI_COMMIT_REF_NAME"), of("CI_COMMIT_SHA"))],
        },
        "runDetails": {
            "builder": { "id": format!("{project}/-/runners/{}", of("CI_RUNNER_ID")) },
            "metadata": {
                "invocationId": of("CI_JOB_URL"),
                "startedOn": of("CI_JOB_STARTED_AT"),
            },
        },
    })
}

fn buildkite<'v>(of: impl Fn(&str) -> &'v str) -> Value {
    json!({
        "buildDefinition": {
            "buildType": "https://buildkite.com/docs/pipelines",
            "externalParameters": {
                "source": of("BUILDKITE_REPO"),
                "ref": of("BUILDKITE_BRANCH"),
                "pipeline": of("BUILDKITE_PIPELINE_SLUG"),
            },
            "internalParameters": {
                "build_source": of("BUILDKITE_SOURCE"),
                "agent": of("BUILDKITE_AGENT_NAME"),
            },
            "resolvedDependencies": [
                source(of("BUILDKITE_REPO"), of("BUILDKITE_BRANCH"), of("BUILDKITE_COMMIT"))
            ],
        },
        "runDetails": {
            "builder": { "id": format!(
                "https://buildkite.com/{}/agents",
                of("BUILDKITE_ORGANIZATION_SLUG")
            )},
            "metadata": { "invocationId": format!(
                "{}#{}", of("BUILDKITE_BUILD_URL"), of("BUILDKITE_JOB_ID")
            )},
        },
    })
}

fn source(repository: &str, reference: &str, commit: &str) -> Value {
    json!({
        "uri": format!("git+{repository}@{reference}"),
        "digest": { "gitCommit": commit },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_it_where_nobody_else_does() {
        let material = tempfile::NamedTempFile::new().unwrap();
        let args = BuildArgs {
            material: vec![material.path().to_owned()],
            parameter: vec![("flags".into(), "-O2".into())],
            builder: Some("https://ci.example/builder".into()),
            source: Some("https://git.example/probe".into()),
            revision: Some("0123abc".into()),
        };
        let name = material.path().file_name().unwrap().to_string_lossy();
        assert_eq!(
            ambient(&args).unwrap(),
            json!({
                "buildDefinition": {
                    "buildType": "https://github.com/bpfseal/bpfseal/build/v1",
                    "externalParameters": {
                        "source": "https://git.example/probe",
                        "revision": "0123abc",
                        "flags": "-O2",
                    },
                    "resolvedDependencies": [
                        {
                            "uri": "git+https://git.example/probe@0123abc",
                            "digest": { "gitCommit": "0123abc" },
                        },
                        { "name": name, "digest": { "sha256": Digest::of(b"").to_hex() } },
                    ],
                },
                "runDetails": { "builder": { "id": "https://ci.example/builder" } },
            })
        );
        assert_eq!(commit("0123ABC"), Ok("0123abc".into()));
        for wrong in ["main", "0123", ""] {
            assert!(commit(wrong).is_err(), "{wrong}");
        }
        assert!(pair("=x").is_err() && pair("x").is_err());
    }

    #[test]
    fn says_who_built_what_from_where() {
        let variables = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let github = of(&variables(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "acme/xdp"),
            (
                "GITHUB_WORKFLOW_REF",
                "acme/xdp/.github/workflows/r.yml@refs/tags/v1",
            ),
            ("GITHUB_REF", "refs/tags/v1"),
            ("GITHUB_SHA", "0123"),
            ("GITHUB_RUN_ID", "7"),
            ("GITHUB_RUN_ATTEMPT", "1"),
        ]))
        .unwrap();
        assert_eq!(
            github["runDetails"],
            json!({
                "builder": {
                    "id": "https://github.com/acme/xdp/.github/workflows/r.yml@refs/tags/v1"
                },
                "metadata": {
                    "invocationId": "https://github.com/acme/xdp/actions/runs/7/attempts/1"
                },
            })
        );
        assert_eq!(
            github["buildDefinition"]["externalParameters"]["workflow"]["path"],
            ".github/workflows/r.yml"
        );
        assert_eq!(
            github["buildDefinition"]["resolvedDependencies"],
            json!([{
                "uri": "git+https://github.com/acme/xdp@refs/tags/v1",
                "digest": { "gitCommit": "0123" },
            }])
        );
        let gitlab = of(&variables(&[
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_URL", "https://gitlab.example/a/b"),
            ("CI_JOB_URL", "https://gitlab.example/a/b/-/jobs/1"),
            ("CI_RUNNER_ID", "3"),
        ]))
        .unwrap();
        assert_eq!(
            gitlab["runDetails"]["builder"]["id"],
            "https://gitlab.example/a/b/-/runners/3"
        );
        assert_eq!(of(&variables(&[("CI", "true")])), None);
    }
}
