//! SLSA provenance v1, from what a CI system says about the build that runs in it.

use std::{collections::BTreeMap, env, path::PathBuf};

use bundle::Digest;
use serde_json::{Value, json};

use crate::Failure;

/// The predicate for the build that runs here, with these files among its materials.
pub fn ambient(materials: &[PathBuf]) -> Result<Value, Failure> {
    let variables: BTreeMap<String, String> = env::vars().collect();
    let mut predicate = of(&variables).ok_or_else(|| {
        Failure::usage("no CI system runs this: neither GitHub, GitLab nor Buildkite")
            .with_remedy("Give a predicate of your own: `--predicate FILE --type slsa-provenance`.")
    })?;
    let mut files = Vec::new();
    for path in materials {
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
